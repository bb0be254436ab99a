"""Search spaces: reading, checking and sampling them."""
