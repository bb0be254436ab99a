"""The rounds of a search: recorded before they are trained, taken up again, and bounded; all in this process."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray.core.errors import SearchAborted, TrialFailed
from hms_ray.execution import worker
from hms_ray.search import driver
from hms_ray.search.console import ConsoleView
from hms_ray.search.events import FoldsToCome
from hms_ray.search.finalists import allocation
from hms_ray.search.optuna.journal import Journal
from hms_ray.search.space.settings import Budget, Race
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable
from hms_ray.study.trial_store import TrialStore

TRIALS, FOLDS = 7, 3


@pytest.fixture
def space(toy):
    """Seven trials, of which two get all folds: one goes out before the first round, four are runners-up."""
    return spaced(toy, Budget(trials=TRIALS, finalists=2))


def spaced(toy, budget, **race):
    search = {"stages.0.lr": {"log_uniform": [1e-3, 1e-1]}, "model.width": {"choice": [4, 6]}}
    return replace(toy.make_space("round", search), budget=budget, race=Race(**race))


class Search:
    """One study of its own, searched in this process as often as a test wants."""

    def __init__(self, toy, space, root):
        self.toy, self.space, self.folder = toy, space, StudyFolder(root)

    def __call__(self):
        return driver.search(self.folder, [self.space], self.toy.root, in_process=True)

    @property
    def journal(self):
        return Journal(self.folder, self.space)

    def finished(self):
        """Return each finished fold's file and the time it was written."""
        return {path: path.stat().st_mtime_ns for path in self.folder.root.glob("trials/*/folds/*/oof.parquet")}

    def weights(self, number):
        return list(self.folder.trial(f"round-{number:04d}").root.rglob("*.safetensors"))

    def outcome(self):
        """Everything that must not depend on how often the search was killed."""
        journal = self.journal
        tables = [OofTable.read(self.folder.oof(trial)) for trial in self.folder.oof_ids()]
        told = [(table.trial, table.selected_on, table.epochs, table.probs.tolist()) for table in tables]
        return journal.rounds, journal.out, told, len(self.finished())


@pytest.fixture
def search(toy, space, tmp_path):
    return Search(toy, space, tmp_path / "searched")


def dying(monkeypatch, kind, name, at, before=False):
    """Kill the driver at the n-th call of a method, before or after that has done its work."""
    calls, real = [], getattr(kind, name)

    def call(self, *arguments, **named):
        calls.append(name)
        if before and len(calls) == at:
            raise KeyboardInterrupt
        found = real(self, *arguments, **named)
        if len(calls) == at:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(kind, name, call)


def test_rounds_end_with_the_finalists_whose_tables_say_what_chose_them(search):
    finalists = search()
    rounds, out, tables, folds = search.outcome()
    assert len(finalists) == 2 and search.folder.oof_ids() == sorted(finalists)
    numbers = sorted(int(trial[-4:]) for trial in finalists)
    assert [sorted(one["pairs"]) for one in rounds] == [[[n, fold] for n in numbers] for fold in (1, 2)]
    assert [one["kept"] for one in rounds] == [numbers, numbers] and len(out) == 1
    assert folds == TRIALS + 2 * 2
    assert [selected_on for _, selected_on, *_ in tables] == [(0, 1)] * 2, "the last fold chose nobody"
    first = OofTable.read(search.folder.trial(finalists[0]).fold(2).oof)
    assert first.selected_on == (0,), "trials were chosen on their first fold"
    assert all(bool(search.weights(number)) == (number in numbers) for number in range(TRIALS))


def test_the_board_is_told_what_those_that_are_kept_still_lack(search, monkeypatch):
    told, real = [], ConsoleView.handle

    def handle(self, event):
        if isinstance(event, FoldsToCome):
            told.append(event.folds)
        real(self, event)

    monkeypatch.setattr(ConsoleView, "handle", handle)
    search()
    assert told[:2] == [2 * 2, 2 * 1]


@pytest.mark.parametrize(
    ("budget", "race", "finalists"),
    [
        ({"trials": 40}, {}, 16),
        ({"trials": 40, "finalists": 5}, {}, 5),
        ({"trials": 40}, {"folds": 0.35}, 14),
        ({"trials": 40}, {"rule": "best"}, 8),
        ({"trials": 2}, {}, 1),
    ],
)
def test_before_the_rounds_their_usual_share_is_forecast(toy, budget, race, finalists):
    space = spaced(toy, Budget(**budget), **race)
    console_view = driver._console_view(toy.study, space, Journal(toy.folder, space))
    assert console_view.progress.finalist_folds == finalists * (FOLDS - 1)


def test_a_finished_search_trains_and_records_nothing(search):
    finalists = search()
    before, outcome = search.finished(), search.outcome()
    assert search() == finalists
    assert search.finished() == before and search.outcome() == outcome


@pytest.mark.parametrize(
    ("kind", "name", "at", "before"),
    [
        (Journal, "put_round", 1, True),
        (Journal, "put_round", 1, False),
        (TrialStore, "_drop_unselected", TRIALS, True),
        (TrialStore, "_drop_unselected", TRIALS + 1, True),
        (TrialStore, "_drop_unselected", TRIALS + 2, True),
        (Journal, "put_round", 2, False),
        (TrialStore, "_drop_unselected", TRIALS + 3, True),
        (TrialStore, "_drop_unselected", TRIALS + 4, True),
    ],
)
def test_killed_anywhere_it_ends_the_same(toy, space, search, tmp_path, monkeypatch, kind, name, at, before):
    undisturbed = Search(toy, space, tmp_path / "undisturbed")
    undisturbed()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, kind, name, at, before)
        search()
    written = search.finished()
    search()
    assert search.outcome() == undisturbed.outcome()
    assert written.items() <= search.finished().items(), "no finished fold is trained twice"


