"""Networks that others have trained: how their weights are had, and the speech encoders that features and models share.

Models train them, features leave them as they are.
"""
