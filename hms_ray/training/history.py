"""What a fold has behind it, kept so that a kill costs at most the epoch in flight: curve, predictions, weights."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hms_ray.core import files
from hms_ray.study import epoch_selection
from hms_ray.training import checkpoint


def discard(saved: Path) -> None:
    """Remove what a fold kept beside its checkpoint, its teachers' too, and nothing else."""
    for teacher in saved.parent.glob("teacher-*"):
        discard(teacher / saved.name)
    for path in (saved, *saved.parent.glob("weights/*.safetensors")):
        path.unlink(missing_ok=True)
    for folder in (saved.parent / "weights", saved.parent):
        with suppress(OSError):  # not empty, or gone
            folder.rmdir()


class History:
    """The epochs of one fold, beside its checkpoint.

    saved: the checkpoint's file; the weights of epochs that may be chosen lie in `weights/` beside it
    rule, candidates: how the epoch is chosen, and among which; total: epochs of the fold; fingerprint: of the recipe
    """

    def __init__(
        self,
        saved: Path,
        rule: epoch_selection.Rule,
        candidates: epoch_selection.Candidates,
        total: int,
        fingerprint: str,
    ) -> None:
        self.saved, self.rule, self.candidates, self.total = saved, rule, candidates, total
        self.fingerprint = fingerprint
        self.curve: list[dict[str, Any]] = []
        self.by_epoch: list[np.ndarray] = []

    @property
    def probs(self) -> np.ndarray:
        """Predictions (epochs, rows, K), NaN where a unit was not predicted after an epoch."""
        return np.stack(self.by_epoch) if self.by_epoch else np.empty((0, 0, 0))

    def is_above(self, prune_thresholds: Sequence[float]) -> bool:
        """Whether the score, had the fold ended with the last epoch, is above that epoch's threshold; NaN never is."""
        if not (self.curve and prune_thresholds):
            return False
        scores = epoch_selection.as_ended(self.rule, self.candidates, self._scores(self.curve), self.total)
        return bool(scores[-1] > prune_thresholds[len(self.curve) - 1])

    def weights(self) -> dict[int, Path]:
        """Return the file of each epoch that may be chosen."""
        return self._weights(self.curve)

    def load(self) -> dict[str, Any] | None:
        """Read what `add` kept of the last finished epoch; None: there is nothing, or weights are missing."""
        state = checkpoint.load(self.saved, self.fingerprint)
        if state is None or not all(path.is_file() for path in self._weights(state["curve"]).values()):
            return None
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `load` read."""
        self.curve, self.by_epoch = state["curve"], list(state["probs"].numpy())

    def add(self, probs: np.ndarray, packed: Callable[[], bytes], learner: Mapping[str, Any]) -> None:
        """Keep the epoch whose row ends the curve: its weights first, since a checkpoint without them is not resumed.

        probs: predictions (rows, K) after it; packed: returns its weights; learner: what the next epoch needs
        """
        self.by_epoch.append(probs)
        kept = self.weights()
        if len(self.curve) in kept:
            files.write_bytes(kept[len(self.curve)], packed())
        state = {"of": self.fingerprint, "curve": self.curve, "probs": torch.from_numpy(self.probs)}
        checkpoint.save(self.saved, state | {"learner": dict(learner)})
        for path in set(self._file(0).parent.glob("*.safetensors")) - set(kept.values()):
            path.unlink()

    def repeat(self, epoch: int) -> tuple[np.ndarray, dict[str, float]]:
        """Return predictions and scores of an epoch, counted from 1, for a later one with the same network."""
        probs = self.by_epoch[epoch - 1].copy() if self.by_epoch else np.empty((0, 0))  # the first worker has them
        return probs, {name: self.curve[epoch - 1][name] for name in ("score", "watched")}

    def _weights(self, curve: list[dict[str, Any]]) -> dict[int, Path]:
        epochs = epoch_selection.reachable(self.rule, self.candidates, self._scores(curve), self.total)
        return {epoch: self._file(epoch) for epoch in epochs}

    @staticmethod
    def _scores(curve: list[dict[str, Any]]) -> list[float]:
        return [row["score"] for row in curve]

    def _file(self, epoch: int) -> Path:
        return self.saved.parent / "weights" / f"{epoch}.safetensors"
