"""The full run: every component's parameters composed, strict, with all faults reported at once."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from hms_ray import registry
from hms_ray.core import hints, renamed
from hms_ray.core.errors import ConfigError, raise_all, shown
from hms_ray.core.params import Params, faults, with_hints
from hms_ray.core.params import places as places_of
from hms_ray.core.seeds import MAX_SEED
from hms_ray.store.prepare import InputParams
from hms_ray.store.quality import QualityParams
from hms_ray.study.epoch_selection import Candidates, Rule
from hms_ray.training.optim import Params as OptimParams
from hms_ray.training.stages import Stage, defaulted, effort, order_faults

KINDS = {"data": "datasets", "feature": "features", "model": "models"}


class Score(Params):
    """Which rows a study is scored on, and what a trial is told to make small on them."""

    min_votes: int = Field(10, ge=1, description="units with at least so many votes; the hidden test had 10 and more")
    objective: Literal["own", "gain"] = Field(
        "own", description="a trial's value: its own score, or what it adds to the ensemble so far, negative is better"
    )


class Sections(Params):
    """The sections of a run, before its components are known."""

    data: dict[str, Any]
    feature: dict[str, Any]
    model: dict[str, Any]
    input: InputParams = Field(default_factory=InputParams)
    quality: QualityParams = Field(default_factory=QualityParams)
    augment: dict[str, dict[str, Any]] = Field(default_factory=dict)
    test_time: list[str] = Field(default_factory=list)
    optim: OptimParams = Field(default_factory=OptimParams)
    stages: list[Stage] = Field(min_length=1)
    epoch: Rule = Field(
        "cross_fitted",
        description="a fold's epoch: the last unless another is surely better on the other folds, always the last, "
        "or best (then scores flatter)",
    )
    epoch_candidates: Candidates = Field(default_factory=Candidates)
    score: Score = Field(default_factory=Score)
    folds: int = Field(5, ge=2, le=100)
    seed: int = Field(0, ge=0, le=MAX_SEED)

    @field_validator("augment", mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        return defaulted(value)

    @field_validator("test_time")
    @classmethod
    def _have_variants(cls, names: list[str]) -> list[str]:
        known = [name for name in registry.names("augment") if hasattr(registry.load("augment", name), "variant")]
        for name in names:
            if name not in known:
                raise ValueError(hints.unknown("test-time variant", name, known))
        if len(set(names)) < len(names):
            raise ValueError("a variant may stand once")
        return names


@dataclass(frozen=True)
class Component:
    """An entry of a kind and its parameters."""

    kind: str
    name: str
    params: Params

    @property
    def module(self) -> ModuleType:
        """The file that implements it."""
        return registry.load(self.kind, self.name)

    def without_weights(self) -> "Component":
        """Return the component with random weights, if it may have pretrained ones."""
        if "pretrained" not in type(self.params).model_fields:
            return self
        return replace(self, params=self.params.model_copy(update={"pretrained": False}))

    def dump(self) -> dict[str, Any]:
        """Return name and parameters, defaults included."""
        return {"name": self.name, **self.params.model_dump()}


@dataclass(frozen=True)
class RunConfig:
    """One configuration, checked; `content` is the same as plain values, defaults included."""

    data: Component
    feature: Component
    model: Component
    input: InputParams
    quality: QualityParams
    augment: tuple[Component, ...]
    stage_augment: tuple[tuple[Component, ...], ...]
    test_time: tuple[str, ...]
    optim: OptimParams
    stages: tuple[Stage, ...]
    epoch: Rule
    epoch_candidates: Candidates
    score: Score
    folds: int
    seed: int

    @property
    def epochs(self) -> int:
        """Rows of a fold's learning curve: its epochs over all stages, each evaluation counted as one."""
        return sum(stage.rounds for stage in self.stages)

    @property
    def effort(self) -> int:
        """Epochs of a fold with those of its teachers: what progress is a share of."""
        return effort(self.stages)

    def without_weights(self) -> "RunConfig":
        """Return the run with random weights for pretrained ones: it needs neither the hub nor a file of this machine.

        Whoever trains it is given the weights, or what a feature computed with them.
        """
        return replace(self, model=self.model.without_weights(), feature=self.feature.without_weights())

    @property
    def content(self) -> dict[str, Any]:
        """Plain values that `parse_run` reads back."""
        return {
            **{key: getattr(self, key).dump() for key in KINDS},
            "input": self.input.model_dump(),
            "quality": self.quality.model_dump(),
            "augment": {component.name: component.params.model_dump() for component in self.augment},
            "test_time": list(self.test_time),
            "optim": self.optim.model_dump(),
            "stages": [stage.model_dump() for stage in self.stages],
            "epoch": self.epoch,
            "epoch_candidates": self.epoch_candidates.model_dump(),
            "score": self.score.model_dump(),
            "folds": self.folds,
            "seed": self.seed,
        }


def parse_run(content: Mapping[str, Any]) -> RunConfig:
    """Check a run.

    Raises:
        ConfigError: lists every fault with its dotted path.
    """
    run, found = try_run(content)
    raise_all(found, ConfigError, "run")
    assert run is not None, "a run without faults exists"
    return run


