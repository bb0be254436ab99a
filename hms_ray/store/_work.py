"""What is done with one recording: read, measured, and kept as it is or as the features of its units."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from hms_ray import recordings
from hms_ray.datasets import Dataset, cut, first_step
from hms_ray.errors import DataError
from hms_ray.features._feature import FeatureRef
from hms_ray.store._writer import Piece
from hms_ray.store.quality import measure

LIMIT = torch.finfo(torch.float16).max
ROWS = 16  # examples whose feature is computed at once: memory does not grow with a recording's examples


@dataclass(frozen=True)
class KeepRecording:
    """Keeps a recording as it is."""

    dataset: Dataset
    kind: str
    dtype: str

    def __call__(self, item: str) -> Piece:
        """Read the recording `item` and return it as one row.

        Raises:
            DataError: the file is missing or broken.
        """
        recording = self.dataset.read(self.kind, item)
        quality = measure(recordings.KINDS[self.kind], item, recording)
        return Piece.of(item, as_type(recording, self.dtype).reshape(1, -1), [quality])


@dataclass(frozen=True)
class ComputeFeature:
    """Computes the feature of the examples of a recording; where it takes several kinds, of the one with fewest files.

    examples: by item, the numbers of its examples
    """

    dataset: Dataset
    feature: FeatureRef
    dtype: str
    examples: Mapping[str, np.ndarray]

    def __call__(self, item: str) -> Piece:
        """Return the features of the item's examples, a row each.

        Raises:
            DataError: a file is missing or broken, or ends before a window begins.
        """
        kinds, examples = self.feature.spec.kinds, self.examples[item]
        read = {kind: self._read(kind, examples) for kind in kinds}
        rows = []
        for part in np.array_split(examples, -(-len(examples) // ROWS)):
            batch = {kind: self._windows(kind, part, read[kind]) for kind in kinds}
            with torch.inference_mode():
                rows.append(as_type(self.feature.compute(batch).numpy(), self.dtype).reshape(len(part), -1))
        quality = [measure(recordings.KINDS[kind], name, found) for kind in kinds for name, found in read[kind].items()]
        return Piece.of(item, np.concatenate(rows), quality)

    def _read(self, kind: str, examples: np.ndarray) -> dict[str, np.ndarray]:
        """Read the recordings of those examples, each once."""
        names = dict.fromkeys(self.dataset.windows[kind].names[examples].tolist())
        return {name: clipped(self.dataset.read(kind, name)) for name in names}

    def _windows(self, kind: str, examples: np.ndarray, read: Mapping[str, np.ndarray]) -> torch.Tensor:
        """Return the windows (B, channels, steps) of those examples that are scored."""
        windows = self.dataset.windows[kind]
        names, starts = windows.names[examples], windows.middle_s[examples]
        for name, start in zip(names, starts, strict=True):
            check_start(self.dataset, kind, name, read[name].shape[1], start)
        cuts = [cut(read[name], recordings.KINDS[kind], s) for name, s in zip(names, starts, strict=True)]
        return torch.from_numpy(np.stack(cuts))


def check_start(dataset: Dataset, kind: str, name: str, steps: int, start_s: float) -> None:
    """Raise DataError where a window begins at or after its recording's end."""
    of = recordings.KINDS[kind]
    if first_step(of, start_s) >= steps:
        length_s = steps / of.rate_hz
        raise DataError(f"{dataset.path(kind, name)}: it has {length_s:g} s, but a label's offset is {start_s:g} s")


def clipped(values: np.ndarray) -> np.ndarray:
    """Clip values in place to what float16 can hold, NaN kept; a copy of a recording costs as much as reading it.

    Recordings are clipped before anything is made of them, so that a feature is the same wherever it is computed.
    """
    torch.from_numpy(values).clamp_(-LIMIT, LIMIT)  # torch is ten times as fast as NumPy here
    return values


def as_type(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return the values as that type, those that float16 cannot hold clipped, in place as well."""
    return torch.from_numpy(clipped(values)).to(getattr(torch, dtype)).numpy()
