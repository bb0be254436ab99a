"""Features and what training reads, against the notebooks' ways, side by side: ratios of medians, each with its goal.

mel       the EEG's spectrogram against librosa pair by pair; differences from librosa and SciPy
read      prepared windows against reading a parquet file for each
prepare   making a store against only reading the same files
input     gathered and augmented batches against a dataset with a loader
pipeline  training against the bare steps of the network on one batch
memory    the peak of preparing so many recordings, and four times as many

Timings of two threads mean nothing while others use the processor: threads wait for each other. Workers of a search run
with MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ at 1073741824 (glibc keeps memory); set both to time as they run.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader

from bench import _notebook
from bench._timing import side_by_side
from hms_ray import lookup
from hms_ray.augment._compose import Batch, apply_all
from hms_ray.datasets import Dataset, hms
from hms_ray.datasets._table import first_step
from hms_ray.errors import ConfigError
from hms_ray.features import _filterbank, _montage, eeg_cwt, eeg_spectrogram, raw_eeg
from hms_ray.models import timm_image
from hms_ray.params import Params
from hms_ray.recordings import EEG, SPECTROGRAM
from hms_ray.simulate import simulate
from hms_ray.store import workers
from hms_ray.store.inputs import Inputs, memory_format, open_inputs
from hms_ray.store.prepare import FeatureRef, InputParams, prepare
from hms_ray.tasks import Task
from hms_ray.training import optim
from hms_ray.training.batches import Epochs, TrainingData
from hms_ray.training.evaluate import autocast
from hms_ray.training.loop import Recipe, _Learner
from hms_ray.training.stages import Stage
from hms_ray.training.team import Replica

PARTS = ("mel", "read", "prepare", "input", "pipeline", "memory")
COMPARED = 4  # windows whose numbers are compared with SciPy's
SCALOGRAM = eeg_cwt.Params(arrange="channels")  # of the first of them
STORES = {"recordings": "batch", "eeg_spectrogram": "prepared"}  # what is prepared, and input.compute for it
PASSES = 10  # over the units for what is fast
ARCH = "mobilenetv3_small_050"
STAGE = Stage(epochs=1000, lr=1e-3)
AUGMENT = tuple(
    (lookup.load("augment", name), lookup.load("augment", name).Params(p=0.5))
    for name in ("mirror_sides", "xy_mask", "mixup")
)
NO_LIBROSA = (
    "  librosa is not installed and its lines are left out: pip install --no-deps --target DIR librosa audioread "
    "decorator lazy_loader llvmlite msgpack numba platformdirs pooch soundfile soxr, then set PYTHONPATH=DIR"
)
PEAK = "import sys; from bench.features import prepare_and_tell; prepare_and_tell(*sys.argv[1:])"


@dataclass(frozen=True)
class Place:
    """What every part works with: a folder of its own, recordings, and how often and how much."""

    root: Path
    data: Path
    options: argparse.Namespace

    def folder(self, eegs: int) -> Path:
        """Return a competition folder of so many EEGs, made unless it is there."""
        path = self.root / f"data_{eegs}"
        return path if path.exists() else linked(self.data, path, eegs)

    def dataset(self) -> Dataset:
        """Read the tables of the recordings that the parts share."""
        return hms.load(self.folder(self.options.eegs), hms.Params())

    def inputs(self, dataset: Dataset, feature: str, compute: str = "prepared") -> Inputs:
        """Prepare a feature with its defaults and open it."""
        ref, params = _feature(feature), InputParams(compute=compute)
        return open_inputs(prepare(dataset, ref, params, _silent), ref, params, dataset.windows)

    def rates(self, candidates: Mapping[str, Callable[[], int]]) -> dict[str, float]:
        """Return how many a second each does, after one run that is not counted."""
        for candidate in candidates.values():
            candidate()
        timed = side_by_side(candidates, self.options.rounds)
        return {name: count / seconds for name, (seconds, count) in timed.items()}


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the lines of each part."""
    options = _options(arguments)
    with (
        tempfile.TemporaryDirectory() as scratch,
        _environment(Path(scratch) / "cache"),
        _torch_threads(options.threads),
    ):
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
            yield from globals()[f"_{part}"](place)


