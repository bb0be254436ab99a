"""What the journal costs beside training: proposing, reporting and telling after many trials, and opening it again,
in turns with Optuna alone on a copy of the same journal."""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage

from hms_ray.core import seeds
from hms_ray.search.optuna import samplers
from hms_ray.search.optuna.journal import Journal, one_driver
from hms_ray.search.space.space import Space, parse
from hms_ray.study.folder import StudyFolder

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 16, "depth": 2},
    "augment": {"mixup": {"p": 0.3}, "xy_mask": {"p": 0.5}},
    "optim": {"name": "adamw", "weight_decay": 0.01},
    "stages": [{"epochs": 10, "lr": 0.001}, {"epochs": 5, "lr": 0.0001, "min_votes": 10}],
}
SEARCH = {
    "feature.arrange": {"choice": ["stack", "channels"]},
    "model.depth": {"choice": [2, 3, 4]},
    "model.width": {"int": [4, 64], "when": {"model.depth": [2, 3]}},
    "model.drop_rate": {"uniform": [0.0, 0.5], "when": {"model.depth": 4}},
    "augment.mixup.p": {"uniform": [0.0, 0.6]},
    "augment.xy_mask.p": {"uniform": [0.0, 0.9]},
    "optim.weight_decay": {"log_uniform": [1e-4, 1e-1]},
    "stages.0.lr": {"log_uniform": [1e-4, 1e-1]},
    "stages.1.lr": {"log_uniform": [1e-5, 1e-2]},
    "stages.1.min_votes": {"choice": [5, 10]},
}
REPORTS = 15
BEHIND = 8  # trials whose results are not waited for: four at once


def run(arguments: list[str]) -> Iterator[str]:
    """Yield a table for each sampler: milliseconds at the end of a search, ours beside Optuna alone."""
    options = _options(arguments)
    yield f"{options.trials} trials, {len(SEARCH)} dimensions, {REPORTS} reports a trial; median milliseconds"
    for name in options.samplers:
        with tempfile.TemporaryDirectory(dir=options.keep) as scratch:
            yield from _table(Path(scratch), name, options.trials, options.repetitions)
            if options.keep:
                shutil.copy(Path(scratch) / "ours" / "journal.log", options.keep / f"{name}.log")


def space(name: str) -> Space:
    """Return a space of ten dimensions, two of them conditional, that is searched by that sampler."""
    return parse("bench", {"base": BASE, "search": SEARCH, "sampler": name})


def fill(journal: Journal, trials: int) -> None:
    """Play a search: of 20 trials one fails and six are stopped half-way; the last `BEHIND` have not ended."""
    for number in range(trials):
        journal.propose(BEHIND)
        if number >= BEHIND:
            _end(journal, number - BEHIND)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench journal", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--samplers", nargs="+", choices=["tpe", "random", "gp", "cmaes"], help="default: all but gp")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--keep", type=Path, help="a folder that is given the journals, e.g. for optuna-dashboard")
    parser.set_defaults(samplers=["tpe", "random", "cmaes"])
    return parser.parse_args(arguments)


def _table(scratch: Path, name: str, trials: int, repetitions: int) -> Iterator[str]:
    folder = StudyFolder(scratch / "ours")
    with one_driver(folder):
        # the Gaussian process itself would take hours to fill its journal; what it then proposes from is the same
        fill(Journal(folder, space("random" if name == "gp" else name)), trials)
        copy = Path(shutil.copy(folder.journal, scratch / "plain.log"))
        ours, opening = _timed(lambda: Journal(folder, space(name)))
        plain, plain_opening = _timed(lambda: _plain(copy, name))
        first = _our_round(ours)["propose"]  # it shows all trials to the sampler
        rounds = [(_our_round(ours), _plain_round(plain)) for _ in range(repetitions)]
    yield f"  {name:<24}{'hms_ray':>12}{'Optuna alone':>16}"
    yield f"    {'open':<22}{1000 * opening:12.1f}{1000 * plain_opening:16.1f}"
    yield f"    {'first proposal':<22}{1000 * first:12.1f}{'':>16}"
    for step in ("propose", f"{REPORTS} reports", "tell"):
        medians = [1000 * statistics.median(pair[side][step] for pair in rounds) for side in (0, 1)]
        yield f"    {step:<22}{medians[0]:12.1f}{medians[1]:16.1f}"


def _our_round(journal: Journal) -> dict[str, float]:
    (number, _), propose = _timed(lambda: journal.propose(BEHIND))
    ending = number - BEHIND
    _, report = _timed(lambda: journal.reports(ending, _curve(ending)))
    _, tell = _timed(lambda: _tell(journal, ending))
    return {"propose": propose, f"{REPORTS} reports": report, "tell": tell}


def _plain_round(study: optuna.Study) -> dict[str, float]:
    asked, propose = _timed(lambda: _ask(study))
    _, report = _timed(lambda: [asked.report(score, step) for step, score in _curve(asked.number)])
    _, tell = _timed(lambda: study.tell(asked, _value(asked.number)))
    return {"propose": propose, f"{REPORTS} reports": report, "tell": tell}


def _plain(path: Path, name: str) -> optuna.Study:
    """Open a journal as Optuna's manual does, with the sampler that the space has."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name="bench", storage=storage, sampler=samplers.sampler(space(name), 0))


def _ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    space("random").suggest(trial)
    return trial


def _end(journal: Journal, number: int) -> None:
    journal.reports(number, _curve(number))
    _tell(journal, number)


def _tell(journal: Journal, number: int) -> None:
    if number % 20 == 7:
        journal.fail(number, "out of memory: 15.2 GB asked, 14.6 GB there", seconds=12.0)
    elif number % 20 in (3, 9, 12, 14, 16, 18):
        journal.prune(number, _value(number) + 0.05, 0.5, "cannot improve the ensemble", 300.0)
    else:
        journal.complete(number, _value(number), 600.0)


def _value(number: int) -> float:
    """A made-up score."""
    return 0.3 + float(seeds.stream(0, "bench", number).gamma(2.0, 0.1))


def _curve(number: int) -> list[tuple[int, float]]:
    return [(step, _value(number) + 0.8 / step) for step in range(1, REPORTS + 1)]


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start
