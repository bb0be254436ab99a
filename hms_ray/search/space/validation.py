"""What is wrong with the ranges of a space, found before anything starts: each end is tried in every context."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hms_ray.core import hints
from hms_ray.core.params import UNKNOWN
from hms_ray.search.space.paths import covers, get, replaced
from hms_ray.search.space.ranges import Choice, Range, parse_range
from hms_ray.training.run_config import RunConfig, places, try_run

FIXED = ("data", "folds", "score", "epoch", "epoch_candidates", "seed")  # the study's own: every trial must share them


def holds(item: Range, content: Mapping[str, Any]) -> bool:
    """Whether every condition of a range is true of this run, defaults included; a path that it lacks is no match."""
    return all(_matches(content, path, values) for path, values in item.when.items())


def _matches(content: Mapping[str, Any], path: str, values: tuple[Any, ...]) -> bool:
    with suppress(KeyError):
        return get(content, path) in values
    run, _ = try_run(content)
    with suppress(KeyError):
        return run is not None and get(run.content, path) in values
    return False


def parse_ranges(search: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[tuple[Range, ...], list[str]]:
    """Return the ranges that can be read, and what is wrong with any."""
    parsed = [parse_range(path, value) for path, value in search.items()]
    ranges = tuple(item for item, _ in parsed if item)
    found = [fault for _, range_faults in parsed for fault in range_faults]
    tried = try_run(base)
    return ranges, found + [fault for item in ranges for fault in _range_faults(item, ranges, base, *tried)]


def _range_faults(
    item: Range, ranges: tuple[Range, ...], base: Mapping[str, Any], run: RunConfig | None, known: Sequence[str]
) -> Iterator[str]:
    """Yield what is wrong with the run at each end of a range, the base's own faults word for word."""
    where = f"search.{item.path}"
    if item.path.split(".")[0] in FIXED:
        yield f"{where}: {', '.join(FIXED)} belong to the study and cannot be searched"
        return
    if covers(item.path, "input.compute"):
        yield f"{where}: where a feature is computed changes no score; set it in the base, and search input.window"
        return
    if item.path.startswith("feature.") and not isinstance(item, Choice) and _is_prepared(run):
        yield f"{where}: each value would be prepared anew; set input.compute to batch, or name a few values as choice"
        return
    number = ranges.index(item)
    late = [r.path for r in ranges[number + 1 :] if any(covers(r.path, path) for path in (item.path, *item.when))]
    if late:
        yield f"{where}: must stand below search.{late[0]}, on which it depends"
        return
    contexts = _contexts(item, ranges[:number], base)
    if not contexts:
        yield f"{where}: its condition when: {_spelled(item.when)} never holds in this space{_when_hint(item, base)}"
    for value in item.ends:
        for content in contexts:
            try:
                run_faults = try_run(replaced(content, item.path, value))[1]
            except KeyError as error:
                yield f"{where}: the run has no such place: {error.args[0]}"
                return
            strange = next((f for f in run_faults if f.startswith(f"{item.path}{UNKNOWN}")), None)
            if strange and item.path not in places(base):
                hint = strange.partition("; ")[2]  # the same for every value
                yield f"{where}{UNKNOWN}" + (f"; {hint}" if hint else "")
                return
            yield from (fault if fault in known else f"{where} = {value!r}: {fault}" for fault in run_faults)


def _spelled(when: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Return a condition as a space may spell it."""
    return {path: list(values) if len(values) > 1 else values[0] if values else [] for path, values in when.items()}


def _when_hint(item: Range, base: Mapping[str, Any]) -> str:
    """Say which path of a condition no run has, and what was probably meant."""
    known = places(base)
    strange = [path for path in item.when if path not in known]
    return f": the run has no {strange[0]}{hints.path_hint(strange[0], known)}" if strange else ""


def _is_prepared(run: RunConfig | None) -> bool:
    """Whether the feature is computed before training; what is no run has faults of its own."""
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
    return [content for content in contents if holds(item, content)]


def _with(content: Mapping[str, Any], other: Range, values: tuple[Any, ...]) -> list[Mapping[str, Any]]:
    """Return the run with each value of another range, or as it is where that range is not searched."""
    if not holds(other, content):
        return [content]
    with suppress(KeyError):  # a range at no place has a fault of its own
        return [replaced(content, other.path, value) for value in values]
    return [content]
