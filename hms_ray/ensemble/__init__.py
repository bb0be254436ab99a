"""Ensembles of out-of-fold predictions. A file here is a method: its `fit(probs, targets)` gives a pool.

`fit` takes arrays from anywhere and gives an `Ensemble`; `fit_study` does the same for a study's folder.
"""

from hms_ray.ensemble._estimator import Ensemble, fit
from hms_ray.ensemble._members import Limits
from hms_ray.ensemble._methods import check as check_pool
from hms_ray.ensemble._study import fit_study

__all__ = ["Ensemble", "Limits", "check_pool", "fit", "fit_study"]
