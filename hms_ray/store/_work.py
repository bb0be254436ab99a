"""What is made of the recordings that are read together: themselves, or the features of their examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hms_ray.core import recordings
from hms_ray.core.errors import DataError
from hms_ray.datasets import Dataset, cut, first_step
from hms_ray.features._feature import FeatureRef
from hms_ray.store._writer import Piece
from hms_ray.store.quality import measure

LIMIT = torch.finfo(torch.float16).max
ROWS = 16  # examples whose feature is computed at once: memory does not grow with a recording's examples


@dataclass(frozen=True)
class Output:
    """What one store keeps of an item: the feature of its examples, or the recording as it is.

    kinds: of the recordings that it is made of
    feature: None keeps the recording
    """

    kinds: tuple[str, ...]
    dtype: str
    feature: FeatureRef | None = None


@dataclass(frozen=True)
class ReadOnce:
    """Reads the recordings of an item once, and makes the piece of each store that lacks it.

    kind: an item is a recording of this kind; where others are needed besides, those of its examples
    outputs: one for each store
    examples: by item, the numbers of its examples; empty where recordings alone are kept
    missing: for each store, the items that it lacks
    """

    dataset: Dataset
    kind: str
    outputs: tuple[Output, ...]
    examples: Mapping[str, np.ndarray]
    missing: tuple[frozenset[str], ...]

    def __call__(self, item: str) -> tuple[Piece | None, ...]:
        """Return a piece for each store, None where it has the item.

        Raises:
            DataError: a file is missing or broken, or ends before a window begins.
        """
        wanted = [i for i, missing in enumerate(self.missing) if item in missing]
        read = _Read(self.dataset)
        computed = [i for i in wanted if self.outputs[i].feature is not None]
        rows = dict(zip(computed, self._features(item, [self.outputs[i] for i in computed], read), strict=True))
        for i in wanted:
            if i not in rows:
                rows[i] = as_type(read.recording(self.kind, item), self.outputs[i].dtype).reshape(1, -1)
        return tuple(
            Piece.of(item, rows[i], self._quality(item, output, read)) if i in rows else None
            for i, output in enumerate(self.outputs)
        )

    def _features(self, item: str, outputs: Sequence[Output], read: "_Read") -> list[np.ndarray]:
        """Return the features of the item's examples, a row each, for each output."""
        if not outputs:
            return []
        examples, found = self.examples[item], [list[np.ndarray]() for _ in outputs]
        kinds = dict.fromkeys(kind for output in outputs for kind in output.kinds)
        for part in np.array_split(examples, -(-len(examples) // ROWS)):
            windows = {kind: self._windows(kind, part, read) for kind in kinds}
            for output, rows in zip(outputs, found, strict=True):
                assert output.feature is not None, "a recording that is kept as it is has no features"
                batch = {kind: windows[kind] for kind in output.kinds}
                with torch.inference_mode():
                    values = output.feature.compute(batch).numpy()
                rows.append(as_type(values, output.dtype).reshape(len(part), -1))
        return [np.concatenate(rows) for rows in found]

    def _windows(self, kind: str, examples: np.ndarray, read: "_Read") -> torch.Tensor:
        """Return the windows (B, channels, steps) of those examples that are scored."""
        windows = self.dataset.windows[kind]
        names, starts = windows.names[examples].tolist(), windows.middle_s[examples]
        for name, start in zip(names, starts, strict=True):
            check_start(self.dataset, kind, name, read.recording(kind, name).shape[1], start)
        cuts = [
            cut(read.recording(kind, name), recordings.KINDS[kind], s) for name, s in zip(names, starts, strict=True)
        ]
        return torch.from_numpy(np.stack(cuts))

    def _quality(self, item: str, output: Output, read: "_Read") -> list[dict[str, Any]]:
        """Return the measures of the recordings that an output is made of."""
        if output.feature is None:
            return [read.measures[self.kind, item]]
        names = ((kind, dict.fromkeys(self.dataset.windows[kind].names[self.examples[item]])) for kind in output.kinds)
        return [read.measures[kind, str(name)] for kind, each in names for name in each]


@dataclass(frozen=True)
class _Read:
    """The recordings of one item, each read once and measured."""

    dataset: Dataset
    values: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    measures: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def recording(self, kind: str, name: str) -> np.ndarray:
        """Return a recording (channels, steps), clipped to what float16 can hold."""
        if (kind, name) not in self.values:
            values = self.dataset.read(kind, name)
            self.measures[kind, name] = measure(recordings.KINDS[kind], name, values)
            self.values[kind, name] = clipped(values)
        return self.values[kind, name]


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
