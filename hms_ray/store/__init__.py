"""Recordings read once: kept as features or as they are, and handed to training in batches."""
