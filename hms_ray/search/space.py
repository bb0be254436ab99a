"""A search space: a base run, what of it is searched, and how much may be spent. One YAML file, checked whole."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import optuna
from pydantic import Field, ValidationError

from hms_ray import lookup
from hms_ray.config import RunConfig, load_yaml, parse_run, parse_value, try_run
from hms_ray.errors import ConfigError, raise_all
from hms_ray.params import Params, faults
from hms_ray.search.ranges import Range, parse_range
from hms_ray.study_folder import check_id

FIXED = ("data", "folds", "score", "seed")  # the study's own: every trial must share them
SECTIONS = ("description", "base", "search", "budget", "resources")


class Budget(Params):
    """How much a search may spend."""

    trials: int = Field(16, ge=1, le=100_000)
    trial_folds: int = Field(1, ge=1, description="folds that each trial trains; finalists train the rest")
    finalists: int = Field(4, ge=1, description="the best trials, which get all their folds")


class Resources(Params):
    """What one worker takes; a fold may have several workers."""

    cpus: float = Field(1, gt=0)
    gpus: float | None = Field(None, ge=0, description="none given: 1 where the cluster has GPUs, else 0")
    workers_per_fold: int = Field(1, ge=1, le=64)


@dataclass(frozen=True)
class Space:
    """A checked space; `base` is plain values."""

    name: str
    description: str
    base: dict[str, Any]
    ranges: tuple[Range, ...]
    search: dict[str, Any]
    budget: Budget
    resources: Resources

    @property
    def run(self) -> RunConfig:
        """The base run."""
        return parse_run(self.base)

    def resolved(self) -> dict[str, Any]:
        """Return what study.json keeps: defaults included."""
        return {
            "description": self.description,
            "base": self.run.content,
            "search": self.search,
            "budget": self.budget.model_dump(),
            "resources": self.resources.model_dump(),
        }

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Return the run that Optuna proposes: ranges in the file's order, each only where its condition holds."""
        content = copy.deepcopy(self.base)
        for item in self.ranges:
            if _holds(item, content):
                put(content, item.path, item.suggest(trial))
        return content

    def base_params(self) -> dict[str, Any] | None:
        """Return the base run as Optuna's parameters, or None where it lies outside a range."""
        active = [item for item in self.ranges if _holds(item, self.base)]
        values = {item.path: item.encode(get(self.run.content, item.path)) for item in active}
        return None if None in values.values() else values


def find(name: str) -> Path:
    """Return the file of a space: a path, a name in ./search_spaces, or one that the installed package carries.

    Raises:
        ConfigError: there is none; the message lists the known names.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ConfigError(f"--space {name}: no such file")
        return Path(name)
    known = {path.stem: path for folder in reversed(_folders()) for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise ConfigError(lookup.unknown("space", name, known))
    return known[name]


def load(name: str, overrides: tuple[str, ...] = ()) -> Space:
    """Read and check a space; `overrides` are `key=value`, a dotted path of the run, or of budget and resources.

    Raises:
        ConfigError: lists every fault of the file and the overrides.
    """
    path = find(name)
    content = load_yaml(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("base"), Mapping):
        raise ConfigError(f"{path}: a space is a mapping with base and search")
    content = copy.deepcopy(dict(content))
    for override in overrides:
        _override(content, override)
    return parse(path.stem, content)


def parse(name: str, content: Mapping[str, Any]) -> Space:
    """Check a space's content: keys, base run, every range at both ends, budget."""
    found = [f"{key}: unknown key; a space has {', '.join(SECTIONS)}" for key in content if key not in SECTIONS]
    search = content.get("search") or {}
    parsed = [parse_range(path, value) for path, value in search.items()]
    ranges = tuple(item for item, _ in parsed if item)
    found += [fault for _, range_faults in parsed for fault in range_faults]
    run, base_faults = try_run(content["base"])
    found += [f"base.{fault}" for fault in base_faults]
    found += [fault for item in ranges for fault in _range_faults(item, ranges, content["base"], set(base_faults))]
    sections = {}
    for key, kind in (("budget", Budget), ("resources", Resources)):
        try:
            sections[key] = kind.model_validate(dict(content.get(key) or {}))
        except ValidationError as error:
            found += faults(error, key)
    if run and "budget" in sections and sections["budget"].trial_folds > run.folds:
        found.append(
            f"budget.trial_folds: must not exceed folds ({run.folds}), but got {sections['budget'].trial_folds}"
        )
    raise_all(found, ConfigError, f"space {name}")
    return Space(
        check_id(name), str(content.get("description", "")), dict(content["base"]), ranges, dict(search), **sections
    )


