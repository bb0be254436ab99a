"""Making stores beside reading the files that they are made of, and the memory that making them takes."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench._place import Place, environment, feature_ref, silent
from bench._timing import side_by_side
from bench._words import per_second, ratio
from hms_ray import registry
from hms_ray.core.recordings import KINDS
from hms_ray.datasets import Dataset, cut, hms
from hms_ray.store import workers
from hms_ray.store.prepare import InputParams, prepare, prepare_all

FEATURES = {"eeg": "eeg_spectrogram", "spectrogram": "kaggle_spectrogram"}  # what is made of each kind of recording
PAIR = ("kaggle_spectrogram", "global_stats")  # of the same recordings, as effnet has them
GOAL = "at most 1.5"
PEAKS = {"recordings": "batch", "eeg_spectrogram": "prepared"}  # whose peak is measured, and input.compute for it
TELL = "import sys; from bench._preparing import prepare_and_tell; prepare_and_tell(*sys.argv[1:])"


@dataclass(frozen=True)
class _Ways:
    """Ways to go through the recordings of one kind; each returns how many there are.

    caches: the folder that every preparing has an empty cache in
    """

    dataset: Dataset
    kind: str
    feature: str
    caches: Path

    def read(self) -> int:
        """Read each recording as preparing does."""
        return self._in_threads(lambda name: len(self.dataset.read(self.kind, name)))

    def read_by_pandas(self) -> int:
        """Read each file as notebooks do."""
        return self._in_threads(lambda name: len(pd.read_parquet(self.dataset.path(self.kind, name))))

    def read_and_compute(self) -> int:
        """Read each recording and compute the feature of its units."""
        return self._in_threads(self._compute)

    def keep(self) -> int:
        """Make the store of the recordings."""
        return self._prepare("batch")

    def prepare(self) -> int:
        """Make the store of the feature."""
        return self._prepare("prepared")

    def clear(self) -> None:
        """Remove the stores that were made."""
        shutil.rmtree(self.caches, ignore_errors=True)

    def forget(self) -> None:
        """Let the system drop the files from its page cache.

        It drops only what is on the disk: all is written first, also what would be written while others read.
        """
        os.sync()
        for name in self.dataset.files(self.kind):
            with open(self.dataset.path(self.kind, name), "rb") as file:  # of a link, what it leads to
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _in_threads(self, work: Callable[[str], int]) -> int:
        """Do the work for each recording, with as many threads as preparing has, each with one of torch's."""
        return sum(result > 0 for result in workers.Threads().imap(work, self.dataset.files(self.kind)))

    def _compute(self, name: str) -> int:
        module, windows = registry.load("features", self.feature), self.dataset.windows[self.kind]
        recording, starts = self.dataset.read(self.kind, name), windows.middle_s[windows.names == name]
        batch = torch.from_numpy(np.stack([cut(recording, KINDS[self.kind], start) for start in starts]))
        with torch.inference_mode():
            return len(module.compute({self.kind: batch}, module.Params()))

    def _prepare(self, compute: str) -> int:
        """Prepare into an empty cache, the files' footers read anew."""
        self.caches.mkdir(exist_ok=True)
        with environment(Path(tempfile.mkdtemp(dir=self.caches))):
            dataset, params = replace(self.dataset, _lengths={}), InputParams(compute=compute)
            prepare(dataset, feature_ref(self.feature), params, silent)
        return len(self.dataset.files(self.kind))


def preparing(place: Place) -> Iterator[str]:
    """Compare making stores in a fresh cache with reading the files, and with computing besides."""
    caches = place.root / "fresh"
    yield from _together(place, caches)
    for kind, feature in FEATURES.items():
        yield from _from_memory(place, _Ways(place.dataset(), kind, feature, caches))
    for kind, feature in FEATURES.items():
        yield from _from_disk(place.options.rounds, _Ways(place.dataset(different=True), kind, feature, caches))


