"""What `--smoke` trains of a space: few epochs, random weights, and what the space says of it."""

import copy
from collections.abc import Collection, Mapping
from typing import Any

from hms_ray.search.space.paths import covers, get, put, replaced
from hms_ray.search.space.ranges import Range
from hms_ray.training.run_config import try_run


def smoke_run(
    base: Mapping[str, Any], smoke: Mapping[str, Any], fixed: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return a base run as `--smoke` trains it, and what is wrong with it; without a word on stages, they are short.

    fixed: dotted paths that the user has set, which stay as they are
    """
    content = copy.deepcopy(dict(base))
    if not _touched("folds", fixed):
        content["folds"] = 2
    if "stages" not in smoke and not _touched("stages", fixed):
        content["stages"] = [{**stage, "epochs": min(stage["epochs"], 2)} for stage in content["stages"]]
    for section in ("feature", "model"):
        if section not in smoke and "pretrained" in content[section] and not _touched(f"{section}.pretrained", fixed):
            content[section]["pretrained"] = False
    try:
        for path, value in smoke.items():
            put(content, str(path), _kept(content, str(path), value, fixed))
    except KeyError as error:
        return content, [f"{path}: the run has no such place: {error.args[0]}"]
    run, found = try_run(content)
    return (run.content if run else content), found


def _touched(path: str, fixed: Collection[str]) -> bool:
    return any(covers(path, own) or covers(own, path) for own in fixed)


def _kept(content: Mapping[str, Any], path: str, value: Any, fixed: Collection[str]) -> Any:
    """Return a value of the smoke run, with what the user has set at that path or below it."""
    if any(covers(own, path) for own in fixed):
        return get(content, path)
    value = copy.deepcopy(value)
    for own in fixed:
        if covers(path, own):
            put(value, own.removeprefix(f"{path}."), get(content, own))
    return value


def fits(item: Range, content: Mapping[str, Any], smoke: Mapping[str, Any]) -> bool:
    """Whether a range is one of the smoke run's too: cheap, not set by it, and possible at both ends."""
    if _may_be_large(item) or any(covers(path, item.path) or covers(item.path, path) for path in smoke):
        return False
    try:
        return all(try_run(replaced(content, item.path, value))[0] for value in item.ends)
    except KeyError:
        return False


def _may_be_large(item: Range) -> bool:
    """Whether a range decides over epochs or weights to fetch, by itself or inside a section."""
    return item.path.endswith((".epochs", ".pretrained")) or any(isinstance(end, dict | list) for end in item.ends)
