"""The full run: every component's parameters composed, strict, with all faults reported at once."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from hms_ray import contracts, registry
from hms_ray.core import hints, renamed, source_files
from hms_ray.core.errors import ConfigError, UserError, raise_all, shown
from hms_ray.core.files import fingerprint
from hms_ray.core.params import Params, faults, with_hints
from hms_ray.core.params import places as places_of
from hms_ray.core.seeds import MAX_SEED
from hms_ray.core.source_files import SourceFile
from hms_ray.features._feature import FeatureRef
from hms_ray.store.prepare import InputParams
from hms_ray.store.quality import QualityParams
from hms_ray.study.epoch_selection import Candidates, Rule
from hms_ray.training.optim import Params as OptimParams
from hms_ray.training.stages import Stage, defaulted, effort, order_faults

KINDS = {"data": "datasets", "feature": "features", "model": "models"}
CARRIED = ("files", "packages")  # what a run says of components that were added


def _has_variant(name: str) -> bool:
    return isinstance(registry.load("augment", name), contracts.Variant)


def _variants() -> Iterator[str]:
    """Yield the augmentations that `test_time` may name, but for those that break their contract."""
    for name in registry.names("augment"):
        with suppress(ConfigError):
            if _has_variant(name):
                yield name


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
        for name in names:
            try:
                is_known = name in registry.names("augment") and _has_variant(name)
            except ConfigError as error:  # of an augmentation that was added
                raise ValueError(str(error)) from error
            if not is_known:
                raise ValueError(hints.unknown("test-time variant", name, _variants()))
        if len(set(names)) < len(names):
            raise ValueError("a variant may stand once")
        return names


@dataclass(frozen=True)
class Component:
    """An entry of a kind and its parameters; file: its path, where the space names a file instead of an entry."""

    kind: str
    name: str
    params: Params
    file: str | None = None

    @property
    def module(self) -> ModuleType:
        """The module that implements it."""
        return registry.module(self.kind, self.name)

    @property
    def key(self) -> str:
        """The name without a file's fingerprint."""
        return self.name.partition("@")[0]

    def without_weights(self) -> "Component":
        """Return the component with random weights, if it may have pretrained ones."""
        if "pretrained" not in type(self.params).model_fields:
            return self
        return replace(self, params=self.params.model_copy(update={"pretrained": False}))

    def dump(self) -> dict[str, Any]:
        """Return name and parameters, defaults included."""
        return {"name": self.name, **self.params.model_dump()}

    def section(self) -> dict[str, Any]:
        """Return what a run has of it: `dump`, but where the space names a file that file."""
        return self.dump() if self.file is None else {"file": self.file, **self.params.model_dump()}

    def options(self) -> dict[str, Any]:
        """Return what a run has below the key of an augmentation."""
        return {key: value for key, value in self.section().items() if key != "name"}


@dataclass(frozen=True)
class RunConfig:
    """One configuration, checked; `content` is the same as plain values, defaults included.

    files: those that the space names
    """

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
    files: tuple[SourceFile, ...] = ()

    @property
    def epochs(self) -> int:
        """Rows of a fold's learning curve: its epochs over all stages, each evaluation counted as one."""
        return sum(stage.rounds for stage in self.stages)

    @property
    def effort(self) -> int:
        """Epochs of a fold with those of its teachers: what progress is a share of."""
        return effort(self.stages)

    @property
    def feature_ref(self) -> FeatureRef:
        """The feature as stores and models take it."""
        return FeatureRef(self.feature.name, self.feature.params)

    def without_weights(self) -> "RunConfig":
        """Return the run with random weights for pretrained ones: it needs neither the hub nor a file of this machine.

        Whoever trains it is given the weights, or what a feature computed with them.
        """
        return replace(self, model=self.model.without_weights(), feature=self.feature.without_weights())

    @property
    def content(self) -> dict[str, Any]:
        """Plain values that `parse_run` reads back."""
        return {
            **{key: getattr(self, key).section() for key in KINDS},
            "input": self.input.model_dump(),
            "quality": self.quality.model_dump(),
            "augment": {component.key: component.options() for component in self.augment},
            "test_time": list(self.test_time),
            "optim": self.optim.model_dump(),
            "stages": [stage.model_dump() for stage in self.stages],
            "epoch": self.epoch,
            "epoch_candidates": self.epoch_candidates.model_dump(),
            "score": self.score.model_dump(),
            "folds": self.folds,
            "seed": self.seed,
            **self._added(),
        }

    def _added(self) -> dict[str, Any]:
        """Return what identifies the code of components that this package does not have; {} for a run without any."""
        by_path = {source.path: source for source in self.files}
        added = {"files": source_files.dump(by_path), "packages": self._packages()}
        return {key: value for key, value in added.items() if value}

    def _packages(self) -> dict[str, str]:
        """Return the fingerprint of the code of each component that an installed package has."""
        parts = {(part.kind, part.name) for part in (self.data, self.feature, self.model)}
        parts |= {(part.kind, part.name) for stage in (self.augment, *self.stage_augment) for part in stage}
        parts |= {("augment", name) for name in self.test_time}
        codes = {f"{kind}.{name}": registry.code(kind, name) for kind, name in sorted(parts)}
        return {name: fingerprint(code) for name, code in codes.items() if code}


