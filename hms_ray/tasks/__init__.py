"""What is predicted and how it is scored. A dataset hands over one Task; nobody asks which kind it is."""

from collections.abc import Sequence
from typing import Any

from hms_ray import registry
from hms_ray.tasks._base import CLIP, Task
from hms_ray.tasks._metrics import Metrics, calibration_bins

__all__ = ["CLIP", "DEFAULT", "Metrics", "Task", "calibration_bins", "default", "from_dict"]

DEFAULT = "votes"  # the task of who does not say


def from_dict(content: dict[str, Any]) -> Task:
    """Rebuild the task that `Task.to_dict` described."""
    return registry.load("tasks", content["kind"]).Task(tuple(content["classes"]))


def default(classes: Sequence[str]) -> Task:
    """Return the task of who does not say which."""
    return from_dict({"kind": DEFAULT, "classes": classes})
