"""How much disk space the weights of a search need at most, checked before it starts."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.core.sizes import in_words
from hms_ray.search.finalists import shortlist
from hms_ray.search.open_study import variants
from hms_ray.search.space.paths import replaced
from hms_ray.search.space.space import Space
from hms_ray.study.folder import StudyFolder
from hms_ray.training.run_config import RunConfig, try_run

STATE = 4  # times the weights: what a checkpoint holds of network, average and the optimiser's two moments


@dataclass(frozen=True)
class Need:
    """Files of weights that a space has at most, all as large as those of its largest network.

    each: bytes of a file; epochs: candidates of a fold; folds: of trials that may become finalists, while it searches;
    max_concurrent: folds in training; kept: files that are left in the end
    """

    space: str
    each: int
    epochs: int
    folds: int
    max_concurrent: int
    kept: int

    @property
    def files(self) -> int:
        """How many files there are at once."""
        return max(self.folds * self.epochs, self.kept) + self.max_concurrent * (self.epochs + STATE)

    def __str__(self) -> str:
        return (
            f"space {self.space} needs up to {in_words(self.files * self.each)}: {self.files} files of weights of "
            f"{in_words(self.each)} ({self.folds} folds of trials that may become finalists x {self.epochs} epochs "
            f"that may be chosen, or {self.kept} files of finalists; {self.max_concurrent} folds in training x "
            f"{self.epochs + STATE})"
        )


def need(space: Space, weight_bytes: Callable[[RunConfig], int], max_concurrent: int, searched: bool = True) -> Need:
    """Return what a space needs.

    weight_bytes: gives the size of a run's weights; max_concurrent: folds in training; searched: False: its base run
    alone is trained
    """
    runs = [run for member in space.members for run in [*variants(member), *_schedules(member)]]
    finalists = shortlist.most_finalists(space.budget, space.race) if searched else len(space.members)
    epochs = max(run.epoch_candidates.files(run.epoch, run.epochs) for run in runs)
    folds = _folds_at_once(space, finalists, runs[0].folds, epochs, max_concurrent) if searched else 0
    if not searched or space.race.rule != "ensemble":
        max_concurrent += runs[0].folds  # those of a finalist wait for each other with all their epochs
    return Need(
        space=space.name,
        each=max(map(weight_bytes, runs)),
        epochs=epochs,
        folds=folds,
        max_concurrent=max_concurrent,
        kept=finalists * runs[0].folds,
    )


def _folds_at_once(space: Space, finalists: int, folds: int, epochs: int, max_concurrent: int) -> int:
    """Return of how many folds the weights are kept while a space is searched, of trials that may become finalists.

    While trials end, some wait to be considered until all before them have ended. In rounds there are fewer trials, and
    each has up to all folds but one: with the last its epochs are known, and one file of each fold is left.
    """
    budget = space.budget
    shortlisted = shortlist.size(finalists, space.race)
    searching = min(budget.trials, shortlisted + math.ceil(1.5 * max_concurrent)) * budget.trial_folds
    if space.race.rule != "ensemble":
        return searching
    members = min(budget.trials, shortlisted)
    in_rounds = members * (folds - 1 if epochs > 1 else folds)
    if space.race.folds is not None:  # those that are no members have trained their first
        allowed = max(space.race.allowed(budget.trials, folds), budget.trials + folds - 1)  # one is completed anyway
        in_rounds = min(in_rounds, allowed - (budget.trials - members))
    return max(searching, in_rounds)


def check(folder: StudyFolder, needs: Sequence[tuple[Need, float | None]]) -> None:
    """Refuse spaces, searched one after the other, whose weights do not fit on the study's disk.

    needs: of each space, and its budget.disk_gb, which bounds what the study may take

    Raises:
        ConfigError: with the arithmetic.
    """
    there = sum(files.size_of(path) for path in folder.root.glob("trials/*/folds/*") if path.is_dir())
    room, before = shutil.disk_usage(folder.root).free + there, 0
    for its, disk_gb in needs:
        wanted = before + its.files * its.each
        limit = math.inf if disk_gb is None else disk_gb * 1e9
        if min(wanted, limit) > room:
            raise ConfigError(
                f"{its}, and {in_words(room)} are free at {folder.root}. Free disk space, lower epoch_candidates.most, "
                "budget.finalists, race.folds or budget.trial_folds, or set budget.disk_gb to what the study may take"
            )
        before += its.kept * its.each


def _schedules(space: Space) -> list[RunConfig]:
    """Return the base run with both ends of each range of its stages."""
    ends = [(item.path, end) for item in space.ranges if item.path.split(".")[0] == "stages" for end in item.ends]
    found = [try_run(replaced(space.base, path, end))[0] for path, end in ends]
    return [run for run in found if run]