def get(content: Any, path: str) -> Any:
    """Return the value at a dotted path; list items go by number. KeyError where there is none."""
    for key in path.split("."):
        content = content[_key(content, key)]
    return content


def put(content: Any, path: str, value: Any) -> None:
    """Set the value at a dotted path; all but the last key must exist."""
    *parents, last = path.split(".")
    for key in parents:
        content = content[_key(content, key)]
    content[_key(content, last, new=True)] = copy.deepcopy(value)


def small(space: Space) -> Space:
    """Return the space as `--smoke` runs it: two trials, two folds, few epochs, random weights."""
    content = copy.deepcopy(space.run.content)
    content["folds"] = 2
    for stage in content["stages"]:
        stage["epochs"] = min(stage["epochs"], 2)
    if "pretrained" in content["model"]:
        content["model"]["pretrained"] = False
    ranges = tuple(item for item in space.ranges if not item.path.endswith((".epochs", ".pretrained")))
    search = {item.path: space.search[item.path] for item in ranges}
    budget = Budget(trials=2, trial_folds=1, finalists=2)
    return replace(space, base=content, ranges=ranges, search=search, budget=budget)


def _folders() -> list[Path]:
    """Where names are looked up, the first wins."""
    installed = Path(str(resources.files("hms_ray"))).parent / "search_spaces"
    return [Path("search_spaces"), installed, Path(str(resources.files("hms_ray"))) / "search_spaces"]


def _key(content: Any, key: str, new: bool = False) -> Any:
    """Return the key as this container takes it, or raise KeyError with the whole story."""
    if isinstance(content, list) and key.isdigit() and int(key) < len(content):
        return int(key)
    if isinstance(content, dict) and (new or key in content):
        return key
    raise KeyError(f"no {key!r} in {list(content) if isinstance(content, dict) else content!r}")


def _holds(item: Range, content: Mapping[str, Any]) -> bool:
    """Whether every condition of a range is true of this run; a path that the run lacks is no match."""
    try:
        return all(get(content, path) in values for path, values in item.when.items())
    except KeyError:
        return False


def _range_faults(item: Range, ranges: tuple[Range, ...], base: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    """Yield what is wrong with the run at each end of a range, beyond what is wrong with the base."""
    where = f"search.{item.path}"
    if item.path.split(".")[0] in FIXED:
        yield f"{where}: {', '.join(FIXED)} belong to the study and cannot be searched"
        return
    contexts = _contexts(item, ranges, base)
    if not contexts:
        yield f"{where}: its condition when: {dict(item.when)} never holds in this space"
    for value in item.ends:
        for content in map(copy.deepcopy, contexts):
            try:
                put(content, item.path, value)
            except KeyError as error:
                yield f"{where}: the run has no such place: {error.args[0]}"
                return
            for fault in try_run(content)[1]:
                if fault not in known:
                    yield f"{where} = {value!r}: {fault}"


def _contexts(item: Range, ranges: tuple[Range, ...], base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the base run with the range's condition fulfilled, in every way that a choice of the space offers."""
    contents = [copy.deepcopy(dict(base))]
    for path, values in item.when.items():
        setters = [r for r in ranges if path == r.path or path.startswith(r.path + ".")]
        options = [(r.path, end) for r in setters for end in r.ends]
        candidates = [_with(content, *option) for content in contents for option in options] or contents
        contents = [c for c in candidates if _matches(c, path, values)]
    return contents


def _with(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(content)
    put(content, path, value)
    return content


def _matches(content: Mapping[str, Any], path: str, values: tuple[Any, ...]) -> bool:
    try:
        return get(content, path) in values
    except KeyError:
        return False


def _override(content: dict[str, Any], override: str) -> None:
    """Apply one `key=value`; a path that was searched is searched no longer."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override!r}: must be key=value, e.g. stages.0.epochs=2")
    section = key.split(".")[0]
    target = content.setdefault(section, {}) if section in ("budget", "resources") else content["base"]
    try:
        put(target, key.removeprefix(f"{section}.") if target is not content["base"] else key, parse_value(text))
    except KeyError as error:
        raise ConfigError(f"--set {key}: the run has no such place: {error.args[0]}") from error
    (content.get("search") or {}).pop(key, None)
