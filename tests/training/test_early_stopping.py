"""Watched patients: who they are, what follows from their score, and that the held-out fold has no say in it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from hms_ray.core.errors import TrialFailed
from hms_ray.training import early_stopping, loop
from hms_ray.training.batches import StageBatches
from hms_ray.training.distributed import Replica, Team
from hms_ray.training.early_stopping import EarlyStoppingState
from hms_ray.training.fold_model import FoldModel
from hms_ray.training.jobs import FoldResult, FoldStopped
from hms_ray.training.loop import train_fold
from hms_ray.training.recipe import Fold
from hms_ray.training.run_stage import RunStage
from hms_ray.training.stages import EarlyStopping, Pseudo, Stage
from tests.training.conftest import rates_of

CPU = torch.device("cpu")
GROUPS = np.repeat(np.arange(20), 3)
FIRST = Stage(epochs=6, lr=0.02, early_stopping=EarlyStopping(share=0.2, stop=2))
STAGES = (FIRST, Stage(epochs=1, lr=0.01))
# What is watched after each epoch: the third is the best, and the stage ends after the fifth.
SCORES = {1: 3.0, 2: 2.5, 3: 2.0, 4: 2.2, 5: 2.1}


class Interrupted(Exception):
    """Stands for a killed worker."""


@pytest.fixture
def scripted(monkeypatch):
    """Let the watched scores be those that are given by epoch; what comes after them is no better."""

    def script(scores):
        note = EarlyStoppingState.note
        monkeypatch.setattr(
            EarlyStoppingState, "note", lambda self, epoch, score: note(self, epoch, scores.get(epoch, 9.0))
        )

    return script


def curve_of(result):
    """Rows that compare equal where they are, which NaN never does."""
    return [str({k: v for k, v in row.items() if k != "seconds"}) for row in result.epochs]


def assert_same(a, b):
    assert [path.read_bytes() for path in a.weights.values()] == [path.read_bytes() for path in b.weights.values()]
    assert curve_of(a) == curve_of(b)
    np.testing.assert_array_equal(a.probs, b.probs)


def passed(result):
    """The epochs that were not trained."""
    return [row["epoch"] for row in result.epochs if math.isnan(row["train_loss"])]


@pytest.mark.parametrize(("share", "patients"), [(0.01, 1), (0.1, 2), (0.15, 3), (0.2, 4), (0.49, 10)])
def test_whole_patients_are_set_aside(share, patients):
    aside = early_stopping.set_aside(EarlyStopping(share=share), GROUPS, seed=3, number=0)
    assert len(np.unique(GROUPS[aside])) == patients
    assert not set(GROUPS[aside]) & set(GROUPS[~aside])


def test_seed_and_stage_draw_the_patients():
    draws = [
        early_stopping.set_aside(EarlyStopping(share=0.3), GROUPS, seed, number)
        for seed, number in ((1, 0), (1, 0), (2, 0), (1, 1))
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any() and (draws[0] != draws[3]).any()


def test_names_of_patients_draw_as_well_as_numbers():
    names = np.char.add("patient ", np.arange(10, 30).astype(str))[GROUPS]
    numbers = early_stopping.set_aside(EarlyStopping(), GROUPS, 1, 0)
    np.testing.assert_array_equal(early_stopping.set_aside(EarlyStopping(), names, 1, 0), numbers)


def test_one_patient_is_always_left_and_one_patient_alone_is_refused(toy, tmp_path):
    for patients in (2, 3):
        aside = early_stopping.set_aside(EarlyStopping(share=0.49), np.arange(patients), 0, 0)
        assert 1 <= aside.sum() < patients
    early_stopping.check(EarlyStopping(), np.array([4, 4, 5]))
    with pytest.raises(TrialFailed, match="of one patient none can be set aside; a stage needs two or more"):
        early_stopping.check(EarlyStopping(), np.array([4, 4]))
    alone = replace(toy.data, trust=np.where(toy.data.groups == 1, 1.0, 0.0))
    with pytest.raises(TrialFailed, match="of one patient none can be set aside"):
        toy.train(toy.recipe(stages=STAGES), alone, tmp_path)


def test_what_follows_from_scores():
    """Better is lower; every second evaluation without a better one halves the rate, the fifth ends the stage."""
    watching, seen = EarlyStoppingState(EarlyStopping(patience=2, factor=0.5, stop=5), np.arange(3)), []
    for epoch, score in enumerate([3.0, 3.0, 2.0, 2.0, 2.1, 2.0, 1.9, 5, 4, 3, 2, 1.9], start=4):
        best = watching.note(epoch, score)
        seen.append((best, watching.scale, watching.ended))
    assert [best for best, _, _ in seen] == [epoch in (0, 2, 6) for epoch in range(12)]
    assert [scale for _, scale, _ in seen] == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert [ended for _, _, ended in seen] == [False] * 11 + [True]
    assert (watching.epoch, watching.score) == (10, 1.9)


def test_without_stop_nothing_ends():
    watching = EarlyStoppingState(EarlyStopping(stop=None), np.arange(3))
    for epoch in range(1, 100):
        watching.note(epoch, float(epoch))
    assert not watching.ended and watching.epoch == 1
    assert watching.scale == 0.5 ** (98 // 3)


def test_what_is_kept_does_not_move_with_the_network():
    watching, weight = EarlyStoppingState(EarlyStopping(), np.arange(3)), torch.ones(2)
    watching.keep({"plain": {"w": weight}})
    weight += 1
    assert watching.network["plain"]["w"].tolist() == [1, 1]


def test_watched_patients_are_never_in_a_batch_and_others_are(toy, tmp_path, monkeypatch):
    data, seen, batch = toy.data, [], StageBatches._batch

    def noted(self, rows, windows=None):
        seen.append(rows)
        return batch(self, rows, windows)

    monkeypatch.setattr(StageBatches, "_batch", noted)
    recipe = toy.recipe(stages=(replace_watch(FIRST, stop=100), Stage(epochs=1, lr=0.01)))
    toy.train(recipe, data, tmp_path, fold=1)
    train = np.flatnonzero(data.folds != 1)
    aside = train[early_stopping.set_aside(FIRST.early_stopping, data.groups[train], recipe.seed, 0)]
    assert len(np.unique(data.groups[aside])) == 4, "a fifth of twenty"
    steps = 6 * -(-(40 - len(aside)) // 8)
    assert set(np.concatenate(seen[:steps])) == set(train) - set(aside)
    assert set(np.concatenate(seen[steps:])) == set(train), "the next stage sees all of them"


def replace_watch(stage, **changes):
    return stage.model_copy(update={"early_stopping": stage.early_stopping.model_copy(update=changes)})


def test_the_watched_score_is_that_of_the_scored_network_on_the_stages_units(toy, tmp_path):
    """Also of units that are no part of the scored population, and never of those that the stage leaves out."""
    data, stage = toy.data, Stage(epochs=2, lr=0.02, max_votes=4, early_stopping=EarlyStopping(share=0.3))
    recipe = toy.recipe(stages=(stage,), epoch="cross_fitted")
    result = toy.train(recipe, data, tmp_path)
    units = np.flatnonzero((data.folds != 0) & (data.votes <= 4))
    units = units[early_stopping.set_aside(stage.early_stopping, data.groups[units], recipe.seed, 0)]
    model = recipe.build().eval()
    for epoch, path in result.weights.items():
        model.load_state_dict(load(path.read_bytes()))
        with torch.inference_mode():
            probs = data.task.to_probs(model(data.inputs.x[units].float()).numpy())
        assert result.epochs[epoch - 1]["watched"] == pytest.approx(
            data.task.score(data.targets[units], probs), abs=1e-5
        )


def test_a_stage_without_a_watch_has_no_such_column(toy, tmp_path, scripted):
    scripted(SCORES)
    result = toy.train(toy.recipe(stages=STAGES), toy.data, tmp_path)
    assert ["watched" in row for row in result.epochs] == [True] * 6 + [False]


@pytest.mark.parametrize("ema", [0.9, 0.0])
def test_a_stage_that_ends_early_goes_back_to_its_best_epoch(toy, tmp_path, scripted, ema):
    """Predictions, weights and score are those of the third epoch from the end, the fifth, on; all keep their rows."""
    scripted(SCORES)
    result = toy.train(toy.recipe(stages=STAGES, epoch="cross_fitted", optim={"ema": ema}), toy.data, tmp_path)
    assert (passed(result), len(result.epochs), len(result.probs)) == ([6], 7, 7)
    for epoch in (5, 6):
        np.testing.assert_array_equal(result.probs[epoch - 1], result.probs[2])
        assert result.weights[epoch].read_bytes() == result.weights[3].read_bytes()
        assert result.epochs[epoch - 1]["score"] == result.epochs[2]["score"]
    assert result.epochs[5]["watched"] == result.epochs[2]["watched"]
    assert (result.probs[3] != result.probs[2]).any() and (result.probs[6] != result.probs[2]).any()
    assert result.epochs[5]["seconds"] < result.epochs[4]["seconds"]


def test_the_next_stage_begins_from_the_best_network(toy, tmp_path, scripted, monkeypatch):
    """Where it ended early, also with its very last epoch, and else from the last."""
    begun, begin = [], loop.begin_stage

    def noted(fold, model, *given):
        begun.append(model.packed())
        return begin(fold, model, *given)

    monkeypatch.setattr(loop, "begin_stage", noted)
    scripted(SCORES)
    for epochs, same in ((6, 3), (5, 3), (4, 4)):
        stages, folder = (FIRST.model_copy(update={"epochs": epochs}), STAGES[1]), tmp_path / str(epochs)
        result = toy.train(toy.recipe(stages=stages, epoch="cross_fitted"), toy.data, folder)
        assert begun[-1] == result.weights[same].read_bytes()
        assert [epoch for epoch in range(1, 5) if result.weights[epoch].read_bytes() == begun[-1]] == [same]


def test_without_end_a_watch_only_takes_patients_away(toy, tmp_path):
    """The network is that of a run to whose stage the watched patients were never given."""
    data, recipe = toy.data, toy.recipe(stages=(replace_watch(FIRST, stop=100),))
    train = np.flatnonzero(data.folds != 0)
    aside = train[early_stopping.set_aside(FIRST.early_stopping, data.groups[train], recipe.seed, 0)]
    without = replace(data, trust=np.where(np.isin(np.arange(60), aside), 0.0, 1.0))
    plain = toy.recipe(stages=(FIRST.model_copy(update={"early_stopping": None}),))
    one, other = toy.train(recipe, data, tmp_path / "a"), toy.train(plain, without, tmp_path / "b")
    assert toy.weights(one) == toy.weights(other)
    np.testing.assert_array_equal(one.probs, other.probs)


def test_what_is_held_out_has_no_say(toy, tmp_path):
    """Neither its labels nor its inputs move the end of a stage, its rates or its weights."""
    data, stage = (
        toy.data,
        Stage(epochs=8, lr=0.05, schedule="plateau", early_stopping=EarlyStopping(patience=1, stop=2)),
    )
    held_out = data.folds == 1
    x, targets, votes = data.inputs.x.clone(), data.targets.copy(), data.votes.copy()
    x[held_out], targets[held_out], votes[held_out] = 5 - x[held_out], 1 / 3, 7
    other = replace(data, inputs=replace(data.inputs, x=x), targets=targets, votes=votes)
    recipe = toy.recipe(stages=(stage,))
    one, two = (toy.train(recipe, d, tmp_path / name, fold=1) for d, name in ((data, "a"), (other, "b")))
    assert passed(one) == passed(two) != []
    assert toy.weights(one) == toy.weights(two)
    assert [row["watched"] for row in one.epochs] == [row["watched"] for row in two.epochs]
    assert (one.probs != two.probs).any(), "the held-out inputs were indeed others"


def test_the_rate_falls_when_the_watched_score_stalls(toy, tmp_path, monkeypatch, scripted):
    """34 examples in batches of 8 are five steps an epoch, eight of all forty the warm-up."""
    rates = rates_of(monkeypatch)
    scripted({1: 3.0, 2: 2.0, 3: 2.0, 4: 2.0, 5: 1.0, 6: 1.5, 7: 1.5, 8: 1.5})
    stage = Stage(
        epochs=8,
        lr=0.02,
        schedule="plateau",
        warmup=0.2,
        early_stopping=EarlyStopping(patience=2, factor=0.1, stop=None),
    )
    toy.train(toy.recipe(stages=(stage,)), toy.data, tmp_path)
    assert len(rates) == 40 and rates[:8] == sorted(rates[:8]) and rates[7] < 0.02
    assert rates[8:20] == pytest.approx([0.02] * 12)
    assert rates[20:35] == pytest.approx([0.002] * 15), "after the fourth epoch"
    assert rates[35:] == pytest.approx([0.0002] * 5), "after the seventh"


KILLED = (
    (STAGES, SCORES),
    (
        (
            Stage(
                epochs=4, lr=0.02, schedule="plateau", evaluations=2, early_stopping=EarlyStopping(patience=1, stop=3)
            ),
            Stage(epochs=1, lr=0.01, early_stopping=EarlyStopping(share=0.4)),
        ),
        {1: 3.0, 2: 3.0, 3: 2.5, 4: 2.5, 5: 2.5},
    ),
)


@pytest.mark.parametrize("ema", [0.9, 0.0])
@pytest.mark.parametrize(("stages", "scores"), KILLED)
def test_a_watched_stage_continued_after_any_epoch_equals_an_undisturbed_run(
    toy, tmp_path, scripted, stages, scores, ema
):
    """Killed after every epoch of one run, before the end, at it and after it; the best weights come from far back."""
    scripted(scores)
    recipe = toy.recipe(stages=stages, epoch="cross_fitted", optim={"ema": ema})

    def killed(row):
        raise Interrupted

    undisturbed = toy.train(recipe, toy.data, tmp_path / "a")
    assert passed(undisturbed) == ([6] if stages is STAGES else [7, 8])
    for _ in undisturbed.epochs:
        with pytest.raises(Interrupted):
            toy.train(recipe, toy.data, tmp_path / "b", on_epoch=killed)
    assert_same(toy.train(recipe, toy.data, tmp_path / "b"), undisturbed)


def test_what_is_passed_is_not_computed(toy, tmp_path, monkeypatch, scripted):
    scripted(SCORES)
    done = []

    def noting(owner, name):
        method = getattr(owner, name)

        def noted(self, *given):
            done.append(name)
            return method(self, *given)

        monkeypatch.setattr(owner, name, noted)

    noting(RunStage, "epoch_batches")
    noting(FoldModel, "predict")
    toy.train(toy.recipe(stages=(FIRST.model_copy(update={"epochs": 50}),)), toy.data, tmp_path)
    trained, last = ["epoch_batches", "predict", "predict"] * 5, ["predict"]  # watched and scored units; the others
    assert done == trained + last


def test_a_fold_may_be_stopped_by_its_limits_while_a_stage_is_passed(toy, tmp_path, scripted):
    scripted(SCORES)
    limits = [math.inf] * 5 + [0.0] * 2
    stopped = toy.train(toy.recipe(stages=STAGES), toy.data, tmp_path, limits=limits)
    assert isinstance(stopped, FoldStopped) and len(stopped.epochs) == 6


def test_workers_end_a_stage_as_the_first_says(toy, tmp_path):
    class Second(Team):
        """The first worker's watched scores: the best is the second, two later the stage ends."""

        def __init__(self):
            self.scores = iter([2.0, 1.0, 3.0, 3.0])

        def from_first(self, state):
            if state is None or isinstance(state, dict):  # a checkpoint
                return None
            return state if isinstance(state, bool) else next(self.scores)

    replica = Replica(CPU, rank=1, size=2, team=Second())
    result = train_fold(toy.recipe(stages=STAGES), toy.data, 0, replica, tmp_path / "a", lambda row: None)
    assert isinstance(result, FoldResult)
    assert passed(result) == [5, 6]
    assert [row.get("watched") for row in result.epochs] == [2.0, 1.0, 3.0, 3.0, 1.0, 1.0, None]
    assert not (tmp_path / "a").exists(), "the first worker alone keeps anything"


def test_teachers_watch_patients_of_their_own(toy, tmp_path, monkeypatch):
    """A stage with pseudo-labels after a watched one: its teachers go through the watch as well."""
    units, split = [], Fold.stage_units

    def noted(self, number):
        found = split(self, number)
        if self.recipe.stages[number].early_stopping:
            units.append((set(self.training_units), set(found[1]), set(self.held_out)))
        return found

    monkeypatch.setattr(Fold, "stage_units", noted)
    stages = (FIRST, Stage(epochs=1, lr=0.01, pseudo=Pseudo(parts=2)))
    result = toy.train(toy.recipe(stages=stages), toy.data, tmp_path)
    assert np.isfinite(result.probs[-1]).all()
    assert len({frozenset(aside) for _, aside, _ in units}) == 3, "of the fold and of two teachers"
    for rows, aside, held_out in units:
        assert aside < rows and not aside & held_out
        assert not aside & set(np.flatnonzero(toy.data.folds == 0))
