"""A search space: a base run, what of it is searched, and how much may be spent. One YAML file, checked whole.

A file that names other `spaces` instead of a base is their union: a trial chooses one of them, then of its ranges.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import optuna
from pydantic import ValidationError

from hms_ray import registry
from hms_ray.core import hints, renamed
from hms_ray.core.errors import ConfigError, raise_all, shown, without_secrets
from hms_ray.core.params import UNKNOWN, faults, with_hints
from hms_ray.core.params import places as places_of
from hms_ray.core.plain_yaml import load_yaml, parse_value
from hms_ray.search.space.files import with_files
from hms_ray.search.space.locate import find
from hms_ray.search.space.paths import covers, get, put, replaced
from hms_ray.search.space.ranges import Range
from hms_ray.search.space.settings import SETTINGS, Budget, Log, Race, Resources, Sampler
from hms_ray.search.space.smoke import fits, smoke_run
from hms_ray.search.space.validation import FIXED, holds, parse_ranges
from hms_ray.study.folder import check_id
from hms_ray.study.journal_records import MEMBER
from hms_ray.training.run_config import KINDS, RunConfig, Sections, parse_run, places, try_run

SECTIONS = ("description", "base", "search", "smoke", *SETTINGS)
OF_A_UNION = ("description", "spaces", *SETTINGS)
RUN = tuple(places_of(Sections))  # the paths that every run has


@dataclass(frozen=True)
class Space:
    """A checked space; `base` is plain values; `smoke`: what a tiny run on a laptop has instead, by dotted path."""

    name: str
    description: str
    base: dict[str, Any]
    ranges: tuple[Range, ...]
    search: dict[str, Any]
    smoke: dict[str, Any]
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
        """Return what study.json keeps: defaults included, passwords of addresses not."""
        kept = {
            "description": self.description,
            "base": self.run.content,
            "search": self.search,
            **{name: getattr(self, name).model_dump() for name in SETTINGS},
        }
        kept["log"] = {key: value and without_secrets(value) for key, value in kept["log"].items()}
        return kept

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Return the run that Optuna proposes: ranges in the file's order, each only where its condition holds."""
        content = copy.deepcopy(self.base)
        for item in self.ranges:
            if holds(item, content):
                put(content, item.path, item.suggest(trial))
        return content

    @property
    def members(self) -> tuple["Space", ...]:
        """The spaces that it is made of: itself, unless it is a union."""
        return (self,)

    def named(self, member: "Space", params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a member's parameters as this space calls them."""
        return dict(params)

    def starts(self) -> list[dict[str, Any]]:
        """Return the base runs as Optuna's parameters, as far as they lie inside their ranges."""
        params = [(member, member.base_params()) for member in self.members]
        return [self.named(member, own) for member, own in params if own is not None]

    def base_params(self) -> dict[str, Any] | None:
        """Return the base run as Optuna's parameters, or None where it lies outside a range."""
        try:
            return {item.path: item.encode(self._own(item)) for item in self.ranges if holds(item, self.base)}
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


@dataclass(frozen=True)
class Union(Space):
    """Several spaces as one. What is the study's is the first one's; the dimensions of each begin with its name."""

    spaces: tuple[Space, ...]

    @property
    def members(self) -> tuple[Space, ...]:
        return self.spaces

    def resolved(self) -> dict[str, Any]:
        """Return what study.json keeps: the base run of every space beside the first one's, which is the study's."""
        return super().resolved() | {"members": {member.name: member.run.content for member in self.spaces}}

    def named(self, member: Space, params: Mapping[str, Any]) -> dict[str, Any]:
        return {MEMBER: member.name} | {f"{member.name}.{path}": value for path, value in params.items()}

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Return the run that Optuna proposes: a space, then its own ranges."""
        name = trial.suggest_categorical(MEMBER, [member.name for member in self.spaces])
        member = next(member for member in self.spaces if member.name == name)
        return member.suggest(_Prefixed(trial, f"{name}."))


class _Prefixed:
    """A trial whose dimensions have longer names than who asks for them knows."""

    def __init__(self, trial: optuna.trial.BaseTrial, prefix: str) -> None:
        self.trial, self.prefix = trial, prefix

    def suggest_float(self, name: str, *ends: float, **options: Any) -> float:
        return self.trial.suggest_float(self.prefix + name, *ends, **options)

    def suggest_int(self, name: str, *ends: int) -> int:
        return self.trial.suggest_int(self.prefix + name, *ends)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self.trial.suggest_categorical(self.prefix + name, choices)


def load(name: str, overrides: tuple[str, ...] = (), prefix: str = "") -> Space:
    """Read and check a space; `overrides` are `key=value`, a dotted path of the run, or of the other sections.

    prefix: what a union's overrides of this space alone begin with, "NAME."

    Raises:
        ConfigError: lists every fault of the file and the overrides.
    """
    path = find(name)
    content = load_yaml(path)
    if isinstance(content, Mapping) and "spaces" in content:
        return _load_union(path.stem, dict(content), tuple(o.removeprefix(prefix) for o in overrides))
    if not isinstance(content, Mapping) or not isinstance(content.get("base"), Mapping):
        raise ConfigError(f"{path}: a space is a mapping with base and search, or names the spaces that it unites")
    content = renamed.space(content)
    if "files" in content["base"]:
        raise ConfigError(f"{path}: base.files: unknown key; name a file where it is used: model: {{file: my_net.py}}")
    content = with_files(content | {"base": _whole(content["base"])}, path)  # whose parameters may be overridden
    _override_all(content, overrides, prefix)
    return parse(path.stem, with_files(content, path))


def _load_union(name: str, content: dict[str, Any], overrides: tuple[str, ...]) -> Union:
    """Read the spaces of a union.

    Overrides of the run are for all of them, or for the one whose name they begin with; those of other sections for
    the union.
    """
    own = [override for override in overrides if override.partition("=")[0].partition(".")[0] in SETTINGS]
    _override_all(content, own)
    names = content["spaces"]
    if not isinstance(names, list) or not names or not all(isinstance(item, str) for item in names):
        raise ConfigError(f"space {name}: spaces must be a list of names, but is {shown(names)}")
    members, others = [find(item).stem for item in names], [override for override in overrides if override not in own]
    _refuse_settings(others, members)
    _refuse_misspelled(others, members)
    spaces = tuple(load(n, _for_member(others, m, members), f"{m}.") for n, m in zip(names, members, strict=True))
    found = [
        f"{key}: unknown key; a union has {', '.join(OF_A_UNION)}{hints.hint(key, OF_A_UNION)}"
        for key in content
        if key not in OF_A_UNION
    ]
    found += [f"spaces: {item.name} is a union itself" for item in spaces if isinstance(item, Union)]
    found += [f"spaces: {item} stands twice" for item in sorted({n for n in names if names.count(n) > 1})]
    settings, faulty = _settings({key: content.get(key) or {} for key in SETTINGS})
    first = spaces[0]
    found += [*faulty, *unshared(spaces), *_fold_faults(first.run.folds, settings)]
    raise_all(found, ConfigError, f"space {name}")
    search = {MEMBER: {"choice": [item.name for item in spaces]}}
    search |= {f"{item.name}.{path}": value for item in spaces for path, value in item.search.items()}
    description = str(content.get("description", ""))
    return Union(check_id(name), description, first.base, (), search, first.smoke, **settings, spaces=spaces)


def _for_member(overrides: Sequence[str], name: str, members: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that reach a space of a union."""
    return tuple(override for override in overrides if _member_of(override, members) in (None, name))


def _member_of(override: str, members: Sequence[str]) -> str | None:
    """Return the name of the space that an override begins with, None where it is for all."""
    return next((name for name in members if override.startswith(f"{name}.")), None)


def _refuse_settings(overrides: Sequence[str], members: Sequence[str]) -> None:
    """Refuse settings of one space of a union: its trials are spent from the budget of all."""
    for name, override in ((name, o) for o in overrides if (name := _member_of(o, members))):
        key = override.partition("=")[0]
        section = key.removeprefix(f"{name}.").partition(".")[0]
        if section in SETTINGS:
            raise ConfigError(f"--set {key}: has no effect, since {section} belongs to the union; set {section} itself")


def _refuse_misspelled(overrides: Sequence[str], members: Sequence[str]) -> None:
    """Refuse an override that begins with what is nearly the name of a space of a union."""
    for head in (override.partition("=")[0].partition(".")[0] for override in overrides):
        if head not in (*members, *RUN) and (near := hints.nearest(head, members)):
            raise ConfigError(f"--set {head}: the union has no space of that name; did you mean {near!r}?")


def unshared(spaces: Sequence[Space]) -> list[str]:
    """Say where spaces differ in what all trials of a study share."""
    (first, ours), *others = ((space, {**space.run.content, "data": space.run.data.dump()}) for space in spaces)
    return [
        f"{space.name} has {key}: {get(theirs, key)}, {first.name} has {get(ours, key)}"
        for space, theirs in others
        for key in FIXED
        if get(theirs, key) != get(ours, key)
    ]


def parse(name: str, content: Mapping[str, Any]) -> Space:
    """Check a space's content: keys, base run, every range at both ends, budget."""
    content = renamed.space(content)
    strange = [key for key in content if key not in SECTIONS]
    below = [f"base.{path}" for path in places(content["base"])] if strange else []
    found = [
        f"{key}: unknown key; a space has {', '.join(SECTIONS)}{hints.path_hint(str(key), [*SECTIONS, *below])}"
        for key in strange
    ]
    sections = {key: content.get(key) or {} for key in ("search", "smoke", *SETTINGS)}
    strange = [key for key, section in sections.items() if not isinstance(section, Mapping | _short(key))]
    found += [f"{key}: must be a mapping, but is {shown(sections.pop(key))}" for key in strange]
    base = _whole(content["base"])
    search, smoke = dict(sections.pop("search", {})), dict(sections.pop("smoke", {}))
    ranges, range_faults = parse_ranges(search, base)
    run, base_faults = try_run(base)
    found += [f"base.{fault}" for fault in base_faults] + [f for f in range_faults if f not in base_faults]
    parsed, faulty = _settings(sections)
    found += [*faulty, *(_fold_faults(run.folds, parsed) if run else ())]
    found += [f"smoke.{fault}" for fault in (smoke_run(base, smoke)[1] if run else ())]
    raise_all(dict.fromkeys(found), ConfigError, f"space {name}")
    return Space(check_id(name), str(content.get("description", "")), base, ranges, search, smoke, **parsed)


def small(space: Space, overrides: Sequence[str] = ()) -> Space:
    """Return the space as `--smoke` runs it: two trials, two folds, random weights, and what the space says of it.

    overrides: `key=value`, with which it was loaded; what they set stays, the number of trials and folds too
    """
    fixed = [override.partition("=")[0] for override in overrides]
    own = {key: getattr(space.budget, key) for key in Budget.model_fields if f"budget.{key}" in fixed}
    budget = Budget(**{"trials": 2, "trial_folds": 1, "finalists": 2} | own)
    race = space.race if "race.folds" in fixed else space.race.model_copy(update={"folds": None})
    if isinstance(space, Union):
        names = [member.name for member in space.spaces]
        own = {name: [o.removeprefix(f"{name}.") for o in _for_member(overrides, name, names)] for name in names}
        members = tuple(small(member, own[member.name]) for member in space.spaces)
        search = {path: value for path, value in space.search.items() if path == MEMBER or _is_of(path, members)}
        return replace(
            space, base=members[0].base, search=search, spaces=members, budget=budget, race=race, sampler=Sampler()
        )
    content, found = smoke_run(space.run.content, space.smoke, fixed)
    found += _fold_faults(content["folds"], {"budget": budget, "race": race})
    raise_all(found, ConfigError, f"space {space.name}, as --smoke runs it")
    ranges = tuple(item for item in space.ranges if fits(item, content, space.smoke))
    search = {item.path: space.search[item.path] for item in ranges}
    return replace(space, base=content, ranges=ranges, search=search, budget=budget, race=race, sampler=Sampler())


def _is_of(path: str, members: Sequence[Space]) -> bool:
    return any(path.removeprefix(f"{member.name}.") in member.search for member in members)


def _settings(sections: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that can be read, and what is wrong with the others."""
    parsed, found = {}, []
    for key, kind in SETTINGS.items():
        try:
            parsed[key] = kind.model_validate(sections.get(key, {}))
        except ValidationError as error:
            found += with_hints(faults(error, key), lambda key=key, kind=kind: places_of(kind, key))
    return parsed, found


def _fold_faults(folds: int, settings: Mapping[str, Any]) -> list[str]:
    """Say whether a trial is to train more folds than a run has, or than all trials may; settings that could not be
    read are not judged."""
    wanted = settings["budget"].trial_folds if "budget" in settings else 1
    share = settings["race"].folds if "race" in settings else None
    if wanted > folds:
        return [f"budget.trial_folds: must not exceed folds ({folds}), but got {wanted}"]
    if share is not None and share * folds < wanted - 1e-9:
        return [f"race.folds: must not be below budget.trial_folds / folds ({wanted} / {folds}), but got {share:g}"]
    return []


def _short(section: str) -> type:
    """Return the type of a section's short form: `race: best`, `sampler: gp`."""
    return str if section in ("race", "sampler") else Mapping


def _whole(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which the sections that a file may leave out are there to be changed and searched."""
    empty = {key: {} for key in ("input", "quality", "augment", "optim", "epoch_candidates", "score")}
    base = empty | {"test_time": []} | copy.deepcopy(dict(base))
    if isinstance(base["augment"], dict):
        base["augment"] = {name: {} if params is None else params for name, params in base["augment"].items()}
    return base


def _override_all(content: dict[str, Any], overrides: Sequence[str], prefix: str = "") -> None:
    """Apply each `key=value`, or raise one ConfigError with what is wrong with any; prefix: as in `load`."""
    found = []
    for override in overrides:
        try:
            _override(content, override, prefix)
        except ConfigError as error:
            found.append(str(error))
    if len(found) == 1:
        raise ConfigError(found[0])
    raise_all(found, ConfigError, "--set")


def _override(content: dict[str, Any], override: str, prefix: str) -> None:
    """Apply one `key=value`; what it sets is searched no longer."""
    told, sign, text = override.partition("=")
    if not sign or not told:
        raise ConfigError(f"--set {shown(override)}: must be key=value, e.g. stages.0.epochs=2")
    if not told.startswith(prefix):  # it is for all spaces of the union
        prefix = ""
    key = renamed.path(told.removeprefix(prefix))
    if "base" in content:
        _check_key(content, key, text, prefix)
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
        raise ConfigError(f"--set {told}: the run has no such place: {error.args[0]}") from error
    search = content.get("search")
    if isinstance(search, Mapping):
        content["search"] = _unsearched(search, key, prefix)


def _check_key(content: Mapping[str, Any], key: str, text: str, prefix: str) -> None:
    """Refuse a key that neither a run nor the settings have, and a component's new name beside the old parameters.

    Raises:
        ConfigError: says which key was probably meant, or how the component is set as a whole.
    """
    head, _, rest = key.partition(".")
    settings = [*SETTINGS, *(path for name, kind in SETTINGS.items() for path in places_of(kind, name))]
    own = places(content["base"])
    known = [*own, *settings]
    above = key.rpartition(".")[0]
    checked = not above or any(path.startswith(f"{above}.") for path in known)  # what is below `data.a.b` is not
    if key not in known and (checked or head not in (*RUN, *SETTINGS)):
        hint = hints.path_hint(f"{prefix}{key}", [*(f"{prefix}{path}" for path in own), *settings])
        raise ConfigError(f"--set {prefix}{key}{UNKNOWN}{hint}")
    section = content["base"].get(head)
    if head not in KINDS or rest != "name" or not isinstance(section, Mapping):
        return
    name = parse_value(text)
    others = [path for path in content.get("search") or () if covers(head, str(path)) and str(path) != key]
    if name != section.get("name") and name in registry.names(KINDS[head]) and (len(section) > 1 or others):
        raise ConfigError(
            f"--set {prefix}{key}: each {head} has its own parameters, so it must be set as a whole, which also drops "
            f"the ranges below it: --set {prefix}{head}='{{name: {name}}}'"
        )


def _unsearched(search: Mapping[str, Any], key: str, prefix: str) -> dict[str, Any]:
    """Return the search without what an override of `key` fixes."""
    above = [path for path in search if path != key and covers(str(path), key)]
    if above:
        raise ConfigError(
            f"--set {prefix}{key}: has no effect, since search.{above[0]} replaces it; fix {prefix}{above[0]} instead"
        )
    return {path: value for path, value in search.items() if not covers(key, str(path))}
