"""Augmentations, one file each: `Params` and `apply(batch, rng, params) -> Batch`."""
