"""Tasks: classes, loss, score and metrics. A dataset has one Task; no code depends on its kind."""

from collections.abc import Sequence

from hms_ray import registry
from hms_ray.tasks._base import CLIP, Task, TaskDict
from hms_ray.tasks._metrics import Metrics, calibration_bins

__all__ = ["CLIP", "DEFAULT", "Metrics", "Task", "TaskDict", "calibration_bins", "default", "from_dict"]

DEFAULT = "votes"  # default task when none is specified


def from_dict(content: TaskDict) -> Task:
    """Return the task of the output of `Task.to_dict`."""
    return registry.load("tasks", content["kind"]).Task(tuple(content["classes"]))


def default(classes: Sequence[str]) -> Task:
    """Return the default task with these classes."""
    return from_dict({"kind": DEFAULT, "classes": list(classes)})
