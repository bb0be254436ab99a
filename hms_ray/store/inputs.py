"""Inputs of training: batches of features that are prepared, or computed from windows on the batch's device."""

import mmap
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch

from hms_ray.core import files, recordings
from hms_ray.core.specs import InputSpec
from hms_ray.datasets import Examples, Windows, first_step
from hms_ray.features._feature import FeatureRef
from hms_ray.store.prepare import InputParams
from hms_ray.store.share import StoreRef

NORESERVE = 0x4000 if sys.platform == "linux" else 0  # MAP_NORESERVE: Python names it from 3.13 on


class Inputs(Protocol):
    """The examples of a run."""

    @property
    def spec(self) -> InputSpec:
        """The shape of one example, and the names of its covariates."""

    @property
    def covariates(self) -> torch.Tensor | None:
        """Covariates (E, S), float32; None without covariates."""

    def __len__(self) -> int:
        """Return the number of examples."""

    @property
    def nbytes(self) -> int:
        """Their memory in bytes."""

    def batch(self, rows: np.ndarray, device: torch.device, rng: np.random.Generator | None = None) -> torch.Tensor:
        """Return these examples (B, *spec.shape), float32 on the device, images channels-last.

        rng: draws a window of each example if the run trains on random windows; None: the scored window
        """

    def to(self, device: torch.device) -> "Inputs":
        """Return the inputs with their values on the device."""


@dataclass(frozen=True)
class Prepared:
    """Prepared features (E, *spec.shape)."""

    x: torch.Tensor
    spec: InputSpec
    covariates: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def nbytes(self) -> int:
        return self.x.nbytes

    def batch(self, rows: np.ndarray, device: torch.device, rng: np.random.Generator | None = None) -> torch.Tensor:
        index = torch.from_numpy(np.asarray(rows)).to(self.x.device)
        return arranged(self.x.index_select(0, index).to(device, torch.float32, non_blocking=True))

    def to(self, device: torch.device) -> "Prepared":
        return replace(self, x=self.x.to(device))


@dataclass(frozen=True)
class Kept:
    """The concatenated recordings of one kind, and the positions of the examples' windows.

    values: the recordings, (channels, steps) each; start, steps: (E,), of the recording of each example
    """

    kind: recordings.RecordingKind
    values: torch.Tensor
    start: np.ndarray
    steps: np.ndarray
    windows: Windows

    def batch(self, rows: np.ndarray, starts_s: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return the windows (B, channels, steps) at these starts, float32, NaN beyond the end of the recording."""
        channels, steps = len(self.kind.channels), self.kind.steps
        dtype = torch.float32 if self.values.device == device else self.values.dtype  # fewer bytes to send to a GPU
        batch = torch.empty((len(rows), channels, steps), dtype=dtype, device=self.values.device)
        for i, (row, first) in enumerate(zip(rows, first_step(self.kind, starts_s).tolist(), strict=True)):
            start, length = self.start[row], self.steps[row]
            recording = self.values[start : start + channels * length].view(channels, length)
            batch[i, :, : length - first] = recording[:, first : first + steps]
            batch[i, :, length - first :] = torch.nan
        return batch.to(device, torch.float32, non_blocking=True)


@dataclass(frozen=True)
class Computed:
    """Features computed from the windows of each batch."""

    kept: Mapping[str, Kept]
    feature: FeatureRef
    random: bool
    spec: InputSpec
    covariates: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.kept.values())).start)

    @property
    def nbytes(self) -> int:
        return sum(kept.values.nbytes for kept in self.kept.values())

    def batch(self, rows: np.ndarray, device: torch.device, rng: np.random.Generator | None = None) -> torch.Tensor:
        drawn = rng.random((2, len(rows))) if rng is not None and self.random else None
        windows = {}
        for name, kept in self.kept.items():  # the same moment in all kinds
            starts = kept.windows.middle_s[rows] if drawn is None else kept.windows.draw(rows, *drawn)
            windows[name] = kept.batch(rows, starts, device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):  # powers exceed half precision
            return arranged(self.feature.compute(windows))

    def to(self, device: torch.device) -> "Computed":
        kept = {name: replace(kept, values=kept.values.to(device)) for name, kept in self.kept.items()}
        return replace(self, kept=kept)


def open_inputs(
    stores: Sequence[StoreRef],
    feature: FeatureRef,
    params: InputParams,
    windows: Mapping[str, Windows],
    examples: Examples,
) -> Inputs:
    """Open the stores that `prepare` made, in milliseconds: values are mapped, and shared between processes.

    Raises:
        DataError: a store is not on this machine and cannot be copied to it.
    """
    paths, spec = [store.local() for store in stores], input_spec(feature, params)
    covariates = torch.tensor(examples.beside(spec.covariates)) if spec.covariates else None
    if params.compute == "prepared":
        return Prepared(_values(paths[0]), spec, covariates)
    kept = {kind: _kept(path, kind, windows[kind]) for kind, path in zip(feature.spec.kinds, paths, strict=True)}
    return Computed(kept, feature, params.window == "random", spec, covariates)


def input_spec(feature: FeatureRef, params: InputParams) -> InputSpec:
    """Return the shape of a network's input: that of the feature, with the covariates."""
    return replace(feature.spec, covariates=params.covariates)


def beside(inputs: Inputs, rows: np.ndarray, device: torch.device) -> torch.Tensor | None:
    """Return the covariates (B, S) of these examples, if there are any."""
    return None if inputs.covariates is None else inputs.covariates[torch.from_numpy(np.asarray(rows))].to(device)


def read_quality(stores: Sequence[StoreRef]) -> pd.DataFrame:
    """Return the measures of each recording of these stores: kind, name, and a column for each measure."""
    tables = [files.read_table(store.local() / "quality.parquet") for store in stores]
    return pd.concat(tables, ignore_index=True)


def arranged(batch: torch.Tensor) -> torch.Tensor:
    """Return the batch in the memory format of `memory_format`."""
    return batch.contiguous(memory_format=memory_format(batch.ndim))


def memory_format(ndim: int) -> torch.memory_format:
    """Return channels-last for images (B, C, F, T), with which convolutions are faster."""
    return torch.channels_last if ndim == 4 else torch.contiguous_format


def _kept(path: Path, kind: str, windows: Windows) -> Kept:
    index = files.read_table(path / "index.parquet").set_index("name").loc[windows.names]
    start, steps = index["start"].to_numpy(), index["steps"].to_numpy()
    return Kept(recordings.KINDS[kind], _values(path), start, steps, windows)


@lru_cache(maxsize=4)
def _values(path: Path) -> torch.Tensor:
    """Map a store's array once per process; later trials in a reused actor share it.

    The map is copy-on-write: torch requires writable arrays, and the file must not change. No memory is reserved for
    copies, because Linux would refuse to map more than the machine has.
    """
    array = np.load(path / "x.npy", mmap_mode="r")
    with open(path / "x.npy", "rb") as file:
        flags, access = mmap.MAP_PRIVATE | NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        pages = mmap.mmap(file.fileno(), 0, flags=flags, prot=access)
    return torch.from_numpy(np.ndarray(array.shape, array.dtype, pages, array.offset))