def with_random_weights(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a run's plain values with random weights for the model's pretrained ones, whose file may be gone.

    What is no run is returned as it is, for `parse_run` to refuse.
    """
    model = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping) or "pretrained" not in model:
        return content
    return {**content, "model": {**model, "pretrained": False}}


def try_run(content: Mapping[str, Any]) -> tuple[RunConfig | None, list[str]]:
    """Return the run, or None and every fault, with what was probably meant by an unknown key."""
    content = renamed.values(content)
    run, found = _try_run(content)
    return run, with_hints(found, lambda: places(content))


def places(content: Mapping[str, Any]) -> list[str]:
    """Return the dotted paths that a run with these components and this number of stages may have."""
    stages = content.get("stages")
    stages = stages if isinstance(stages, list) else []
    found = [*places_of(Sections)]
    found += [path for i in range(1, len(stages)) for path in places_of(Stage, f"stages.{i}")]
    for key, kind in KINDS.items():
        found += [f"{key}.name", *_places_of_component(kind, content.get(key), key)]
    sections = {"augment": content} | {f"stages.{i}.augment": stage for i, stage in enumerate(stages)}
    for where, holder in sections.items():
        own = holder.get("augment") if isinstance(holder, Mapping) else None
        found += [f"{where}.{name}" for name in registry.names("augment")]
        for name in own if isinstance(own, Mapping) else ():
            found += _places_of_component("augment", {"name": name}, f"{where}.{name}")
    return list(dict.fromkeys(found))


def _places_of_component(kind: str, section: Any, where: str) -> list[str]:
    name = section.get("name") if isinstance(section, Mapping) else None
    return list(places_of(registry.load(kind, name).Params, where)) if name in registry.names(kind) else []


def _try_run(content: Mapping[str, Any]) -> tuple[RunConfig | None, list[str]]:
    if not isinstance(content, Mapping):
        return None, [f"it must be a mapping with data, feature, model and stages, but is {shown(content)}"]
    try:
        sections = Sections.model_validate(dict(content))
    except ValidationError as error:
        stages = content.get("stages")
        in_stages = _in_stages(stages if isinstance(stages, list) else [])
        return None, faults(error) + [f for f, _ in itertools.chain(_components(content), *in_stages.values()) if f]
    found, in_stages = list(_components(content)), _in_stages([stage.model_dump() for stage in sections.stages])
    faulty = [fault for fault, _ in itertools.chain(found, *in_stages.values()) if fault]
    if faulty := [*faulty, *order_faults(sections.stages), *_ending_faults(sections)]:
        return None, faulty
    components = {c.kind: c for _, c in found if c and c.kind != "augment"}
    augment = tuple(c for _, c in found if c and c.kind == "augment")
    run = RunConfig(
        **{key: components[kind] for key, kind in KINDS.items()},
        input=sections.input,
        quality=sections.quality,
        augment=augment,
        stage_augment=tuple(
            tuple(c for _, c in in_stages[i] if c) if i in in_stages else augment for i in range(len(sections.stages))
        ),
        test_time=tuple(sections.test_time),
        optim=sections.optim,
        stages=tuple(sections.stages),
        epoch=sections.epoch,
        epoch_candidates=sections.epoch_candidates,
        score=sections.score,
        folds=sections.folds,
        seed=sections.seed,
    )
    fault = _layout_fault(run)
    return (None, [fault]) if fault else (run, [])


def _ending_faults(sections: Sections) -> list[str]:
    """Say which stages end at an epoch of their own choice, which the run's rule would pass over."""
    ending = [
        i for i, stage in enumerate(sections.stages) if stage.early_stopping and stage.early_stopping.stop is not None
    ]
    return [
        f"stages.{i}.early_stopping.stop: requires epoch: last, since the stage ends at its best epoch by itself, but "
        f"epoch is {sections.epoch!r}; set epoch: last, or stop: null"
        for i in ending
        if sections.epoch != "last"
    ]


def _components(content: Mapping[str, Any]) -> Iterator[tuple[str, None] | tuple[None, Component]]:
    """Yield each component, or the fault that prevents it; sections that are no mappings are left to the caller."""
    for key, kind in KINDS.items():
        section = content.get(key)
        if isinstance(section, Mapping):
            params = {k: v for k, v in section.items() if k != "name"}
            yield from _component(kind, section.get("name"), params, key, f"{key}.name")
    augment = content.get("augment")
    yield from _augments(augment if isinstance(augment, Mapping) else {}, "augment")


def _in_stages(stages: Sequence[Any]) -> dict[int, list[tuple[str, None] | tuple[None, Component]]]:
    """Return the augmentations of each stage that has its own, or their faults."""
    own = {i: stage.get("augment") for i, stage in enumerate(stages) if isinstance(stage, Mapping)}
    return {i: list(_augments(a, f"stages.{i}.augment")) for i, a in own.items() if isinstance(a, Mapping)}


def _augments(section: Mapping[str, Any], where: str) -> Iterator[tuple[str, None] | tuple[None, Component]]:
    for name, params in section.items():
        if isinstance(params, Mapping | None):
            yield from _component("augment", name, params or {}, f"{where}.{name}", where)


def _component(
    kind: str, name: Any, params: Mapping[str, Any], where: str, name_at: str
) -> Iterator[tuple[str, None] | tuple[None, Component]]:
    if name not in registry.names(kind):
        known, what = registry.names(kind), registry.CALLED[kind]
        missing = f"missing; there are: {', '.join(known)}"
        yield f"{name_at}: {missing if name is None else hints.unknown(what, name, known)}", None
        return
    try:
        yield None, Component(kind, name, registry.load(kind, name).Params.model_validate(dict(params)))
    except ValidationError as error:
        for fault in faults(error, where):
            yield fault, None


def _layout_fault(run: RunConfig) -> str | None:
    layout, wanted = run.feature.module.spec(run.feature.params).layout, run.model.module.LAYOUT
    if layout == wanted:
        return None
    return f"model.name: {run.model.name} takes {wanted!r} inputs, but feature {run.feature.name} gives {layout!r}"
