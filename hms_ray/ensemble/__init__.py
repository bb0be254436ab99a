"""Ensembles of out-of-fold predictions. A file here is a method: its `fit(probs, targets)` gives a pool.

`fit` takes arrays from anywhere and gives an `Ensemble`; `fit_study` does the same for a study's folder. A name is
imported when it is first used: who only predicts, or reads what was fitted, does without the solvers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hms_ray.ensemble.estimator import Ensemble, fit
    from hms_ray.ensemble.members import Limits
    from hms_ray.ensemble.methods import check as check_pool
    from hms_ray.ensemble.study_fit import fit_study

__all__ = ["TOLERANCE", "Ensemble", "Limits", "check_pool", "fit", "fit_study"]

TOLERANCE = 1e-9  # nats: a fit whose duality gap is below this is certified

_PLACES = {
    "Ensemble": ("estimator", "Ensemble"),
    "fit": ("estimator", "fit"),
    "Limits": ("members", "Limits"),
    "check_pool": ("methods", "check"),
    "fit_study": ("study_fit", "fit_study"),
}


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
