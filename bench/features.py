"""Features and what training reads, against the notebooks' ways, side by side: ratios of medians, each with its goal.

mel       the EEG's spectrogram against librosa pair by pair; differences from librosa and SciPy
read      prepared windows against reading a parquet file for each
prepare   making a store against only reading the same files
input     gathered and augmented batches against a dataset with a loader
pipeline  training against the bare steps of the network on one batch
memory    the peak of preparing so many recordings, and four times as many

Timings of two threads mean nothing while others use the processor: threads wait for each other. What trains keeps the
memory that it frees (`hms_ray.core.allocator`), here nobody does, unless both MALLOC_MMAP_THRESHOLD_ and
MALLOC_TRIM_THRESHOLD_ are 1073741824: then all do.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import _mel, _preparing, _reading, _training
from bench._place import Place, environment
from hms_ray.core import hints
from hms_ray.core.errors import ConfigError
from hms_ray.simulate import simulate
from hms_ray.store.workers import torch_threads

PARTS: dict[str, Callable[[Place], Iterator[str]]] = {
    "mel": _mel.mel,
    "read": _reading.reading,
    "prepare": _preparing.preparing,
    "input": _training.batches,
    "pipeline": _training.pipeline,
    "memory": _preparing.memory,
}


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the lines of each part."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as scratch, environment(Path(scratch) / "cache"), torch_threads(options.threads):
        root = Path(scratch)
        if options.data is None:
            simulate(root / "simulated", eegs=options.simulate, patients=max(6, options.simulate // 2))
        place = Place(root, options.data or root / "simulated", options)
        yield (
            f"{'simulated' if options.data is None else options.data}: {options.eegs} EEGs, {options.rounds} rounds in "
            f"turns, ratios of medians, {options.threads} torch threads"
        )
        for part in options.part:
            yield part
            yield from PARTS[part](place)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench features", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the competition's folder; else recordings are simulated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", default=",".join(PARTS), help="some of the parts, with commas")
    parser.add_argument("--eegs", type=int, default=192, help="recordings, the data's over and over under new ids")
    parser.add_argument("--simulate", type=int, default=24, metavar="EEGS", help="recordings to simulate without data")
    parser.add_argument("--batch", type=int, default=32, help="windows or images at once")
    parser.add_argument("--steps", type=int, default=4, help="training steps a round")
    parser.add_argument("--passes", type=int, default=10, help="over the units, a round, of what is fast")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    options = parser.parse_args(arguments)
    options.part = options.part.split(",")
    for part in options.part:
        if part not in PARTS:
            raise ConfigError(hints.unknown("part", part, PARTS))
    return options
