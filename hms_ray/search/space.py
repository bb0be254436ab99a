"""A search space: a base run, what of it is searched, and how much may be spent. One YAML file, checked whole."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import optuna
from pydantic import ValidationError

from hms_ray import lookup
from hms_ray.config import RunConfig, load_yaml, parse_run, parse_value, try_run
from hms_ray.errors import ConfigError, raise_all
from hms_ray.params import faults
from hms_ray.search.paths import covers, get, put, replaced
from hms_ray.search.ranges import Choice, Range, parse_range
from hms_ray.search.settings import SETTINGS, Budget, Log, Race, Resources, Sampler
from hms_ray.study_folder import check_id

FIXED = ("data", "folds", "score", "epoch", "seed")  # the study's own: every trial must share them
SECTIONS = ("description", "base", "search", *SETTINGS)


@dataclass(frozen=True)
class Space:
    """A checked space; `base` is plain values."""

    name: str
    description: str
    base: dict[str, Any]
    ranges: tuple[Range, ...]
    search: dict[str, Any]
    budget: Budget
    race: Race
    sampler: Sampler
    resources: Resources
    log: Log

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
            **{name: getattr(self, name).model_dump() for name in SETTINGS},
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
        try:
            return {item.path: item.encode(self._own(item)) for item in self.ranges if _holds(item, self.base)}
        except (KeyError, ValueError):
            return None

    def _own(self, item: Range) -> Any:
        """Return the base run's value as the range spells it: a section may leave out defaults, and what ranges
        below it set."""
        run = self.run
        below = [r.path for r in self.ranges if r.path != item.path and covers(item.path, r.path)]
        for value in item.ends:
            content = replaced(self.base, item.path, value)
            for path in below:
                with suppress(KeyError):
                    put(content, path, get(run.content, path))
            if try_run(content)[0] == run:
                return value
        return get(run.content, item.path)


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
        raise ConfigError(lookup.unknown("space", name, sorted(known)))
    return known[name]


def load(name: str, overrides: tuple[str, ...] = ()) -> Space:
    """Read and check a space; `overrides` are `key=value`, a dotted path of the run, or of the other sections.

    Raises:
        ConfigError: lists every fault of the file and the overrides.
    """
    path = find(name)
    content = load_yaml(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("base"), Mapping):
        raise ConfigError(f"{path}: a space is a mapping with base and search")
    content = dict(content) | {"base": _whole(content["base"])}
    for override in overrides:
        _override(content, override)
    return parse(path.stem, content)


def parse(name: str, content: Mapping[str, Any]) -> Space:
    """Check a space's content: keys, base run, every range at both ends, budget."""
    found = [f"{key}: unknown key; a space has {', '.join(SECTIONS)}" for key in content if key not in SECTIONS]
    sections = {key: content.get(key) or {} for key in ("search", *SETTINGS)}
    strange = [key for key, section in sections.items() if not isinstance(section, Mapping | _short(key))]
    found += [f"{key}: must be a mapping, but is {sections.pop(key)!r}" for key in strange]
    base = _whole(content["base"])
    search = dict(sections.get("search", {}))
    ranges, range_faults = _ranges(search, base)
    run, base_faults = try_run(base)
    found += [f"base.{fault}" for fault in base_faults] + [f for f in range_faults if f not in base_faults]
    parsed = {}
    for key, kind in SETTINGS.items():
        try:
            parsed[key] = kind.model_validate(sections.get(key, {}))
        except ValidationError as error:
            found += faults(error, key)
    if run and "budget" in parsed and parsed["budget"].trial_folds > run.folds:
        found.append(f"budget.trial_folds: must not exceed folds ({run.folds}), but got {parsed['budget'].trial_folds}")
    raise_all(dict.fromkeys(found), ConfigError, f"space {name}")
    return Space(check_id(name), str(content.get("description", "")), base, ranges, search, **parsed)


def small(space: Space) -> Space:
    """Return the space as `--smoke` runs it: two trials, two folds, few epochs, random weights."""
    content = copy.deepcopy(space.run.content)
    content["folds"] = 2
    for stage in content["stages"]:
        stage["epochs"] = min(stage["epochs"], 2)
    if "pretrained" in content["model"]:
        content["model"]["pretrained"] = False
    ranges = tuple(item for item in space.ranges if not _may_be_large(item))
    search = {item.path: space.search[item.path] for item in ranges}
    budget = Budget(trials=2, trial_folds=1, finalists=2)
    return replace(space, base=content, ranges=ranges, search=search, budget=budget, sampler=Sampler())


def _short(section: str) -> type:
    """Return the type of a section's short form: `race: best`, `sampler: gp`."""
    return str if section in ("race", "sampler") else Mapping


def _folders() -> list[Path]:
    """Where names are looked up, the first wins."""
    installed = Path(str(resources.files("hms_ray"))).parent / "search_spaces"
    return [Path("search_spaces"), installed, Path(str(resources.files("hms_ray"))) / "search_spaces"]