def linked(data: Path, out: Path, eegs: int) -> Path:
    """Make a folder of so many EEGs: links to those of another, over and over under new ids; return it."""
    table = pd.read_csv(data / "train.csv")
    known, rows = [mine for _, mine in table.groupby("eeg_id")], []
    for kind in ("eeg", "spectrogram"):
        (out / f"train_{kind}s").mkdir(parents=True)
    for new in range(eegs):
        mine = known[new % len(known)]
        for kind in ("eeg", "spectrogram"):
            original = data / f"train_{kind}s" / f"{mine[f'{kind}_id'].iat[0]}.parquet"
            (out / f"train_{kind}s" / f"{new}.parquet").symlink_to(original.resolve())
        rows.append(mine.assign(eeg_id=new, spectrogram_id=new))
    pd.concat(rows).to_csv(out / "train.csv", index=False)
    return out


def prepare_and_tell(folder: str, feature: str, compute: str) -> None:
    """Prepare what a run reads and print this process's peak of resident memory in MB.

    It is the kernel's own count of this program; getrusage's begins at what the parent had when it started this one.
    """
    prepare(hms.load(Path(folder), hms.Params()), _feature(feature), InputParams(compute=compute), _silent)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024)


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
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    options = parser.parse_args(arguments)
    options.part = options.part.split(",")
    for part in options.part:
        if part not in PARTS:
            raise ConfigError(lookup.unknown("part", part, PARTS))
    return options


def _mel(place: Place) -> Iterator[str]:
    """Compare one feature's speed with librosa's, and all EEG features' numbers with librosa's and SciPy's."""
    dataset = place.dataset()
    units = np.resize(np.arange(len(dataset.units)), place.options.batch)
    eeg = torch.from_numpy(np.stack([dataset.window("eeg", i) for i in units]))
    if _has_librosa():
        yield from _against_librosa(place, eeg)
    else:
        yield NO_LIBROSA
    few = eeg[:COMPARED]
    yield f"  stft bank from scipy's ShortTimeFFT, of the density: {_differs(_stft_difference(few))}"
    yield f"  eeg_cwt from convolution in time, of the amplitude: {_differs(_cwt_difference(few[:1]))}"
    yield f"  raw_eeg from scipy's sosfiltfilt, of the channel's deviation: {_differs(_filter_difference(few))}"


def _has_librosa() -> bool:
    return importlib.util.find_spec("librosa") is not None


def _against_librosa(place: Place, eeg: torch.Tensor) -> Iterator[str]:
    params, filters = eeg_spectrogram.Params(), torch.from_numpy(_notebook.librosa_filters())
    methods = {
        "ours": lambda: eeg_spectrogram.compute({"eeg": eeg}, params)[:, 0],
        "librosa": lambda: torch.from_numpy(np.stack([_notebook.librosa_image(window) for window in eeg.numpy()])),
        "torch.stft": lambda: _notebook.torch_stft_images(
            _montage.fill_gaps(_montage.apply(eeg, "banana_16")), filters
        ),
    }
    rates = place.rates({name: partial(_count, method) for name, method in methods.items()})
    images = {name: method().numpy() for name, method in methods.items()}
    yield f"  {len(eeg)} windows a batch: {_per_second(rates, 'windows')}"
    yield _ratio("librosa's loop / eeg_spectrogram", rates["ours"] / rates["librosa"], "at least 12")
    yield _ratio("batched torch.stft / eeg_spectrogram", rates["ours"] / rates["torch.stft"])
    for name in ("ours", "torch.stft"):
        difference = np.abs(images[name] - images["librosa"])
        goal = " (goal: 99.9 % below 1e-3)" if name == "ours" else ""
        yield f"  {name} from librosa, in the image: {_differs(difference)}{goal}"
    yield f"  the bank from librosa's, of its largest weight: at most {_bank_difference(filters.numpy()):.1e}"


def _bank_difference(filters: np.ndarray) -> float:
    """Return the largest difference of the bank's weights from filters (rows, bins from 0 Hz on)."""
    p = eeg_spectrogram.Params()
    bank = _filterbank.Bank(p.bank, EEG.rate_hz, p.n_fft, p.window, p.n_bins, p.low_hz, p.high_hz)
    ours = np.zeros_like(filters)
    ours[:, : len(bank.bins_hz)] = bank.weights
    return float(np.abs(ours - filters).max() / filters.max())


