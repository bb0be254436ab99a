"""Predictions of a trained network."""

from contextlib import AbstractContextManager
from functools import partial

import numpy as np
import torch

from hms_ray.tasks import Task
from hms_ray.training import memory
from hms_ray.training.batches import gather


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return bfloat16 autocast where the device gains by it; a CPU mostly loses."""
    wanted = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


@torch.inference_mode()
def predict(
    model: torch.nn.Module, x: torch.Tensor, rows: np.ndarray, task: Task, device: torch.device, batch: int
) -> np.ndarray:
    """Return float64 probabilities (len(rows), K) of those rows of x (N, ...), `batch` at a time or what memory allows.

    Raises:
        TrialFailed: the memory does not suffice for one row.
    """
    model.eval()
    logits, done, batch = [], 0, min(batch, len(rows))

    def forward(start: int, count: int) -> np.ndarray:
        return model(gather(x, rows[start : start + count], device)).float().cpu().numpy()

    with autocast(device):
        while done < len(rows):
            part, batch = memory.attempt(partial(forward, done), batch, device)
            logits.append(part)
            done += len(part)
    return task.to_probs(np.concatenate(logits)) if logits else np.empty((0, len(task.classes)))
