"""Predictions of a trained network."""

from contextlib import AbstractContextManager

import numpy as np
import torch

from hms_ray.tasks import Task
from hms_ray.training.batches import gather


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return bfloat16 autocast where the device gains by it; a CPU mostly loses."""
    wanted = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


@torch.inference_mode()
def predict(
    model: torch.nn.Module, x: torch.Tensor, rows: np.ndarray, task: Task, device: torch.device, batch: int
) -> np.ndarray:
    """Return float64 probabilities (len(rows), K) of those rows of x (N, ...)."""
    model.eval()
    logits = []
    with autocast(device):
        for start in range(0, len(rows), batch):
            logits.append(model(gather(x, rows[start : start + batch], device)).float().cpu().numpy())
    return task.to_probs(np.concatenate(logits)) if logits else np.empty((0, len(task.classes)))
