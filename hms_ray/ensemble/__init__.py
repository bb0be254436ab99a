"""Ensembles of out-of-fold predictions. Each file in `pools` is a method: its `fit(probs, targets)` returns a pool.

`fit` takes arrays and returns an `Ensemble`; `fit_study` does the same for a study's folder. A name is imported when it
is first used, so prediction and the reading of results do not import the solvers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hms_ray.ensemble.estimator import Ensemble, fit
    from hms_ray.ensemble.members import Limits
    from hms_ray.ensemble.methods import check as check_pool
    from hms_ray.ensemble.study_fit import fit_study

__all__ = ["TOLERANCE", "Ensemble", "Limits", "check_pool", "fit", "fit_study"]

TOLERANCE = 1e-9  # nats: a fit with a duality gap below this is certified

_MODULES = {
    "Ensemble": ("estimator", "Ensemble"),
    "fit": ("estimator", "fit"),
    "Limits": ("members", "Limits"),
    "check_pool": ("methods", "check"),
    "fit_study": ("study_fit", "fit_study"),
}


def __getattr__(name: str) -> object:
    """Import a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _MODULES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
