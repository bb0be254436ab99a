"""What every room builds on: errors, files, seeds, parameters and progress."""
