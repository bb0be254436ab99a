"""Ensembles of out-of-fold tables. A file here is a method: its `fit(probs, targets)` gives a pool."""

from hms_ray.ensemble._study import fit_study

__all__ = ["fit_study"]
