"""What `--smoke` trains of a space: few epochs, random weights, and what the space says of it."""

import copy
from collections.abc import Mapping
from typing import Any

from hms_ray.config import try_run
from hms_ray.search.paths import covers, put, replaced
from hms_ray.search.ranges import Range


def smoke_run(base: Mapping[str, Any], smoke: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a base run as `--smoke` trains it, and what is wrong with it; without a word on stages, they are short."""
    content = copy.deepcopy(dict(base)) | {"folds": 2}
    if "stages" not in smoke:
        content["stages"] = [{**stage, "epochs": min(stage["epochs"], 2)} for stage in content["stages"]]
    if "model" not in smoke and "pretrained" in content["model"]:
        content["model"]["pretrained"] = False
    try:
        for path, value in smoke.items():
            put(content, str(path), value)
    except KeyError as error:
        return content, [f"{path}: the run has no such place: {error.args[0]}"]
    run, found = try_run(content)
    return (run.content if run else content), found


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
