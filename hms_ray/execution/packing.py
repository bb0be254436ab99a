"""How many folds share a GPU: as many as the memory allows that the first trial of an architecture was seen to take."""

import logging
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.core.params import Params
from hms_ray.training.jobs import FoldResult, FoldStopped
from hms_ray.training.run_config import RunConfig

log = logging.getLogger(__name__)
MOST = 8  # folds on one GPU
SMALLEST = 1 / MOST  # share of a GPU
MARGIN = 1.15  # of the next trial over the one that was measured: its augmentation and its dropout are its own
CONTEXT_BYTES = 600_000_000  # CUDA's own in each process, which torch does not count
USABLE = 0.9  # of the device, since blocks of several processes do not fit together without gaps


class _Seen(Params):
    """What is known of an architecture on a GPU: the most that a fold took, the device's size, and folds at most."""

    peak_bytes: int = Field(ge=0)
    device_bytes: int = Field(gt=0)
    most: int = Field(MOST, ge=1, le=MOST)

    @property
    def packed(self) -> int:
        """Folds that share a device."""
        each = self.peak_bytes * MARGIN + CONTEXT_BYTES
        return max(1, min(self.most, int(USABLE * self.device_bytes / each)))


class GpuPacking:
    """The share of a GPU that a fold of each architecture takes, kept in a JSON file so that it outlives the driver.

    A file that is damaged is as none at all: what it held is measured again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = _read(path)

    def share(self, run: RunConfig) -> float:
        """Return 1 / (folds on one GPU); 1.0, a GPU of its own, while the architecture is not measured."""
        seen = self.seen.get(architecture(run))
        return 1 / seen.packed if seen else 1.0

    def add(self, run: RunConfig, peak_bytes: int, device_bytes: int) -> None:
        """Take note of what a fold took of its device; of several measurements the most cautious counts."""
        if not device_bytes:
            return  # it was trained on a CPU
        key = architecture(run)
        old = self.seen.get(key) or _Seen(peak_bytes=peak_bytes, device_bytes=device_bytes)
        most = {"peak_bytes": max(peak_bytes, old.peak_bytes), "device_bytes": min(device_bytes, old.device_bytes)}
        self._write(key, old.model_copy(update=most))

    def learn(self, run: RunConfig, share: float, result: FoldResult | FoldStopped) -> None:
        """Take what a fold with that share of a GPU has shown."""
        if result.out_of_memory:
            self.halve(run, share)
        else:
            self.add(run, result.peak_gpu_bytes, result.gpu_bytes)

    def halve(self, run: RunConfig, share: float) -> None:
        """Let half as many folds share a GPU as when a fold with that share ran out of memory.

        Half of what it had, not of what is set: several that fail together halve once.
        """
        key = architecture(run)
        if old := self.seen.get(key):
            self._write(key, old.model_copy(update={"most": min(old.most, max(1, round(1 / share) // 2))}))

    def _write(self, key: str, seen: _Seen) -> None:
        if self.seen.get(key) != seen:
            self.seen[key] = seen
            files.write_json(self.path, {name: item.model_dump() for name, item in self.seen.items()})


def architecture(run: RunConfig) -> str:
    """Name what decides about a run's memory: the sizes of network, input and batch, and the optimiser's state.

    A model's fractions are left out: they are rates of dropout, and a search draws another one for each trial.
    """
    shape = "x".join(map(str, run.feature.module.spec(run.feature.params).shape))
    sizes = [f"{k}={v}" for k, v in run.model.params.model_dump().items() if not isinstance(v, float)]
    return f"{' '.join([run.model.name, *sizes])}, {run.feature.name} {shape}, {run.optim.name} batch {run.optim.batch}"


def _read(path: Path) -> dict[str, _Seen]:
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, _Seen]).validate_python(files.read_json(path))
    except (DataError, ValidationError) as error:
        log.warning("%s is damaged, so memory is measured again: %s", path, str(error).splitlines()[0])
        return {}