def test_a_trial_that_is_dropped_in_a_round_loses_its_weights(toy, tmp_path, monkeypatch):
    """The plan keeps all eight, then one of them, with four runners-up; a kill comes before weights are deleted."""
    search, real = Search(toy, spaced(toy, Budget(trials=8)), tmp_path / "dropped"), allocation.plan

    def plan(targets, probs, groups, folds, trained, **terms):
        if "most" in terms and terms["most"] is None and trained[:, 1].any():
            terms["most"] = 1
        return real(targets, probs, groups, folds, trained, **terms)

    monkeypatch.setattr(allocation, "plan", plan)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, Journal, "put_round", 2)
        search()
    rounds, out = search.journal.rounds, search.journal.out
    assert all(map(search.weights, range(8)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, TrialStore, "_drop_unselected", 1, before=True)
        search()
    assert [len(one["pairs"]) for one in rounds] == [8, 1] and len(out) == 8 - 1 - 4
    assert [bool(search.weights(number)) for number in range(8)] == [number not in out for number in range(8)]
    assert search() == [f"round-{rounds[-1]['kept'][0]:04d}"]
    assert len(search.finished()) == 8 + 8 + 1


def test_without_a_price_and_a_cap_all_trials_get_all_folds(toy, tmp_path):
    search = Search(toy, spaced(toy, Budget(trials=3), min_gain=0.0), tmp_path / "all")
    assert len(search()) == 3
    assert len(search.finished()) == 3 * FOLDS


@pytest.mark.parametrize(("folds", "trained"), [(0.7, 12), (0.6, 10), (0.4, 8), (0.35, 8)])
def test_no_more_than_the_share_of_folds_is_trained(toy, tmp_path, folds, trained):
    """Of 6 trials with 3 folds each; 0.35 of 18 folds is less than the first fold of all and the rest of one."""
    search = Search(toy, spaced(toy, Budget(trials=6), folds=folds, min_gain=0.0), tmp_path / "some")
    finalists = search()
    assert len(search.finished()) == trained
    assert len(finalists) == (trained - 6) // 2


def failing(monkeypatch, *pairs):
    """Let training of those (trial, fold) fail for good; return what was tried."""
    tried, real = [], worker.train_job

    def train(job, *arguments):
        tried.append((job.trial, job.fold))
        if (job.trial, job.fold) in pairs:
            raise TrialFailed("no room for it")
        return real(job, *arguments)

    monkeypatch.setattr(worker, "train_job", train)
    return tried


def test_a_fold_that_fails_takes_its_trial_out(toy, space, search, tmp_path, monkeypatch, caplog):
    undisturbed = Search(toy, space, tmp_path / "undisturbed")
    lost, other = undisturbed()
    tried = failing(monkeypatch, (lost, 2))
    with caplog.at_level("INFO"):
        finalists = search()
    assert len(finalists) == 2 and other in finalists and lost not in finalists
    assert f"{lost} cannot become a finalist: fold 2 of {lost} could not be trained: no room for it" in caplog.text
    assert int(lost[-4:]) in search.journal.out and not search.weights(int(lost[-4:]))
    assert [one["pairs"] for one in search.journal.rounds][2:], "another one takes its place, from its second fold on"
    count = len(tried)
    assert search() == finalists and len(tried) == count, "it is not tried again"


def test_where_no_finalist_can_be_trained_the_search_stops_and_goes_on_later(search, toy, space, tmp_path, monkeypatch):
    finalists = Search(toy, space, tmp_path / "undisturbed")()
    with monkeypatch.context() as patch:
        failing(patch, *((trial, 1) for trial in finalists))
        with pytest.raises(
            SearchAborted, match=r"space round: fold 1 of round-\d+ could not be .*: no room for it; fold"
        ):
            search()
    assert len(search.journal.out) == 1
    assert search() == finalists


def test_the_trials_of_a_larger_budget_join_those_with_all_folds(toy, space, search):
    finalists = search()
    before = {path: time for path, time in search.finished().items() if path.parts[-4] in finalists}
    search.space = replace(space, budget=Budget(trials=TRIALS + 2, finalists=3))
    more = search()
    assert len(more) == 3 and set(finalists) <= set(more), "who has all folds stays"
    assert before.items() <= search.finished().items()


def test_all_folds_may_be_those_of_a_trial(toy, tmp_path):
    """There are no rounds then, and the cap still holds."""
    search = Search(toy, spaced(toy, Budget(trials=4, trial_folds=FOLDS, finalists=2)), tmp_path / "every")
    assert len(search()) == 2 and search.journal.rounds == []
    assert OofTable.read(search.folder.oof(search.folder.oof_ids()[0])).selected_on == (0, 1, 2)


@pytest.mark.parametrize("rule", ["best", "none"])
def test_other_rules_have_no_rounds(toy, tmp_path, rule):
    search = Search(toy, spaced(toy, Budget(trials=3, finalists=1), rule=rule), tmp_path / rule)
    (best,) = search()
    assert search.journal.rounds == [] and len(search.finished()) == 3 + 2
    scores = [trial.value for trial in search.journal.trials()]
    assert int(best[-4:]) == int(np.argmin(scores))
    assert OofTable.read(search.folder.oof(best)).selected_on == (0,)