Files = Mapping[str, SourceFile]  # by their path
Found = tuple[str, None] | tuple[None, Component]  # a fault, or a component


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
    files, _ = _files(content)
    for key, kind in KINDS.items():
        found += [f"{key}.name", *_places_of_component(kind, content.get(key), key, files)]
    sections = {"augment": content} | {f"stages.{i}.augment": stage for i, stage in enumerate(stages)}
    for where, holder in sections.items():
        own = holder.get("augment") if isinstance(holder, Mapping) else None
        found += [f"{where}.{name}" for name in registry.names("augment")]
        for name, section in own.items() if isinstance(own, Mapping) else ():
            named = {**section, "name": name} if isinstance(section, Mapping) else {"name": name}
            found += _places_of_component("augment", named, f"{where}.{name}", files)
    return list(dict.fromkeys(found))


def _places_of_component(kind: str, section: object, where: str, files: Files) -> Iterator[str]:
    """Yield the paths of a component's parameters; of one that cannot be loaded none, since that is told elsewhere."""
    if not isinstance(section, Mapping):
        return
    name = section.get("name")
    if "file" in section:
        yield f"{where}.file"
        source = files.get(section["file"]) if isinstance(section["file"], str) else None
        name = source and source.name
    with suppress(ConfigError):
        yield from places_of(registry.module(kind, str(name)).Params, where)


def _try_run(content: Mapping[str, Any]) -> tuple[RunConfig | None, list[str]]:
    if not isinstance(content, Mapping):
        return None, [f"it must be a mapping with data, feature, model and stages, but is {shown(content)}"]
    files, file_faults = _files(content)
    if file_faults:
        return None, file_faults
    content = {key: value for key, value in content.items() if key not in CARRIED}
    try:
        sections = Sections.model_validate(content)
    except ValidationError as error:
        stages = content.get("stages")
        in_stages = _in_stages(stages if isinstance(stages, list) else [], files)
        told = itertools.chain(_components(content, files), *in_stages.values())
        return None, faults(error) + [fault for fault, _ in told if fault]
    found = list(_components(content, files))
    in_stages = _in_stages([stage.model_dump() for stage in sections.stages], files)
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
        files=tuple(files.values()),
    )
    fault = _layout_fault(run)
    return (None, [fault]) if fault else (run, [])


def _files(content: Mapping[str, Any]) -> tuple[Files, list[str]]:
    """Return the files that a run carries, which this process can import from then on, and what is wrong with them."""
    try:
        return source_files.restore(content.get("files", {}), "files"), []
    except UserError as error:
        return {}, [str(error)]


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


def _components(content: Mapping[str, Any], files: Files) -> Iterator[Found]:
    """Yield each component, or the fault that prevents it; sections that are no mappings are left to the caller."""
    for key, kind in KINDS.items():
        section = content.get(key)
        if isinstance(section, Mapping):
            params = {k: v for k, v in section.items() if k != "name"}
            if "file" in section and "name" in section:
                yield f"{key}: must have name or file, but has both", None
            else:
                yield from _component(kind, section.get("name"), params, key, f"{key}.name", files)
    augment = content.get("augment")
    yield from _augments(augment if isinstance(augment, Mapping) else {}, "augment", files)


def _in_stages(stages: Sequence[Any], files: Files) -> dict[int, list[Found]]:
    """Return the augmentations of each stage that has its own, or their faults."""
    own = {i: stage.get("augment") for i, stage in enumerate(stages) if isinstance(stage, Mapping)}
    return {i: list(_augments(a, f"stages.{i}.augment", files)) for i, a in own.items() if isinstance(a, Mapping)}


def _augments(section: Mapping[str, Any], where: str, files: Files) -> Iterator[Found]:
    for name, params in section.items():
        if isinstance(params, Mapping | None):
            yield from _component("augment", name, params or {}, f"{where}.{name}", where, files)


def _component(
    kind: str, name: Any, params: Mapping[str, Any], where: str, name_at: str, files: Files
) -> Iterator[Found]:
    try:
        if "file" in params:
            name = _source(kind, name, params["file"], files).name
        elif name not in registry.names(kind):
            known, what = registry.names(kind), registry.CALLED[kind]
            missing = f"missing; there are: {', '.join(known)}"
            yield f"{name_at}: {missing if name is None else hints.unknown(what, name, known)}", None
            return
        options = {key: value for key, value in params.items() if key != "file"}
        yield (
            None,
            Component(kind, name, registry.module(kind, name).Params.model_validate(options), params.get("file")),
        )
    except ValidationError as error:
        for fault in faults(error, where):
            yield fault, None
    except ConfigError as error:  # of a component that was added
        yield f"{where}: {error}", None


def _source(kind: str, name: object, path: object, files: Files) -> SourceFile:
    """Return the file of a component; name: of an augmentation the key in the run, which is that of its file."""
    source = files.get(path) if isinstance(path, str) else None
    if source is None:
        raise ConfigError(f"file must be a path relative to the space's file, but is {shown(path)}")
    if kind == "augment" and name != source.name.partition("@")[0]:
        raise ConfigError(f"must be called {source.name.partition('@')[0]}, as its file {path} is")
    return source


def _layout_fault(run: RunConfig) -> str | None:
    layout, wanted = run.feature.module.spec(run.feature.params).layout, run.model.module.LAYOUT
    if layout == wanted:
        return None
    key = "model.name" if run.model.file is None else "model.file"
    return f"{key}: {run.model.key} takes {wanted!r} inputs, but feature {run.feature.key} gives {layout!r}"
