"""All folds as a competent notebook trains them: one process, a dataset with a loader, torch's own defaults."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from bench import _folds
from bench._folds import ARCH, LR, MIXUP, WARMUP, Setting
from bench._notebook import Images

EMA, CLIP, EVALUATED, ALPHA = 0.99, 5.0, 64, 0.4


def main(setting: Setting, workers: int) -> dict[str, Any]:
    """Train every fold, one after the other; return the seconds of all and each one's KL after its last epoch."""
    index = dict(np.load(setting.arrays / "index.npz", allow_pickle=True))
    held = {name: np.load(setting.arrays / f"{name}.npy") for name in np.unique(index["names"])}
    torch.manual_seed(setting.seed)
    np.random.seed(setting.seed)
    begun = time.monotonic()
    scores = [_train(setting, held, index, fold, workers) for fold in range(setting.folds)]
    return {"training": time.monotonic() - begun, "scores": scores, "threads": torch.get_num_threads()}


def images(held: dict[str, np.ndarray], index: dict[str, np.ndarray], rows: np.ndarray, augmented: bool) -> Images:
    """Return the images of those rows."""
    return Images(held, index["names"][rows], index["first"][rows], index["targets"][rows], augmented)


def _train(
    setting: Setting, held: dict[str, np.ndarray], index: dict[str, np.ndarray], fold: int, workers: int
) -> float:
    """Train one fold and return its KL after the last epoch."""
    out = index["folds"] == fold
    how = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(images(held, index, np.flatnonzero(~out), True), setting.batch, shuffle=True, **how)
    test = DataLoader(images(held, index, np.flatnonzero(out), False), EVALUATED, **how)
    steps = Steps(setting.arrays / f"weights_{fold}.pt", len(loader) * setting.epochs)
    for _ in range(setting.epochs):
        steps.model.train()
        for x, y in loader:
            steps(*_mixed(x, y))
        score = evaluate(steps.average.module, test)
    return score


class Steps:
    """The network with its optimiser, schedule and average."""

    def __init__(self, weights: Path, steps: int) -> None:
        self.model = timm.create_model(ARCH, in_chans=1, num_classes=6)
        self.model.load_state_dict(torch.load(weights))
        self.average = ModelEmaV3(self.model, decay=EMA, use_warmup=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.01)
        self.schedule = OneCycleLR(self.optimizer, LR, steps, pct_start=WARMUP, cycle_momentum=False)
        self.done = 0

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Take one step."""
        loss = nn.functional.kl_div(self.model(x).log_softmax(1), y, reduction="batchmean")
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.schedule.step()
        self.done += 1
        self.average.update(self.model, step=self.done)


def _mixed(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend a batch with itself in another order, or leave it as it is."""
    if np.random.rand() >= MIXUP:
        return x, y
    share, partner = np.random.beta(ALPHA, ALPHA), torch.randperm(len(x))
    return share * x + (1 - share) * x[partner], share * y + (1 - share) * y[partner]


@torch.no_grad()
def evaluate(model: nn.Module, batches: DataLoader) -> float:
    """Return the mean KL of the held-out images."""
    model.eval()
    rows: Iterator[torch.Tensor] = (
        nn.functional.kl_div(model(x).log_softmax(1), y, reduction="none").sum(1) for x, y in batches
    )
    return torch.cat(list(rows)).mean().item()


if __name__ == "__main__":
    _folds.answer(main)
