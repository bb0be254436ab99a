"""The trials of a space, trained in this process: what is proposed, raced, recorded, and taken up again."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState

from hms_ray.core.errors import SearchAborted, TrialFailed
from hms_ray.core.files import size_of
from hms_ray.execution import worker
from hms_ray.execution.local import run_here
from hms_ray.execution.packing import GpuPacking
from hms_ray.search.console import ConsoleView
from hms_ray.search.optuna.journal import Journal
from hms_ray.search.pruning import ensemble_gain
from hms_ray.search.pruning.ensemble_gain import PruneDecision
from hms_ray.search.pruning.pruner import Pruner
from hms_ray.search.queue import TrialQueue
from hms_ray.search.recorder import Recorder
from hms_ray.search.space.settings import Budget, Race
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial_store import TrialStore
from hms_ray.training.jobs import FoldResult

SEARCH = {"stages.0.lr": {"log_uniform": [1e-3, 1e-1]}}
FOLDS = (0, 1)


@pytest.fixture
def space(toy):
    """Four trials of two folds, without a race."""
    space = replace(
        toy.make_space("race", SEARCH), budget=Budget(trials=4, trial_folds=2, finalists=2), race=Race(rule="none")
    )
    toy.study.folder.add_space(space.name, space.resolved())
    return space


def source(toy, space, max_concurrent=1, gpus=0.0):
    """What the driver makes of a study, anew as after a restart."""
    store, view = toy.study.trial_store(FOLDS), ConsoleView("test", trials=0, trial_folds=0)
    queue = TrialQueue(
        toy.study,
        Journal(toy.folder, space),
        Recorder(store, view.handle),
        Pruner(space.race, space.budget, store, FOLDS),
        lambda wanted: max_concurrent,
        gpus,
    )
    queue.view = view
    return queue


def train_all(toy, space, fold_s=None, **options):
    trials = source(toy, space, **options)
    run_here(trials, toy.study.labels, 1, fold_s)
    return trials


def states(trials):
    return [trial.state.name for trial in trials.journal.trials()]


def outcome(trials):
    """Everything about the trials that must not depend on how often the search was stopped."""
    return [(t.state, t.params, t.values, t.user_attrs.get("estimate")) for t in trials.journal.trials()]


@pytest.fixture
def stopping(monkeypatch):
    """Let the race stop every trial that is judged, and remember by how many others."""
    judged = []

    def judge(targets, groups, candidate, kept, **_):
        judged.append(kept.shape[1])
        return PruneDecision(True, 0.0, 0.0, 0.0, "stopped: by the test")

    monkeypatch.setattr(ensemble_gain, "judge_ensemble", judge)
    return judged


def test_without_a_race_every_trial_trains_all_its_folds(toy, space):
    trials = train_all(toy, space)
    assert states(trials) == ["COMPLETE"] * 4
    for trial in trials.journal.trials():
        name = trials.journal.trial_id(trial.number)
        assert trial.value == trials.store.score(name, FOLDS)
        assert trials.store.missing(name, range(3)) == [2]
        assert sorted(trial.intermediate_values) == [1, 2, 3, 4], "two epochs in each of two folds"


def test_a_resumed_search_shows_the_best_trial_and_the_ensemble(toy, space):
    before = train_all(toy, space).view.progress
    again = source(toy, space)
    assert again.view.progress.best is None
    again.show()
    assert again.view.progress.best == before.best
    assert again.view.progress.ensemble == before.ensemble


def test_a_search_that_begins_has_nothing_to_show(toy, space):
    trials = source(toy, space)
    trials.show()
    assert (trials.view.progress.best, trials.view.progress.ensemble) == (
        None,
        None,
    )


def test_stopped_trials_are_pruned_with_an_estimate_and_lose_their_weights(toy, space, stopping):
    trials = train_all(toy, replace(space, race=Race()))
    assert states(trials) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"], "the first has nothing to be judged by"
    assert stopping == [1, 1, 1], "only what was kept is a rival"
    for trial in trials.journal.trials(TrialState.PRUNED):
        name = trials.journal.trial_id(trial.number)
        folder = toy.folder.trial(name).fold(0)
        assert trial.user_attrs["cause"] == "stopped: by the test" and trial.user_attrs["fidelity"] == 0.5
        assert trials.store.missing(name, FOLDS) == [1] and not list(folder.root.glob("weights/*"))
        others = [trials.store.score("race-0000", [fold]) for fold in FOLDS]
        units = [len(trials.store.scored("race-0000", [fold]).targets) for fold in FOLDS]
        expected = trials.store.score(name, [0]) - others[0] + np.average(others, weights=units)
        assert trial.user_attrs["estimate"] == pytest.approx(expected, rel=1e-12)


def test_a_real_race_goes_by_what_is_kept(toy, space):
    """Hopeless learning rates are stopped after a fold by the real rule, once something is kept."""
    bad = replace(
        toy.make_space("bad", {"stages.0.lr": {"choice": [0.01, 1e-7]}, "stages.1.lr": {"choice": [0.01, 1e-7]}}),
        budget=Budget(trials=3, trial_folds=2),
        race=Race(min_gain=0.5),
    )
    trials = train_all(toy, bad)
    assert states(trials) == ["COMPLETE", "PRUNED", "PRUNED"], "nothing here is worth half a nat"
    assert "0.5 is asked for" in trials.journal.trials()[1].user_attrs["cause"]


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_killed_after_any_fold_it_ends_the_same(toy, space, tmp_path, stopping, after):
    """The driver dies before it can decide or record anything about a fold that is written."""
    space = replace(space, race=Race())
    other = toy.open(StudyFolder(tmp_path / "undisturbed"), [space], toy.root)
    undisturbed = outcome(train_all(SimpleNamespace(study=other, folder=other.folder), space))
    trials, handled = source(toy, space), 0
    drop = trials.store._drop_unselected

    def dying(trial):
        nonlocal handled
        handled += 1
        if handled == after:
            raise KeyboardInterrupt
        drop(trial)

    trials.store._drop_unselected = dying
    with pytest.raises(KeyboardInterrupt):
        run_here(trials, toy.study.labels, threads=1)
    written = {path: path.stat().st_mtime_ns for path in toy.folder.root.glob("trials/race-*/folds/*/oof.parquet")}
    assert len(written) == after
    again = train_all(toy, space)
    assert outcome(again) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in written} == written, "no finished fold is trained twice"


def test_interrupted_between_folds_a_trial_stays_to_be_taken_up(toy, space):
    trials = source(toy, space)
    goes_on = trials.goes_on
    trials.goes_on = lambda trial, fold: trials.interrupt() or goes_on(trial, fold)
    run_here(trials, toy.study.labels, threads=1)
    assert trials.exhausted() and states(trials) == ["RUNNING"]
    assert states(train_all(toy, space)) == ["COMPLETE"] * 4


def test_trials_side_by_side_wait_for_those_they_shall_know(toy, space):
    space = replace(space, budget=Budget(trials=9, trial_folds=2))
    trials = source(toy, space, max_concurrent=2)
    works = [trials.next() for _ in range(6)]
    assert [work is None for work in works] == [False] * 4 + [True] * 2, "trial 4 shall know how trial 0 ended"
    assert trials.kept(3) == []


def test_a_trial_that_ended_without_a_word_is_trained_again(toy, space):
    """Tune gives a trial up when the worker that it was about to reuse dies, before anything of it was trained."""
    trials = source(toy, space)
    trials.ended(trials.next())
    assert states(trials) == ["RUNNING"]
    run_here(trials, toy.study.labels, threads=1)
    assert states(trials) == ["COMPLETE"] * 4


def test_a_trial_whose_worker_is_lost_again_and_again_fails(toy, space):
    trials = source(toy, space)
    for _ in range(3):
        work = trials.next()
        assert work.trial == "race-0000"
        trials.ended(work)
    assert states(trials) == ["FAIL"]
    assert trials.why() == "the last one failed with: its worker was lost 3 times"


def test_one_error_in_a_row_aborts_with_it(toy, space, monkeypatch):
    def failing(job, *_):
        raise TrialFailed(f"no room for {job.trial}")

    monkeypatch.setattr(worker, "train_job", failing)
    space = replace(space, budget=Budget(trials=9, trial_folds=2, same_failures=3))
    with pytest.raises(SearchAborted, match=r"3 trials in a row failed with the same error .*no room for race-0002"):
        train_all(toy, space)
    assert states(source(toy, space)) == ["FAIL"] * 3


def test_different_errors_do_not_abort(toy, space, monkeypatch):
    causes = iter(["shape", "loss", "shape", "loss"])

    def failing(job, *_):
        raise TrialFailed(next(causes))

    monkeypatch.setattr(worker, "train_job", failing)
    trials = train_all(toy, replace(space, budget=Budget(trials=4, trial_folds=2, same_failures=2)))
    assert [t.user_attrs["cause"] for t in trials.journal.trials()] == ["shape", "loss", "shape", "loss"]
    assert trials.why() == "the last one failed with: loss"


def test_a_study_that_outgrows_its_budget_stops(toy, space):
    with pytest.raises(SearchAborted, match=r" has \d+\.\d [kM]B, more than budget.disk_gb: 1e-05\. Raise it"):
        train_all(toy, replace(space, budget=Budget(trials=4, trial_folds=2, disk_gb=1e-5)))


def with_weights(toy, trials):
    """The complete trials whose weights of both trial folds are there."""
    complete = [trials.journal.trial_id(t.number) for t in trials.journal.trials(TrialState.COMPLETE)]
    return [trial for trial in complete if trials.store.without_weights(trial) == [2]]


def test_weights_of_trials_that_cannot_be_finalists_go_as_trials_end(toy, space):
    trials, kept = source(toy, space), []
    ended = trials.ended
    trials.ended = lambda work: ended(work) or kept.append(with_weights(toy, trials))
    run_here(trials, toy.study.labels, threads=1)
    best = [trials.journal.trial_id(t.number) for t in trials.journal.best(2)]
    assert [len(names) for names in kept] == [1, 2, 2, 2] and kept[-1] == sorted(best)
    assert not list(toy.folder.root.glob("trials/*/folds/*/state"))


def test_killed_before_weights_are_deleted_they_go_at_the_next_start(toy, space, monkeypatch):
    def die(self, trial):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrialStore, "drop_weights", die)
        train_all(toy, space)
    trials = source(toy, space)
    assert states(trials) == ["COMPLETE"] * 3 and len(with_weights(toy, trials)) == 2
    run_here(trials, toy.study.labels, threads=1)
    assert with_weights(toy, trials) == sorted(trials.shortlist.finalists())


def test_where_room_is_short_runners_up_go_first(toy, space, monkeypatch):
    goes_on = PruneDecision(False, 0.0, 0.0, 0.0, "goes on")
    monkeypatch.setattr(ensemble_gain, "judge_ensemble", lambda *_, **__: goes_on)
    space = replace(space, race=Race(inside_folds=False))
    trials = train_all(toy, replace(space, budget=Budget(trials=3, trial_folds=2, finalists=1)))
    complete = [f"race-{n:04d}" for n in range(3)]
    (chosen,) = trials.shortlist.finalists()
    used = size_of(toy.folder.root)
    weights = size_of(toy.folder.trial(chosen).fold(0).root / "weights")
    tight = replace(space, budget=Budget(trials=4, trial_folds=2, finalists=1, disk_gb=(used - weights) / 1e9))
    again = source(toy, tight)
    assert again.next() is not None, "room was made"
    kept = [trial for trial in complete if len(again.store.without_weights(trial)) == 1]
    assert kept == [chosen]


def test_a_fold_that_takes_too_long_fails_its_trial(toy, space):
    trials = train_all(toy, space, fold_s=1e-6)
    assert states(trials) == ["FAIL"] * 4
    assert "the fold had not ended after" in trials.journal.trials()[0].user_attrs["cause"]


def test_the_objective_may_be_what_a_trial_adds_to_the_ensemble(toy, space):
    toy.study = replace(toy.study, score=toy.study.score.model_copy(update={"objective": "gain"}))
    trials = train_all(toy, space)
    kept = []
    for trial in trials.journal.trials():
        name = trials.journal.trial_id(trial.number)
        gain = trials.pruner.gain(name, FOLDS, kept)
        assert trial.value == -gain and gain >= 0
        assert trial.user_attrs["score"] == trials.store.score(name, FOLDS)
        kept.append(name)


def test_lack_of_memory_on_a_shared_gpu_is_answered_with_a_larger_share(toy, space, monkeypatch):
    """The first trial takes a whole GPU, the next what that one was measured to need, and twice that if it fails."""
    packing, took = GpuPacking(toy.folder.gpu_memory), []
    real = worker.train_job

    def measured(job, labels, replica, *told):
        if job.trial == "race-0001" and took[-1] < 0.25:
            raise TrialFailed("not even one example fits") from worker.torch.OutOfMemoryError("CUDA out of memory")
        result = real(job, labels, replica, *told)
        return FoldResult(**vars(result) | {"peak_gpu_bytes": 10**9, "gpu_bytes": 100 * 10**9})

    monkeypatch.setattr(worker, "train_job", measured)
    trials = source(toy, space, gpus=packing)
    give = trials.next

    def watched():
        work = give()
        took.append(work.gpus)
        return work

    trials.next = watched
    run_here(trials, toy.study.labels, threads=1)
    assert took[:3] == [1.0, 0.125, 0.25]
    assert states(trials) == ["COMPLETE"] * 4


def test_a_proposal_that_leaves_nothing_to_train_on_is_replaced(toy, space):
    """No unit of the study has so many votes; the rule is found before the trial begins."""
    search = SEARCH | {"stages.1.min_votes": {"choice": [5, 10, 99]}}
    space = replace(space, ranges=toy.make_space("race", search).ranges, search=search)
    trials = source(toy, space, max_concurrent=4)
    works = [trials.next() for _ in range(4)]
    assert all(work.jobs[0].run.stages[1].min_votes < 99 for work in works)
    replaced = [cause for trial in trials.journal.trials() for cause in trial.user_attrs.get("replaced", {})]
    assert replaced and all("a stage with min_votes 99" in cause for cause in replaced)


def test_a_node_that_joins_lets_more_trials_run_and_the_journal_says_so(toy, space):
    """One trial at a time, from the fifth on three; one that is lost later changes nothing."""
    space = replace(space, budget=Budget(trials=9, trial_folds=1))
    asked, trials = [], source(toy, space)
    max_concurrent = [1, 1, 1, 1, 3, 3, 2, 2, 2]
    trials.max_concurrent = lambda wanted: asked.append(wanted) or max_concurrent[len(trials.journal.trials())]
    run_here(trials, toy.study.labels, threads=1)
    attrs = [trial.user_attrs for trial in trials.journal.trials()]
    assert [a["concurrency"] for a in attrs] == [1, 1, 1, 1, 3, 3, 3, 3, 3]
    assert [a["known"] for a in attrs] == [0, 1, 2, 3, 3, 3, 3, 3, 4], "what was known stays known"
    assert asked == list(range(9, 0, -1)), "as many as are left could run at once"


def test_a_search_goes_on_under_the_concurrency_that_it_had(toy, space, tmp_path):
    """Begun with three trials at once, killed, and taken up where one has room: no trial differs, none is repeated."""
    space = replace(space, budget=Budget(trials=9, trial_folds=1))
    other = toy.open(StudyFolder(tmp_path / "undisturbed"), [space], toy.root)
    undisturbed = train_all(SimpleNamespace(study=other, folder=other.folder), space, max_concurrent=3)
    killed = source(toy, space, max_concurrent=3)
    ended, end = [], killed.ended

    def dying(work):
        if len(ended) == 5:
            raise KeyboardInterrupt
        ended.append(work.trial)
        end(work)

    killed.ended = dying
    with pytest.raises(KeyboardInterrupt):
        run_here(killed, toy.study.labels, threads=1)
    written = {path: path.stat().st_mtime_ns for path in toy.folder.root.glob("trials/race-*/folds/*/oof.parquet")}
    again = train_all(toy, space, max_concurrent=1)
    assert outcome(again) == outcome(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in written} == written