def _whole(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which the sections that a file may leave out are there to be changed and searched."""
    base = {"input": {}, "quality": {}, "augment": {}, "test_time": [], "optim": {}, "score": {}} | copy.deepcopy(
        dict(base)
    )
    if isinstance(base["augment"], dict):
        base["augment"] = {name: {} if params is None else params for name, params in base["augment"].items()}
    return base


def _may_be_large(item: Range) -> bool:
    """Whether a range decides over epochs or weights to fetch, by itself or inside a section."""
    return item.path.endswith((".epochs", ".pretrained")) or any(isinstance(end, dict | list) for end in item.ends)


def _holds(item: Range, content: Mapping[str, Any]) -> bool:
    """Whether every condition of a range is true of this run, defaults included; a path that it lacks is no match."""
    return all(_matches(content, path, values) for path, values in item.when.items())


def _matches(content: Mapping[str, Any], path: str, values: tuple[Any, ...]) -> bool:
    with suppress(KeyError):
        return get(content, path) in values
    run, _ = try_run(content)
    with suppress(KeyError):
        return run is not None and get(run.content, path) in values
    return False


def _ranges(search: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[tuple[Range, ...], list[str]]:
    """Return the ranges that can be read, and what is wrong with any."""
    parsed = [parse_range(path, value) for path, value in search.items()]
    ranges = tuple(item for item, _ in parsed if item)
    found = [fault for _, range_faults in parsed for fault in range_faults]
    return ranges, found + [fault for item in ranges for fault in _range_faults(item, ranges, base)]


def _range_faults(item: Range, ranges: tuple[Range, ...], base: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the run at each end of a range, the base's own faults word for word."""
    where = f"search.{item.path}"
    if item.path.split(".")[0] in FIXED:
        yield f"{where}: {', '.join(FIXED)} belong to the study and cannot be searched"
        return
    if covers(item.path, "input.compute"):
        yield f"{where}: where a feature is computed changes no score; set it in the base, and search input.window"
        return
    if item.path.startswith("feature.") and not isinstance(item, Choice) and _is_prepared(base):
        yield f"{where}: each value would be prepared anew; set input.compute to batch, or name a few values as choice"
        return
    number = ranges.index(item)
    late = [r.path for r in ranges[number + 1 :] if any(covers(r.path, path) for path in (item.path, *item.when))]
    if late:
        yield f"{where}: must stand below search.{late[0]}, on which it depends"
        return
    contexts = _contexts(item, ranges[:number], base)
    if not contexts:
        yield f"{where}: its condition when: {dict(item.when)} never holds in this space"
    known = try_run(base)[1]
    for value in item.ends:
        for content in contexts:
            try:
                run_faults = try_run(replaced(content, item.path, value))[1]
            except KeyError as error:
                yield f"{where}: the run has no such place: {error.args[0]}"
                return
            yield from (fault if fault in known else f"{where} = {value!r}: {fault}" for fault in run_faults)


def _is_prepared(base: Mapping[str, Any]) -> bool:
    """Whether the feature is computed before training; what is no run has faults of its own."""
    run, _ = try_run(base)
    return run is not None and run.input.compute == "prepared"


def _contexts(item: Range, above: tuple[Range, ...], base: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the runs that the range may meet: the base with every value of the ranges above on which it depends."""
    needed, deciding = [item.path, *item.when], []
    for other in reversed(above):
        if any(covers(other.path, path) for path in needed):
            deciding.insert(0, other)
            needed += [other.path, *other.when]
    contents = [base]
    for other in deciding:
        wanted = (*other.ends, *filter(other.has, item.when.get(other.path, ())))
        contents = [new for content in contents for new in _with(content, other, wanted)]
    return [content for content in contents if _holds(item, content)]


def _with(content: Mapping[str, Any], other: Range, values: tuple[Any, ...]) -> list[Mapping[str, Any]]:
    """Return the run with each value of another range, or as it is where that range is not searched."""
    if not _holds(other, content):
        return [content]
    with suppress(KeyError):  # a range at no place has a fault of its own
        return [replaced(content, other.path, value) for value in values]
    return [content]


def _override(content: dict[str, Any], override: str) -> None:
    """Apply one `key=value`; what it sets is searched no longer."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override!r}: must be key=value, e.g. stages.0.epochs=2")
    section, _, rest = key.partition(".")
    if section in SETTINGS:
        if not rest:
            content[section] = parse_value(text)
            return
        target = content[section] = copy.deepcopy(content.get(section) or {})
    else:
        target, rest = content["base"], key
    try:
        put(target, rest, parse_value(text))
    except KeyError as error:
        raise ConfigError(f"--set {key}: the run has no such place: {error.args[0]}") from error
    search = content.get("search")
    if isinstance(search, Mapping):
        content["search"] = _unsearched(search, key)


def _unsearched(search: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the search without what an override of `key` fixes."""
    above = [path for path in search if path != key and covers(str(path), key)]
    if above:
        raise ConfigError(f"--set {key}: has no effect, since search.{above[0]} replaces it; fix {above[0]} instead")
    return {path: value for path, value in search.items() if not covers(key, str(path))}
