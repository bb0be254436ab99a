"""Every space of the field on one simulated set: `python -m bench spaces`.

Trains the smoke version of each space's base run on all its folds, in this process with one thread, and prints its
parameters, its feature, its KL against the class prior and against `basic_cnn` on the same units, and seconds an epoch.
The set is simulated: that a space learns here says that it works, not how it ranks.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hms_ray.core import files
from hms_ray.search import driver
from hms_ray.search.space import space
from hms_ray.search.space.space import Space
from hms_ray.simulate import simulate
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable
from hms_ray.tasks import Task
from hms_ray.training.build import build_model

BASELINE = "basic_cnn"
NAMES = (BASELINE, "effnet", "resnet", "mit", "ast", "modern", "raw_image", "cwt", "eeg_1d", "speech")
HEAD = f"{'space':10} {'network':28} {'parameters':>10}  {'feature':34} " + "    KL  prior basic_cnn  s/epoch"


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the table, a row a space as it ends."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or _simulated(Path(folder) / "data", options.eegs)
        tables: dict[str, OofTable] = {}
        for name in dict.fromkeys([BASELINE, *options.spaces]):
            small = space.small(space.load(name))
            study = StudyFolder(Path(folder) / "runs" / name)
            driver.train(study, [small], root, in_process=True)
            tables[name] = OofTable.read(study.oof(f"{name}-base"))
            if len(tables) == 1:
                yield from _population(tables[name], small)
            yield _row(small, study, tables[name], tables[BASELINE])


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench spaces", description=__doc__)
    parser.add_argument("--data", type=Path, help="the competition's folder or a simulated one (default: simulated)")
    parser.add_argument("--eegs", type=int, default=240, help="recordings to simulate (default: 240)")
    parser.add_argument("--spaces", nargs="+", default=NAMES, metavar="NAME", help=f"{BASELINE} comes first")
    return parser.parse_args(arguments)


def _simulated(out: Path, eegs: int) -> Path:
    simulate(out, eegs, max(6, eegs // 4), seed=0)
    return out


def _population(table: OofTable, of: Space) -> Iterator[str]:
    votes = of.run.score.min_votes
    rows = table.rows(votes)
    patients = len(np.unique(table.group_ids[rows]))
    yield f"KL of {rows.sum()} units with >= {votes} votes of {patients} patients in {of.run.folds} folds"
    yield HEAD


def _row(of: Space, study: StudyFolder, table: OofTable, baseline: OofTable) -> str:
    run, task, rows = of.run, table.task, table.rows(of.run.score.min_votes)
    targets = table.targets[rows]
    size = sum(p.numel() for p in build_model(run, task).parameters())
    seconds = files.read_table(study.trial(f"{of.name}-base").epochs)["seconds"].median()
    shape = " x ".join(map(str, run.feature.module.spec(run.feature.params).shape))
    arch = getattr(run.model.params, "arch", None)
    network = f"{run.model.name} {arch}" if arch else run.model.name
    scores = (_score(task, table, rows), _prior(task, targets), _score(task, baseline, rows))
    return (
        f"{of.name:10} {network:28} {size:>10,}  {f'{run.feature.name} {shape}':34} "
        f"{scores[0]:6.3f} {scores[1]:6.3f} {scores[2]:9.3f} {seconds:8.1f}"
    )


def _score(task: Task, table: OofTable, rows: np.ndarray) -> float:
    return task.score(table.targets[rows], table.probs[rows])


def _prior(task: Task, targets: np.ndarray) -> float:
    """Return the score of the best constant, chosen with the knowledge of the very units."""
    return task.score(targets, np.tile(task.prior(targets), (len(targets), 1)))
