"""Pooling methods, one file each: `fit(probs, targets, ...)` returns a pool; the file name is its name."""

from hms_ray.ensemble.pools._base import Sentences, Weighted

__all__ = ["Sentences", "Weighted"]
