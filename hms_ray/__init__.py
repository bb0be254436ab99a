"""Ray-distributed hyperparameter search and honest, certified ensembling for EEG and heart sounds.

`import hms_ray as hr`: the verbs of the command line as functions (`hr.search`, `hr.train`, `hr.predict`, `hr.report`),
`hr.fit` for arrays of out-of-fold predictions, and `hr.load_study` for what a study holds. See `hms_ray.api`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hms_ray.api import (
        Study,
        import_oof,
        load_space,
        load_study,
        predict,
        prepare,
        report,
        search,
        train,
    )
    from hms_ray.ensemble import Ensemble, Limits, fit

__version__ = "0.1.0"

__all__ = [
    "Ensemble",
    "Limits",
    "Study",
    "__version__",
    "fit",
    "import_oof",
    "load_space",
    "load_study",
    "predict",
    "prepare",
    "report",
    "search",
    "train",
]

_PLACES = dict.fromkeys(set(__all__) - {"__version__"}, "hms_ray.api")
_PLACES |= dict.fromkeys(("Ensemble", "Limits", "fit"), "hms_ray.ensemble")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import hms_ray` itself takes no library."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """The package `hms_ray.search` or `hms_ray.report`, called like the function of its name.

    Python binds a package to its parent when it is imported, and so would hide `hr.search` behind it.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function of this name."""
        return getattr(importlib.import_module("hms_ray.api"), self.__name__.rpartition(".")[2])(*arguments, **options)


class _Face(ModuleType):
    """This package: a room that has the name of a verb can be called as the verb."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            value.__class__ = _Package
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
