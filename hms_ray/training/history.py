"""What a fold has behind it, kept so that a kill costs at most the epoch in flight: curve, predictions, weights."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

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


class Saved(Protocol):
    """What a history saves of a learner."""

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch needs."""

    def packed(self) -> bytes:
        """Return the weights that are scored."""


class History:
    """The epochs of one fold, beside its checkpoint.

    saved: the checkpoint's file; the weights of epochs that may be chosen lie in `weights/` beside it
    rule, candidates: how the epoch is chosen, and among which; total: epochs of the fold; mark: of the run, as in
        `Recipe`
    """

    def __init__(
        self, saved: Path, rule: epoch_selection.Rule, candidates: epoch_selection.Candidates, total: int, mark: str
    ) -> None:
        self.saved, self.rule, self.candidates, self.total, self.mark = saved, rule, candidates, total, mark
        self.curve: list[dict[str, Any]] = []
        self.by_epoch: list[np.ndarray] = []

    @property
    def probs(self) -> np.ndarray:
        """Predictions (epochs, rows, K), NaN where a unit was not predicted after an epoch."""
        return np.stack(self.by_epoch) if self.by_epoch else np.empty((0, 0, 0))

    @property
    def as_ended(self) -> np.ndarray:
        """The score that the fold would have, had it ended after each epoch (epochs,)."""
        return epoch_selection.as_ended(self.rule, self.candidates, self._scores(self.curve), self.total)

    def weights(self) -> dict[int, Path]:
        """Return the file of each epoch that may be chosen."""
        return self._weights(self.curve)

    def load(self) -> dict[str, Any] | None:
        """Read what `add` kept of the last finished epoch; None: there is nothing, or weights are missing."""
        state = checkpoint.load(self.saved, self.mark)
        if state is None or not all(path.is_file() for path in self._weights(state["curve"]).values()):
            return None
        return state

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from what `load` read."""
        self.curve, self.by_epoch = state["curve"], list(state["probs"].numpy())

    def add(self, probs: np.ndarray, learner: Saved) -> None:
        """Keep an epoch whose row ends the curve: the weights first, without which the checkpoint would not do."""
        self.by_epoch.append(probs)
        kept = self.weights()
        if len(self.curve) in kept:
            files.write_bytes(kept[len(self.curve)], learner.packed())
        state = {"of": self.mark, "curve": self.curve, "probs": torch.from_numpy(self.probs)}
        checkpoint.save(self.saved, state | {"learner": learner.state()})
        for path in set(self._file(0).parent.glob("*.safetensors")) - set(kept.values()):
            path.unlink()

    def again(self, epoch: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the predictions and the scores of an epoch, counted from 1, for one whose network is the same."""
        probs = self.by_epoch[epoch - 1] if self.by_epoch else np.empty((0, 0))  # the first worker alone has some
        return probs, {name: self.curve[epoch - 1][name] for name in ("score", "watched")}

    def _weights(self, curve: list[dict[str, Any]]) -> dict[int, Path]:
        epochs = epoch_selection.reachable(self.rule, self.candidates, self._scores(curve), self.total)
        return {epoch: self._file(epoch) for epoch in epochs}

    @staticmethod
    def _scores(curve: list[dict[str, Any]]) -> list[float]:
        return [row["score"] for row in curve]

    def _file(self, epoch: int) -> Path:
        return self.saved.parent / "weights" / f"{epoch}.safetensors"
