"""What can be added, and what each kind must have: a model, a feature, an augmentation, a dataset, a pool.

Each is a module: a file of this package, a module of an installed package, or a file that a space names
(`hms_ray.registry` finds all three). The Protocols below state what such a module holds; `check` compares a module with
its Protocol when it is found. docs/extending.md has an example of each.

Letters of shapes: B batch, C channels, F frequency, T time, K classes, N units, M members.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from hms_ray.core.errors import ConfigError, raise_all, shown

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from hms_ray.core.params import Params as Strict
    from hms_ray.core.specs import Batch, InputSpec, Layout

    Weights = Mapping[str, torch.Tensor]  # a state dict


class Component(Protocol):
    """What every kind but a pool has."""

    @property
    def Params(self) -> type[Strict]:
        """The parameters that a space may set: a subclass of `hms_ray.core.params.Params`, strict and frozen.

        No field is called `name` or `file`; in a space these name the component.
        """


class Model(Component, Protocol):
    """A network: the logits of a batch of examples."""

    @property
    def LAYOUT(self) -> Layout:
        """The examples it takes: "image" (C, F, T), "wave" (C, T) or "embedding" (layers, T, dimensions)."""

    def build(self, spec: InputSpec, n_outputs: int, params: Strict, *weights: Weights) -> nn.Module:
        """Return a network (B, *spec.shape) float32 -> logits (B, n_outputs).

        params: an instance of the model's own `Params`, as everywhere below
        weights: one state dict of published weights, only for a model that is `Published`
        """


class Feature(Component, Protocol):
    """The input of a model, computed from the windows of one or several kinds of recordings."""

    def spec(self, params: Strict) -> InputSpec:
        """Return shape, layout, rate in Hz and kinds of recordings, from the parameters alone."""

    def compute(
        self, recordings: Mapping[str, torch.Tensor], params: Strict, *weights: Callable[[], Weights]
    ) -> torch.Tensor:
        """Return the examples (B, *spec.shape) float32, without NaN.

        recordings: by kind, windows (B, channels, steps) float32, NaN where there is a gap; EEG in microvolts
        weights: a function that returns published weights, only for a feature that is `Published`
        """


class Source(Protocol):
    """Published weights; `hms_ray.encoders.pretrained.Source` is one."""

    @property
    def key(self) -> str:
        """What names them for good."""

    @property
    def load(self) -> Callable[[], Weights]:
        """The function that fetches them."""


@runtime_checkable
class Published(Protocol):
    """A model or a feature that begins from published weights."""

    def source(self, params: Strict) -> Source | None:
        """Return the weights that the parameters name; None: random ones."""


class Augmentation(Component, Protocol):
    """A random change of training batches. `Params` has the field `p`, the share of the rows that change."""

    def apply(self, batch: Batch, rng: np.random.Generator, params: Strict) -> Batch:
        """Return the changed batch, shapes as given; everything random is drawn from `rng`.

        Raises:
            ConfigError: it cannot be applied to such examples.
        """


@runtime_checkable
class Variant(Protocol):
    """An augmentation that `test_time` may name: its full version is predicted beside the example itself."""

    def variant(self, x: torch.Tensor, spec: InputSpec) -> torch.Tensor:
        """Return examples (B, *spec.shape), each changed in full."""


class Dataset(Component, Protocol):
    """Where units, labels and recordings come from. Every field of `Params` has a default.

    Optional: NO_DATA, the sentence to say where no folder is named.
    """

    def load(self, root: Path, params: Strict) -> object:
        """Return the labelled part, a `hms_ray.datasets.Dataset`.

        Raises:
            DataError: a file is missing or broken.
        """

    def load_test(self, root: Path) -> object:
        """Return the part without labels, a `hms_ray.datasets.Dataset`; errors as in `load`."""

    def write_submission(self, path: Path, unit_ids: list[str], probs: np.ndarray) -> None:
        """Write the predictions (N, K) of units, in the form that the dataset's readers take."""

    def locate(self, data: str | None, cache: Path) -> Path:
        """Return the folder that `--data` names; None: it names none. cache: where it may keep what it fetches."""