def _stft_difference(eeg: torch.Tensor) -> np.ndarray:
    p = eeg_spectrogram.Params(bank="stft", montage="banana_16", amplitude="log1p", arrange="channels")
    ours = np.expm1(4 * eeg_spectrogram.compute({"eeg": eeg}, p).double().numpy())
    theirs = _notebook.scipy_density(_pairs(eeg, "banana_16"), EEG.steps // p.frames, p.frames)
    return _relative(ours, theirs)


def _cwt_difference(eeg: torch.Tensor) -> np.ndarray:
    ours = np.expm1(2 * eeg_cwt.compute({"eeg": eeg}, SCALOGRAM).double().numpy())
    theirs = np.stack([_notebook.morlet_amplitude(waves, SCALOGRAM) for waves in _pairs(eeg, SCALOGRAM.montage)])
    return _relative(ours, theirs)


def _filter_difference(eeg: torch.Tensor) -> np.ndarray:
    p = raw_eeg.Params()
    ours = p.scale_uv * raw_eeg.compute({"eeg": eeg}, p).double().numpy()
    clipped = _pairs(eeg, p.montage).clip(-p.clip_uv, p.clip_uv)
    theirs = _notebook.sosfiltfilt(clipped, p.low_hz, p.high_hz, raw_eeg.PAD)
    return np.abs(ours - theirs) / (theirs.std(-1, keepdims=True) + 1e-6)


def _pairs(eeg: torch.Tensor, montage: str) -> np.ndarray:
    """Return the pairs' waves (B, P, T) in float64, gaps filled."""
    return np.apply_along_axis(_notebook.filled, -1, _montage.apply(eeg, montage).double().numpy())


def _relative(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the difference of positive values relative to theirs; a millionth of the unit counts as 0."""
    return np.abs(ours - theirs) / (theirs + 1e-6)


def _read(place: Place) -> Iterator[str]:
    """Compare reading what is prepared with reading files, warm, all units in random order."""
    dataset = place.dataset()
    image, spectrogram = (place.inputs(dataset, name) for name in ("eeg_spectrogram", "kaggle_spectrogram"))
    kept = place.inputs(dataset, "eeg_spectrogram", "batch").kept["eeg"]
    order = np.random.default_rng(0).permutation(len(dataset.units))
    batches, cpu = np.array_split(order, -(-len(order) // place.options.batch)), torch.device("cpu")

    def whole(read: Callable[[np.ndarray], torch.Tensor]) -> Callable[[], int]:
        return lambda: sum(len(read(rows)) for _ in range(PASSES) for rows in batches)

    def files(kind: str, read: Callable[[Path, float], np.ndarray]) -> Callable[[], int]:
        windows = dataset.windows[kind]
        return lambda: sum(len(read(dataset.path(kind, windows.names[i]), windows.middle_s[i])) > 0 for i in order)

    rates = place.rates(
        {
            "EEG by pandas": files("eeg", _notebook.read_eeg),
            "EEG by pyarrow": files("eeg", _notebook.read_eeg_columns),
            "image as kept": whole(lambda rows: image.x[torch.from_numpy(rows)]),
            "image in float32": whole(lambda rows: image.batch(rows, cpu)),
            "EEG window in float32": whole(lambda rows: kept.batch(rows, kept.windows.middle_s[rows], cpu)),
            "spectrogram by pandas": files("spectrogram", _notebook.read_spectrogram),
            "spectrogram as kept": whole(lambda rows: spectrogram.x[torch.from_numpy(rows)]),
            "spectrogram in float32": whole(lambda rows: spectrogram.batch(rows, cpu)),
        }
    )
    yield (
        f"  {len(order)} windows in random order, files and stores in the page cache; prepared ones {len(batches[0])} "
        f"at a time, from stores of {_mb(image.nbytes)} (image), {_mb(kept.values.nbytes)} (EEG) and "
        f"{_mb(spectrogram.nbytes)} (spectrogram), float16"
    )
    yield f"  {_per_second(rates, 'windows')}"
    for store in ("image as kept", "image in float32", "EEG window in float32"):
        goal = "at least 100" if store == "image as kept" else None
        yield _ratio(f"pd.read_parquet of the EEG / {store}", rates[store] / rates["EEG by pandas"], goal)
        yield _ratio(f"pyarrow, 19 columns of the EEG / {store}", rates[store] / rates["EEG by pyarrow"])
    for store in ("spectrogram as kept", "spectrogram in float32"):
        goal = "at least 100" if store == "spectrogram as kept" else None
        name = f"pd.read_parquet of the spectrogram / {store}"
        yield _ratio(name, rates[store] / rates["spectrogram by pandas"], goal)


def _prepare(place: Place) -> Iterator[str]:
    """Compare making stores in a fresh cache with reading the files, and with computing besides."""
    dataset = place.dataset()
    methods = {
        "reading": lambda: _in_threads(dataset, lambda name: len(dataset.read("eeg", name))),
        "reading and computing": lambda: _in_threads(dataset, partial(_features_of, dataset)),
    } | {store: partial(_prepare_afresh, place, dataset, compute) for store, compute in STORES.items()}
    rates = place.rates(methods)
    count, units = len(dataset.files("eeg")), len(dataset.units)
    yield f"  {count} EEGs with {units} windows, in the page cache, {workers.THREADS} threads: " + _per_second(
        rates, "EEGs"
    )
    for store in STORES:
        yield _ratio(f"preparing {store} / reading the files", rates["reading"] / rates[store], "at most 1.5")
    besides = rates["reading and computing"] / rates["eeg_spectrogram"]
    yield _ratio("preparing eeg_spectrogram / reading the files and computing", besides)


def _in_threads(dataset: Dataset, work: Callable[[str], int]) -> int:
    """Do the work for each EEG, with as many threads as preparing has, each with one of torch's."""
    with _torch_threads(1), ThreadPoolExecutor(workers.THREADS) as pool:
        return sum(result > 0 for result in pool.map(work, dataset.files("eeg")))


def _features_of(dataset: Dataset, name: str) -> int:
    """Read an EEG and compute the images of its units."""
    recording, windows = torch.from_numpy(dataset.read("eeg", name)), dataset.windows["eeg"]
    first = first_step(EEG, windows.middle_s[windows.names == name])
    batch = torch.stack([recording[:, start : start + EEG.steps] for start in first.tolist()])
    with torch.inference_mode():
        return len(eeg_spectrogram.compute({"eeg": batch}, eeg_spectrogram.Params()))


def _prepare_afresh(place: Place, dataset: Dataset, compute: str) -> int:
    """Prepare into an empty cache, the files' footers read anew; return the number of EEGs."""
    cache = place.root / "fresh"
    with _environment(cache):
        prepare(replace(dataset, _lengths={}), _feature("eeg_spectrogram"), InputParams(compute=compute), _silent)
    shutil.rmtree(cache)
    return len(dataset.files("eeg"))


def _input(place: Place) -> Iterator[str]:
    """Compare batches as training takes them with those of a loader; only ours are mixed up as well."""
    dataset = place.dataset()
    epochs = _epochs(place, dataset)
    images = _images(dataset)
    loaders = {
        n: DataLoader(images, place.options.batch, True, num_workers=n, persistent_workers=n > 0) for n in (0, 2)
    }
    rng = np.random.default_rng(0)

    def ours() -> int:
        return sum(len(apply_all(batch, rng, AUGMENT).x) for _ in range(PASSES) for batch in epochs.batches(rng, rng))

    def theirs(loader: DataLoader) -> int:
        return sum(len(x) for x, _ in loader)

    rates = place.rates({"ours": ours} | {f"{n} workers": partial(theirs, loader) for n, loader in loaders.items()})
    yield f"  {len(images)} images of 400 x 300, {place.options.batch} a batch: {_per_second(rates, 'images')}"
    for n in loaders:
        goal = "at least 7" if n == 0 else None
        yield _ratio(
            f"dataset and loader, {n} workers / gathered and augmented", rates["ours"] / rates[f"{n} workers"], goal
        )


def _images(dataset: Dataset) -> _notebook.Images:
    """Hold every spectrogram in memory as notebooks do, its columns in the order of the regions."""
    windows = dataset.windows["spectrogram"]
    held = {name: np.ascontiguousarray(dataset.read("spectrogram", name).T) for name in dataset.files("spectrogram")}
    return _notebook.Images(held, windows.names, first_step(SPECTROGRAM, windows.middle_s), dataset.targets)


def _epochs(place: Place, dataset: Dataset) -> Epochs:
    data = _training_data(place, dataset)
    rows = np.arange(len(dataset.units))
    return Epochs(data, rows, data.targets, data.trust, place.options.batch, torch.device("cpu"))


def _training_data(place: Place, dataset: Dataset) -> TrainingData:
    inputs, votes = place.inputs(dataset, "kaggle_spectrogram"), dataset.units["votes"].to_numpy()
    return TrainingData(inputs, dataset.targets, votes, np.zeros(len(votes)), np.ones(len(votes)), dataset.task)


def _pipeline(place: Place) -> Iterator[str]:
    """Compare epochs as folds are trained with as many steps of the same network on one batch, on each device."""
    data = _training_data(place, place.dataset())
    for device in ["cpu", *["cuda"] * torch.cuda.is_available()]:
        learner = _learner(data, torch.device(device), place.options)
        bare = _Bare(learner, next(learner.epochs.batches(*np.random.default_rng(0).spawn(2))))
        rates = place.rates({"ours": partial(_epoch, learner), "bare": partial(bare, place.options.steps)})
        yield f"  {ARCH}, {tuple(data.inputs.spec.shape)}, {device}: {_per_second(rates, 'images')}"
        yield _ratio(f"training / bare steps, {device}", rates["bare"] / rates["ours"], "at most 1.05")


def _learner(data: TrainingData, device: torch.device, options: argparse.Namespace) -> _Learner:
    """Return what trains a fold, its epochs of so many batches, all full."""
    network = timm_image.Params(arch=ARCH, pretrained=False)
    build = partial(timm_image.build, data.inputs.spec, len(data.task.classes), network)
    recipe = Recipe(build, AUGMENT, optim.Params(batch=options.batch), (STAGE,), 1, (), 0, "bench")
    learner = _Learner(recipe, data.to(device), -1, Replica(device))
    learner.begin(STAGE, 0)
    learner.epochs = replace(learner.epochs, rows=np.resize(learner.train, options.batch * options.steps))
    return learner


def _epoch(learner: _Learner) -> int:
    """Train an epoch and return its images."""
    learner.epoch(learner.step // learner.epochs.steps)
    return len(learner.epochs.rows)


class _Bare:
    """The steps of another network of the same kind, written out, always on the same batch."""

    def __init__(self, learner: _Learner, batch: Batch) -> None:
        self.device, self.batch, self.settings = learner.replica.device, batch, learner.recipe.optim
        self.task: Task = learner.data.task
        self.network = learner.recipe.build().to(self.device, memory_format=memory_format(4)).train()
        self.average = ModelEmaV3(self.network, decay=self.settings.ema, use_warmup=True)
        self.optimizer = optim.optimizer(self.network, self.settings, STAGE)

    def __call__(self, steps: int) -> int:
        """Take so many steps and return the images that went through."""
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            with autocast(self.device):
                logits = self.network(self.batch.x)
            loss = self.task.loss(logits, self.batch.y).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_grad)
            self.optimizer.step()
            self.average.update(self.network, step=1)
        loss.item()  # waits for the device
        return steps * len(self.batch.x)


def _memory(place: Place) -> Iterator[str]:
    """Compare the peaks of two processes that prepare, one of them four times as many recordings."""
    for name, compute in STORES.items():
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
    command = [sys.executable, "-c", PEAK, str(folder), "eeg_spectrogram", compute]
    told = subprocess.run(command, env=os.environ | variables, check=True, stdout=subprocess.PIPE, text=True).stdout
    shutil.rmtree(cache)
    return float(told)


@contextmanager
def _environment(cache: Path) -> Iterator[None]:
    """Let stores lie in that folder meanwhile, and nowhere else."""
    names = ("HMS_RAY_CACHE", "HMS_RAY_STORE")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ["HMS_RAY_CACHE"] = str(cache)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _feature(name: str) -> FeatureRef:
    params: Params = lookup.load("features", name).Params()
    return FeatureRef(name, params)


def _silent(label: str) -> Callable[[int, int], None]:
    return lambda done, total: None


def _count(method: Callable[[], Any]) -> int:
    return len(method())


def _ratio(name: str, value: float, goal: str | None = None) -> str:
    return f"  {name}: {value:.2f}" + (f" (goal: {goal})" if goal else "")


def _per_second(rates: Mapping[str, float], what: str) -> str:
    return f"{what}/s: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())


def _differs(difference: np.ndarray) -> str:
    return f"99.9 % differ by at most {np.percentile(difference, 99.9):.1e}, all by at most {difference.max():.1e}"


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
