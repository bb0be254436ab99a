"""Pooling methods, one file each: `fit(probs, targets, ...)` returns a pool; the file name is its name."""
