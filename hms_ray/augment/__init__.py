"""Augmentations, one file each: `Params` and `apply(batch, rng, params) -> Batch`.

Those whose full change is a view of the example worth predicting on also have `variant(x, spec) -> x`: every row
changed, without chance, and twice is the original.
"""
