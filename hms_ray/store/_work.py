"""Compute the content of stores from recordings: the recordings themselves, or the features of their examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from hms_ray.core import recordings
from hms_ray.core.errors import DataError
from hms_ray.datasets import Dataset, cut, first_step
from hms_ray.features._feature import FeatureRef
from hms_ray.store._writer import Piece
from hms_ray.store.quality import Measures, measure

LIMIT = torch.finfo(torch.float16).max
ROWS = 16  # examples computed at once: memory does not grow with the number of examples of a recording


@dataclass(frozen=True)
class Output:
    """The content of one store for an item: the feature of its examples, or the recording.

    kinds: kinds of the recordings that it is computed from
    feature: None for the recording
    """

    kinds: tuple[str, ...]
    dtype: str
    feature: FeatureRef | None = None


@dataclass(frozen=True)
class ReadOnce:
    """Read the recordings of an item once, and compute its piece for each store that lacks it.

    kind: an item is a recording of this kind, with the recordings of other kinds of its examples where needed
    outputs: one for each store
    examples: the numbers of the examples of each item; empty where only recordings are stored
    missing: the items that each store lacks
    """

    dataset: Dataset
    kind: str
    outputs: tuple[Output, ...]
    examples: Mapping[str, np.ndarray]
    missing: tuple[frozenset[str], ...]

    def __call__(self, item: str) -> tuple[Piece | None, ...]:
        """Return the piece for each store, None where it has the item already.

        Raises:
            DataError: a file is missing or broken, or ends before a window begins.
        """
        read = _Recordings(self.dataset)
        lacking = [output for output, items in zip(self.outputs, self.missing, strict=True) if item in items]
        features = iter(self._features(item, [output for output in lacking if output.feature is not None], read))
        pieces: list[Piece | None] = []
        for output, items in zip(self.outputs, self.missing, strict=True):
            if item not in items:
                pieces.append(None)
                continue
            if output.feature is None:
                rows, names = as_type(read(self.kind, item), output.dtype).reshape(1, -1), [(self.kind, item)]
            else:
                rows, windows = next(features), self.dataset.windows
                numbers = self.examples[item]
                names = [(kind, str(name)) for kind in output.kinds for name in windows[kind].names[numbers]]
            pieces.append(Piece.of(item, rows, [read.measures[name] for name in dict.fromkeys(names)]))
        return tuple(pieces)

    def _features(self, item: str, outputs: Sequence[Output], read: "_Recordings") -> list[np.ndarray]:
        """Return the features of the item's examples for each output, a row for each example."""
        if not outputs:
            return []
        examples, parts = self.examples[item], [list[np.ndarray]() for _ in outputs]
        for numbers in np.array_split(examples, -(-len(examples) // ROWS)):
            windows = {}
            for kind in dict.fromkeys(kind for output in outputs for kind in output.kinds):
                names, starts = self.dataset.windows[kind].names[numbers], self.dataset.windows[kind].middle_s[numbers]
                cuts = []
                for name, start in zip(names.tolist(), starts, strict=True):
                    recording = read(kind, name)
                    check_start(self.dataset, kind, name, recording.shape[1], start)
                    cuts.append(cut(recording, recordings.KINDS[kind], start))
                windows[kind] = torch.from_numpy(np.stack(cuts))  # (B, channels, steps)
            for output, rows in zip(outputs, parts, strict=True):
                assert output.feature is not None, "recordings are stored without a feature"
                with torch.inference_mode():
                    values = output.feature.compute({kind: windows[kind] for kind in output.kinds}).numpy()
                rows.append(as_type(values, output.dtype).reshape(len(numbers), -1))
        return [np.concatenate(rows) for rows in parts]


@dataclass(frozen=True)
class _Recordings:
    """The recordings of one item, each read and measured once."""

    dataset: Dataset
    values: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    measures: dict[tuple[str, str], Measures] = field(default_factory=dict)

    def __call__(self, kind: str, name: str) -> np.ndarray:
        """Return a recording (channels, steps), clipped to the range of float16."""
        if (kind, name) not in self.values:
            values = self.dataset.read(kind, name)
            self.measures[kind, name] = measure(recordings.KINDS[kind], name, values)
            self.values[kind, name] = clipped(values)
        return self.values[kind, name]


def check_start(dataset: Dataset, kind: str, name: str, steps: int, start_s: float) -> None:
    """Raise DataError where a window begins at or after its recording's end."""
    if first_step(recordings.KINDS[kind], start_s) >= steps:
        length_s = steps / recordings.KINDS[kind].rate_hz
        raise DataError(f"{dataset.path(kind, name)}: it has {length_s:g} s, but a label's offset is {start_s:g} s")


def clipped(values: np.ndarray) -> np.ndarray:
    """Clip values in place to the range of float16, keeping NaN; a copy would cost as much as reading.

    Recordings are clipped before anything is computed from them, so that features do not depend on where they are
    computed.
    """
    torch.from_numpy(values).clamp_(-LIMIT, LIMIT)  # torch is ten times as fast as NumPy here
    return values


def as_type(values: np.ndarray, dtype: str) -> np.ndarray:
    """Clip the values in place to the range of float16, and return them as that type."""
    return torch.from_numpy(clipped(values)).to(getattr(torch, dtype)).numpy()