@runtime_checkable
class Simulated(Protocol):
    """A dataset that can write simulated recordings."""

    def simulated(self, out: Path, patients: int, seed: int, progress: Callable[[int, int], None]) -> None:
        """Write recordings and labels of so many patients into the folder `out`; progress: gets (done, total)."""


class FittedPool(Protocol):
    """A fitted pool; immutable."""

    @property
    def weights(self) -> np.ndarray:
        """Weight of each member (M,); each method defines whether they have a fixed sum."""

    @property
    def gap(self) -> float | None:
        """Bound on the distance to the method's optimum, in nats; None where there is no bound."""

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""

    def reindexed(self, change: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Return the pool over other members; `change` maps weights (..., M) to (..., M')."""

    def to_dict(self) -> dict[str, object]:
        """Return everything that `from_dict` needs, as JSON."""

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Self:
        """Restore the pool from the result of `to_dict`."""


class Pool(Protocol):
    """A way to combine members.

    Optional: SHORT_LABEL, its name within a list; `explain(pool)` or SENTENCES, the report's sentences on it.
    """

    @property
    def LABEL(self) -> str:
        """Its name in the report."""

    @property
    def Pool(self) -> type[FittedPool]:
        """The class of what `fit` returns, defined in the same file: a stored pool is restored by its file's name."""

    def fit(
        self,
        probs: np.ndarray,
        targets: np.ndarray,
        sample_weight: np.ndarray | None = None,
        start: FittedPool | None = None,
        **options: object,
    ) -> FittedPool:
        """Fit on out-of-fold predictions.

        probs: (N, M, ..., K) of M members; targets: (N, ..., K); sample_weight: (N,)
        start: a pool of the same method to begin from; options: numbers, by keyword
        """


Faults = Iterator[str]


@dataclass(frozen=True)
class _Rule:
    """What one member of a module must be; `faults` yields what is wrong with a value of a module."""

    expected: str
    faults: Callable[[object, ModuleType], Faults]
    optional: bool = False


def check(kind: str, module: ModuleType, where: str) -> None:
    """Compare a module with the contract of its kind; a kind without a contract has nothing to break.

    where: what the message calls the module, with its place

    Raises:
        ConfigError: lists each member that is missing or of the wrong kind, and what was expected.
    """
    faults: list[str] = []
    for name, rule in RULES.get(kind, {}).items():
        if hasattr(module, name):
            causes = rule.faults(getattr(module, name), module)
            faults += [f"{name} must be {rule.expected}, but {cause}" for cause in causes]
        elif not rule.optional:
            faults.append(f"{name} is missing: it must be {rule.expected}")
    if not faults and kind == "features":
        faults = list(_spec_faults(module))
    if faults:
        raise_all(faults, ConfigError, f"{where} breaks the contract hms_ray.contracts.{PROTOCOLS[kind]}")


def _takes(*arguments: str, also: str = "", optional: bool = False) -> _Rule:
    """Return the rule for a function of these arguments. also: one that only a `Published` module's gets."""

    def faults(value: object, module: ModuleType) -> Faults:
        given = (*arguments, also) if also and isinstance(module, Published) else arguments
        if not callable(value):
            yield f"is {shown(value)}"
            return
        signature = inspect.signature(value)
        families = {"families": ()} if "families" in signature.parameters else {}  # which a pool of two levels is given
        try:
            signature.bind(*given, **families)
        except TypeError:
            yield f"takes {signature}" + (f"; a module with a source is given {also} as well" if also in given else "")

    return _Rule(f"a function of ({', '.join(arguments)})", faults, optional)


def _text_faults(value: object, module: ModuleType) -> Faults:
    if not isinstance(value, str) or not value.strip():
        yield f"is {shown(value)}"


def _layout_faults(value: object, module: ModuleType) -> Faults:
    if value not in ("image", "wave", "embedding"):
        yield f"is {shown(value)}"


def _params_faults(value: object, module: ModuleType) -> Faults:
    from hms_ray.core.params import Params  # pydantic, which a list of names does without

    if not (isinstance(value, type) and issubclass(value, Params)):
        yield f"is {shown(value)}"
        return
    for option in ("strict", "frozen", "extra", "allow_inf_nan"):
        given, right = value.model_config.get(option), Params.model_config.get(option)
        if given != right:
            yield f"its model_config sets {option} to {given!r}, not {right!r}"
    for name in ("name", "file"):
        if name in value.model_fields:
            yield f"it has a field {name!r}, which in a space names the component"


def _share_faults(value: object, module: ModuleType) -> Faults:
    faults = list(_params_faults(value, module))
    if not faults and "p" not in module.Params.model_fields:
        faults = ["it has no field p"]
    yield from faults


def _default_faults(value: object, module: ModuleType) -> Faults:
    faults = list(_params_faults(value, module))
    yield from faults or (f"{name} has none" for name in _required(module.Params))


def _pool_faults(value: object, module: ModuleType) -> Faults:
    if not isinstance(value, type):
        yield f"is {shown(value)}"
        return
    if value.__module__ != module.__name__:
        yield f"is defined in {value.__module__}"
    known = {*dir(value), *getattr(value, "__dataclass_fields__", ())}
    for name in FITTED:
        if name not in known:
            yield f"it has no {name}"


def _sentences_faults(value: object, module: ModuleType) -> Faults:
    if not all(isinstance(getattr(value, name, None), str) for name in ("weights", "bound", "no_bound", "composition")):
        yield f"is {shown(value)}"


def _spec_faults(module: ModuleType) -> Faults:
    """Say what is wrong with the spec of the default parameters; a run tries parameters without defaults."""
    from hms_ray.core.specs import InputSpec

    if _required(module.Params):
        return
    try:
        spec = module.spec(module.Params())
    except Exception as error:  # whatever the code of others raises: the message names it
        yield f"spec must return a hms_ray.core.specs.InputSpec, but raised {type(error).__name__}: {error}"
        return
    if not isinstance(spec, InputSpec):
        yield f"spec must return a hms_ray.core.specs.InputSpec, but returned {shown(spec)}"


def _required(params: type[Strict]) -> Sequence[str]:
    return [name for name, field in params.model_fields.items() if field.is_required()]


PROTOCOLS = {
    "models": "Model",
    "features": "Feature",
    "augment": "Augmentation",
    "datasets": "Dataset",
    "pools": "Pool",
}
FITTED = ("weights", "gap", "predict", "reindexed", "to_dict", "from_dict")
STRICT = "a subclass of hms_ray.core.params.Params, strict and frozen"
RULES: Mapping[str, Mapping[str, _Rule]] = {
    "models": {
        "LAYOUT": _Rule('"image", "wave" or "embedding"', _layout_faults),
        "Params": _Rule(STRICT, _params_faults),
        "source": _takes("params", optional=True),
        "build": _takes("spec", "n_outputs", "params", also="weights"),
    },
    "features": {
        "Params": _Rule(STRICT, _params_faults),
        "spec": _takes("params"),
        "source": _takes("params", optional=True),
        "compute": _takes("recordings", "params", also="weights"),
    },
    "augment": {
        "Params": _Rule(f"{STRICT}, with the field p, the share of the rows that change", _share_faults),
        "apply": _takes("batch", "rng", "params"),
        "variant": _takes("x", "spec", optional=True),
    },
    "datasets": {
        "Params": _Rule(f"{STRICT}, with a default for every field", _default_faults),
        "load": _takes("root", "params"),
        "load_test": _takes("root"),
        "write_submission": _takes("path", "unit_ids", "probs"),
        "locate": _takes("data", "cache"),
        "simulated": _takes("out", "patients", "seed", "progress", optional=True),
        "NO_DATA": _Rule("a sentence", _text_faults, optional=True),
    },
    "pools": {
        "LABEL": _Rule("a name for readers", _text_faults),
        "SHORT_LABEL": _Rule("a name for readers", _text_faults, optional=True),
        "SENTENCES": _Rule("a hms_ray.ensemble.pools.Sentences", _sentences_faults, optional=True),
        "explain": _takes("pool", optional=True),
        "Pool": _Rule(f"a class of this file with {', '.join(FITTED)}", _pool_faults),
        "fit": _takes("probs", "targets", "sample_weight", "start"),
    },
}
