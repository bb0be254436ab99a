"""Spoils inputs and sees that each ends in success or in one sentence, soon.

What is called is what the command line calls before work starts. A mutant is named by seed, kind and number, and made
again from these alone.
"""

import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, ClassVar

import numpy as np
import optuna
import pandas as pd
import yaml

from hms_ray import simulate
from hms_ray.core.errors import LISTED, UserError
from hms_ray.ensemble import fit_study
from hms_ray.oof_import import import_foreign
from hms_ray.search.open_study import load_dataset, open_study
from hms_ray.search.space import space
from hms_ray.search.space.settings import SETTINGS
from hms_ray.search.space.space import Space, Union
from hms_ray.study import folds
from hms_ray.study.folder import StudyFolder
from hms_ray.training.run_config import try_run
from tests.fuzz import mutate

SECONDS = 5  # of processor time: a loaded machine is no fault of ours
WALL = 120
LINE = 1500  # characters of a line that is still read
CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
CHEAP = {"hms": ("demo", "front_end", "effnet", "raw_image"), "hearts": ("heart_cnn", "heart_probe")}  # networks


class Hang(BaseException):
    """A mutant took longer than it may; no `except Exception` takes it for something else."""


@dataclass
class Found:
    """What became of the mutants: how many ended how, and the faults, each with the name of its mutant."""

    ended: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


def fuzz(folder: Path, kind: str, numbers: range, seed: int, say: Callable[[str], None] = lambda _: None) -> Found:
    """Make those mutants of a kind in an empty folder and use each."""
    found, bed = Found(), Bed(folder)
    bed.warm()
    for number in numbers:
        name = f"seed {seed}, {kind} {number}"
        scratch = folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        use = KINDS[kind](bed, scratch, Random(f"{seed}/{kind}/{number}"))
        start = time.process_time()
        ended, fault = outcome(use)
        found.slowest = max(found.slowest, (time.process_time() - start, name))
        found.ended[ended] += 1
        if fault:
            found.faults.append(f"{name}: {fault}")
            say(found.faults[-1])
    return found


def outcome(use: Callable[[], object]) -> tuple[str, str]:
    """Return how a call ended ("done", "refused", "hang", "traceback", "wordy") and what is wrong with that."""
    try:
        with deadline(), quiet():
            use()
    except UserError as error:
        if wordy := _wordy(str(error)):
            return "wordy", wordy
        return "refused", ""
    except Hang as error:
        return "hang", _told(error)
    except Exception as error:  # the very thing that is looked for
        if isinstance(error, OSError) and error.filename is not None:
            return "refused", ""  # the command line says which file and why
        return "traceback", _told(error)
    return "done", ""


def _wordy(message: str) -> str:
    """Say what keeps a message from being a sentence that one reads."""
    lines = message.splitlines()
    if not message.strip() or len(lines) > LISTED + 2:
        return f"{len(lines)} lines: {message[:200]}"
    if longest := [line for line in lines if len(line) > LINE]:
        return f"a line of {len(longest[0])} characters: {longest[0][:300]} ..."
    if any(line.startswith("Traceback") or "For further information visit" in line for line in lines):
        return f"no words of ours: {message[:300]}"
    return ""


