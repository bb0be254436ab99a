"""Predictions of a trained network."""

from collections.abc import Sequence
from functools import partial
from types import ModuleType

import numpy as np
import torch

from hms_ray.store.inputs import Inputs, arranged, beside
from hms_ray.tasks import Task
from hms_ray.training import memory
from hms_ray.training.precision import autocast


@torch.inference_mode()
def predict(
    model: torch.nn.Module,
    inputs: Inputs,
    rows: np.ndarray,
    task: Task,
    device: torch.device,
    batch: int,
    test_time: Sequence[ModuleType] = (),
    precision: torch.dtype = torch.float32,
) -> np.ndarray:
    """Return float64 probabilities (len(rows), K) of those examples, `batch` at a time or what memory allows.

    test_time: augmentations whose full versions are predicted as well; the probabilities are averaged
    precision: in which the network computes

    Raises:
        TrialFailed: the memory does not suffice for one row.
    """
    model.eval()
    probs, done, batch = [], 0, min(batch, len(rows))

    def forward(start: int, count: int) -> np.ndarray:
        some = rows[start : start + count]
        x, covariates = inputs.batch(some, device), beside(inputs, some, device)
        more = () if covariates is None else (covariates,)
        variants = (module.variant(x, inputs.spec) for module in test_time)
        views = [x, *(arranged(variant) for variant in variants if variant is not x)]  # x itself is predicted once
        return np.mean([task.to_probs(model(view, *more).float().cpu().numpy()) for view in views], axis=0)

    with autocast(device, precision):
        while done < len(rows):
            part, batch = memory.attempt(partial(forward, done), batch, device)
            probs.append(part)
            done += len(part)
    return np.concatenate(probs) if probs else np.empty((0, len(task.classes)))