def _together(place: Place, caches: Path) -> Iterator[str]:
    """Compare making two stores of the same recordings with making either alone, by the clock and by the processor."""
    dataset = place.dataset()

    def made(*features: str) -> int:
        caches.mkdir(exist_ok=True)
        wanted = [(feature_ref(feature), InputParams()) for feature in features]
        with environment(Path(tempfile.mkdtemp(dir=caches))):
            prepare_all(replace(dataset, _lengths={}), wanted, silent)
        shutil.rmtree(caches)
        return len(dataset.files("spectrogram"))

    seconds, cpu = ({names: [] for names in (*((name,) for name in PAIR), PAIR)} for _ in range(2))
    made(*PAIR)
    for _ in range(place.options.rounds):
        for names in seconds:
            wall, processor = time.perf_counter(), time.process_time()
            count = made(*names)
            seconds[names].append(time.perf_counter() - wall)
            cpu[names].append(time.process_time() - processor)
    for measured, what in ((seconds, "time"), (cpu, "processor time")):
        median = {names: statistics.median(each) for names, each in measured.items()}
        slower = max((median[(name,)], name) for name in PAIR)
        spent = ", ".join(f"{' + '.join(names)} {each:.2f} s" for names, each in median.items())
        yield f"  {count} spectrogram files, {what}: {spent}"
        yield ratio(f"preparing {' + '.join(PAIR)}, {what} / {slower[1]}", median[PAIR] / slower[0], "at most 1.25")


def _from_memory(place: Place, ways: _Ways) -> Iterator[str]:
    """Compare what is made of one kind of recording; the files are in the page cache."""
    rates = place.rates(
        {
            "reading": ways.read,
            "reading by pandas": ways.read_by_pandas,
            "reading and computing": ways.read_and_compute,
            "recordings": ways.keep,
            ways.feature: ways.prepare,
        }
    )
    ways.clear()
    files, units = len(ways.dataset.files(ways.kind)), len(ways.dataset.units)
    yield (
        f"  {files} {ways.kind} files of {units} windows, in the page cache, {workers.THREADS} threads: "
        + per_second(rates, "files")
    )
    for store, label in (("recordings", f"recordings: {ways.kind}"), (ways.feature, ways.feature)):
        yield ratio(f"preparing {label} / reading the files", rates["reading"] / rates[store], GOAL)
        yield ratio(f"preparing {label} / reading them by pandas", rates["reading by pandas"] / rates[store])
    besides = rates["reading and computing"] / rates[ways.feature]
    yield ratio(f"preparing {ways.feature} / reading the files and computing", besides)


def _from_disk(rounds: int, ways: _Ways) -> Iterator[str]:
    """Compare keeping one kind of recording with reading the files; they are in no page cache."""
    methods = {"reading": ways.read, "recordings": ways.keep}
    seconds = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            ways.clear()
            ways.forget()
            seconds[name].append(side_by_side({name: method}, 1)[name][0])
    ways.clear()
    median = {name: statistics.median(each) for name, each in seconds.items()}
    files = len(ways.dataset.files(ways.kind))
    rates = {name: files / each for name, each in median.items()}
    yield f"  {files} {ways.kind} files, out of the page cache: {per_second(rates, 'files')}"
    name = f"preparing recordings: {ways.kind} / reading the files, out of the page cache"
    yield ratio(name, median["recordings"] / median["reading"], GOAL)


def memory(place: Place) -> Iterator[str]:
    """Compare the peaks of two processes that prepare, one of them four times as many recordings."""
    for name, compute in PEAKS.items():
        few, many = (_peak(place, place.folder(n), compute) for n in (place.options.eegs, 4 * place.options.eegs))
        yield (
            f"  preparing {name}: peak of {place.options.eegs} EEGs {few:.0f} MB, of {4 * place.options.eegs} "
            f"{many:.0f} MB, {many - few:+.0f} MB (goal: no more)"
        )


def _peak(place: Place, folder: Path, compute: str) -> float:
    """Return the peak of a process of its own in MB."""
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    cache = place.root / "peak"
    variables = {"HMS_RAY_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", TELL, str(folder), "eeg_spectrogram", compute]
    told = subprocess.run(command, env=os.environ | variables, check=True, stdout=subprocess.PIPE, text=True).stdout
    shutil.rmtree(cache)
    return float(told)


def prepare_and_tell(folder: str, feature: str, compute: str) -> None:
    """Prepare what a run reads and print this process's peak of resident memory in MB.

    It is the kernel's own count of this program; getrusage's begins at what the parent had when it started this one.
    """
    prepare(hms.load(Path(folder), hms.Params()), feature_ref(feature), InputParams(compute=compute), silent)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024)