def _told(error: BaseException) -> str:
    frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    ours = [frame for frame in frames if not frame.startswith("fuzzer.py")]
    return f"{type(error).__name__}: {str(error)[:200]!r} at {' < '.join(reversed(ours[-6:]))}"


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    """Raise Hang after SECONDS of processor time, or after WALL seconds of sleep."""

    def ring(*_: int | FrameType | None) -> None:
        raise Hang

    before = [(number, signal.signal(number, ring)) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WALL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what is logged, warned and printed to itself."""
    logging.disable(logging.CRITICAL)
    try:
        out = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class Bed:
    """Sound inputs, made once in a folder: the shipped spaces, two folders of data, and tables of predictions."""

    is_warm: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts = {path.stem: path.read_text() for path in sorted(Path("search_spaces").glob("*.yaml"))}
        self.trees = {name: yaml.safe_load(text) for name, text in self.texts.items()}
        self.hms, self.hearts = folder / "hms", folder / "hearts"
        if not self.hms.is_dir():
            simulate.simulate(self.hms, 6, 6, 0)
            simulate.simulate_hearts(self.hearts, 8, 0, seconds=2)

    def warm(self) -> None:
        """Import what a first use imports, which is no fault of the mutant that comes first."""
        if Bed.is_warm:
            return
        Bed.is_warm = True
        shutil.rmtree(self.folder / "warm", ignore_errors=True)
        with quiet():
            for name in self.texts:
                space.load(name)
            self.open(space.load("demo"), self.folder / "warm")

    def data(self, item: Space) -> Path:
        """Return the folder of the space's dataset."""
        return self.hearts if item.run.data.name == "bmd_hs" else self.hms

    def open(self, item: Space, scratch: Path) -> None:
        """Do what a search of the space does before it starts."""
        drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(2):
            try_run(item.suggest(drawn.ask()))
        item.starts()
        small = _with_its_base_alone(space.small(item))
        study = open_study(StudyFolder(scratch / "study"), [small], self.data(small))
        study.begin([small])


def _with_its_base_alone(item: Space) -> Space:
    """Return the space without its choices of networks, each of which would be built: that takes its time."""
    if isinstance(item, Union):
        return replace(item, spaces=tuple(map(_with_its_base_alone, item.spaces[:2])))
    return replace(item, ranges=())


def _space_text(bed: Bed, scratch: Path, rng: Random) -> Callable[[], object]:
    name = rng.choice(list(bed.texts))
    return _space(bed, scratch, name, mutate.spoilt_text(bed.texts[name], rng))


def _space_tree(bed: Bed, scratch: Path, rng: Random) -> Callable[[], object]:
    name = rng.choice(list(bed.trees))
    return _space(bed, scratch, name, mutate.spoilt_tree(bed.trees[name], rng))


def _space(bed: Bed, scratch: Path, name: str, content: bytes) -> Callable[[], object]:
    path = scratch / f"{name}.yaml"
    path.write_bytes(content)
    return lambda: bed.open(space.load(str(path)), scratch)


def _set(bed: Bed, scratch: Path, rng: Random) -> Callable[[], object]:
    name = rng.choice(list(bed.trees))
    tree = bed.trees[name]
    settings = {key: kind().model_dump() for key, kind in SETTINGS.items()}
    said = mutate.overrides(tree.get("base", {}) | settings, rng)
    (scratch / "said.txt").write_text("\n".join(said), errors="surrogateescape")
    return lambda: bed.open(space.load(name, said), scratch)


def _data(bed: Bed, scratch: Path, rng: Random) -> Callable[[], object]:
    source = rng.choice((bed.hms, bed.hms, bed.hearts))
    root = shutil.copytree(source, scratch / "data")
    mutate.spoil_folder(root, rng)
    name = rng.choice(CHEAP[source.name])
    return lambda: _use_data(bed, name, root, scratch)


def _use_data(bed: Bed, name: str, root: Path, scratch: Path) -> None:
    """Load both parts of a folder, read every recording, and open a study on it."""
    item = _with_its_base_alone(space.small(space.load(name)))
    refused: list[UserError] = []
    for load in (lambda: load_dataset(root, item.run), lambda: item.run.data.module.load_test(root)):
        try:
            dataset = load()
            if dataset.targets is not None:
                folds.assign(dataset.units, 2, 0)
            for kind in dataset.KINDS:
                for recording in dataset.files(kind):
                    if recording in dataset.sizes[kind]:
                        dataset.read(kind, recording)
                        dataset.steps(kind, recording)
        except UserError as error:
            refused.append(error)
    open_study(StudyFolder(scratch / "study"), [item], root)
    if refused:
        raise refused[0]


def _oof(bed: Bed, scratch: Path, rng: Random) -> Callable[[], object]:
    paths = _tables(scratch, rng)
    for _ in range(rng.choice((1, 1, 2))):
        path = rng.choice(paths)
        if path.suffix == ".csv" and rng.random() < 0.8:
            mutate.spoil_csv(path, rng)
        elif path.is_file():
            mutate.spoil_file(path, rng)
    missing, pool = rng.random() < 0.3, rng.choice(("linear", "log_linear", "two_level", "average", "calibrated"))

    def use() -> None:
        study = StudyFolder(scratch / "study")
        import_foreign(paths, study, allow_missing=missing)
        fit_study(study, None, pool)

    return use


def _tables(scratch: Path, rng: Random) -> list[Path]:
    """Write labels and two files of predictions of 24 units."""
    ids = pd.DataFrame({"eeg_id": 1000 + np.arange(24) // 2, "eeg_sub_id": np.arange(24) % 2})
    draw = np.random.default_rng(rng.randrange(2**32))
    votes = pd.DataFrame(draw.multinomial(9, np.full(6, 1 / 6), 24), columns=[f"{c}_vote" for c in CLASSES])
    frames = {
        "labels": pd.concat([ids.assign(fold=np.arange(24) // 2 % 3, patient_id=np.arange(24) // 2), votes], axis=1)
    }
    for name in ("one", "two"):
        frames[name] = pd.concat([ids, pd.DataFrame(draw.dirichlet(np.ones(6), 24), columns=list(CLASSES))], axis=1)
    paths = []
    for name, frame in frames.items():
        paths.append(scratch / f"{name}{'.csv' if rng.random() < 0.7 else '.parquet'}")
        (frame.to_csv if paths[-1].suffix == ".csv" else frame.to_parquet)(paths[-1], index=False)
    return paths


Make = Callable[[Bed, Path, Random], Callable[[], Any]]
KINDS: dict[str, Make] = {"text": _space_text, "tree": _space_tree, "set": _set, "data": _data, "oof": _oof}
SHARES = {"text": 0.3, "tree": 0.3, "set": 0.2, "data": 0.15, "oof": 0.05}


def main(folder: Path, mutants: int, seed: int, kinds: list[str]) -> int:
    """Use so many mutants, print faults as they come and the counts at the end; return how many faults there are."""
    total = sum(SHARES[kind] for kind in kinds)
    ended: Counter[str] = Counter()
    faults = 0
    for kind in kinds:
        found = fuzz(folder, kind, range(round(mutants * SHARES[kind] / total)), seed, _say)
        slow, name = found.slowest
        counts = ", ".join(f"{count} {how}" for how, count in sorted(found.ended.items()))
        _say(f"{kind}: {counts}; slowest {slow:.1f} s ({name})")
        ended += found.ended
        faults += len(found.faults)
    _say(f"seed {seed}: {sum(ended.values())} mutants: {', '.join(f'{n} {how}' for how, n in sorted(ended.items()))}")
    return faults


def _say(line: str) -> None:
    print(
        line.encode("utf-8", "backslashreplace").decode(),
        file=sys.stderr if "PYTEST" in os.environ else sys.stdout,
        flush=True,
    )
