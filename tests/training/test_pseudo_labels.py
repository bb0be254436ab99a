"""Pseudo-labels: who teaches whom, what is mixed, and that nothing held out reaches the network by their way."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_ray.augment import mixup
from hms_ray.core.errors import TrialFailed
from hms_ray.training import loop, pseudo_labels
from hms_ray.training.distributed import Replica
from hms_ray.training.loop import train_fold
from hms_ray.training.pseudo_labels import NOWHERE
from hms_ray.training.recipe import Fold
from hms_ray.training.run_stage import RunStage
from hms_ray.training.stages import Pseudo, Stage, effort

CPU = torch.device("cpu")
TAUGHT = Stage(epochs=1, lr=0.01, pseudo=Pseudo(below=10, share=1.0, parts=2))
HALF = Pseudo(below=10, share=0.5, parts=2)


class Interrupted(Exception):
    """Stands for a killed worker."""


@pytest.fixture
def recipe(toy):
    """A stage that teachers go through as well, and one on their labels."""
    return toy.recipe(stages=(Stage(epochs=2, lr=0.02, smooth=0.02), TAUGHT), augment=((mixup, mixup.Params(p=0.5)),))


def train_rows(data, fold=0):
    return np.flatnonzero((data.folds != fold) & (data.trust > 0))


def labels_of(recipe, data, saved, fold=0):
    """The labels (N, K) of the second stage."""
    whole = Fold(recipe, data, fold, Replica(CPU))
    return pseudo_labels.stage_targets(whole, 1, saved / "checkpoint.pt", train_fold, lambda: None)


@pytest.mark.parametrize("parts", [2, 3, 7, 20])
def test_patients_are_dealt_whole_into_parts_of_near_equal_size(toy, parts):
    data, train = toy.data, train_rows(toy.data)
    dealt = pseudo_labels.deal(data, train, parts, seed=3)
    assert all(len(set(dealt[data.groups == patient])) == 1 for patient in np.unique(data.groups))
    sizes = [len(np.unique(data.groups[dealt == part])) for part in range(parts)]
    assert sum(sizes) == len(np.unique(data.groups[train])) == 20
    assert max(sizes) - min(sizes) <= 1
    assert set(dealt[train]) == set(range(parts))


def test_units_outside_the_training_rows_are_in_no_part(toy):
    data = replace(toy.data, trust=np.where(np.arange(60) == 4, 0.0, 1.0))
    train = train_rows(data)
    dealt = pseudo_labels.deal(data, train, 2, seed=3)
    outside = np.setdiff1d(np.arange(60), train)
    assert 4 in outside and len(outside) == 21
    assert (dealt[outside] == NOWHERE).all()
    assert (dealt[train] != NOWHERE).all()


def test_the_seed_deals(toy):
    one, same, other = (pseudo_labels.deal(toy.data, train_rows(toy.data), 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_fewer_patients_than_parts_fail_the_trial(toy):
    train = np.flatnonzero(toy.data.groups < 3)
    assert set(pseudo_labels.deal(toy.data, train, 3, 0)[train]) == {0, 1, 2}
    with pytest.raises(TrialFailed, match=r"pseudo.parts is 4, but the fold has 3 patients to train on"):
        pseudo_labels.deal(toy.data, train, 4, 0)


def test_a_teacher_learns_from_the_other_parts_alone(toy):
    data = replace(toy.data, trust=np.where(np.arange(60) == 4, 0.0, np.where(np.arange(60) % 3, 1.0, 0.5)))
    train = train_rows(data)
    dealt = pseudo_labels.deal(data, train, 2, seed=3)
    for_teachers = pseudo_labels.for_teachers(data, dealt)
    np.testing.assert_array_equal(for_teachers.trust[train], data.trust[train])
    assert not for_teachers.trust[np.setdiff1d(np.arange(60), train)].any()
    fold = Fold(toy.recipe(), for_teachers, 0, Replica(CPU))
    assert set(fold.training_units) == set(np.flatnonzero(dealt == 1))
    assert set(fold.held_out) == set(np.flatnonzero(dealt == 0))
    assert for_teachers.targets is data.targets and for_teachers.inputs is data.inputs


def test_teachers_decide_a_share_of_the_labels_of_units_with_few_votes():
    targets = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    taught = np.array([[0.2, 0.8], [0.2, 0.8], [np.nan, np.nan], [0.5, 0.5]])
    found = pseudo_labels.mixed(targets, taught, np.array([9, 10, 3, 1]), Pseudo(below=10, share=0.25))
    np.testing.assert_allclose(found, [[0.8, 0.2], [1, 0], [1, 0], [0.125, 0.875]], rtol=1e-12)
    whole = pseudo_labels.mixed(targets, taught, np.array([9, 10, 3, 1]), Pseudo(below=10, share=1.0))
    np.testing.assert_allclose(whole, [[0.2, 0.8], [1, 0], [1, 0], [0.5, 0.5]], rtol=1e-12)


def test_the_labels_of_the_stage_are_the_teachers_where_votes_are_few(toy, recipe, tmp_path):
    data = replace(toy.data, trust=np.where(np.arange(60) == 4, 0.0, 1.0))
    found = labels_of(recipe, data, tmp_path)
    few = np.isin(np.arange(60), train_rows(data)) & (data.votes < 10)
    assert (np.abs(found - data.targets).max(1) > 1e-3).tolist() == few.tolist()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-9)
    half = replace(recipe, stages=(recipe.stages[0], TAUGHT.model_copy(update={"pseudo": HALF})))
    np.testing.assert_allclose(labels_of(half, data, tmp_path / "half"), (found + data.targets) / 2, atol=1e-12)


def test_teachers_know_better_than_chance(toy, recipe, tmp_path):
    recipe = replace(recipe, stages=(Stage(epochs=12, lr=0.03), TAUGHT), augment=((), ()))
    found, train = labels_of(recipe, toy.data, tmp_path), train_rows(toy.data)
    few = train[toy.data.votes[train] < 10]
    agree = found[few].argmax(1) == toy.data.targets[few].argmax(1)
    assert agree.mean() > 0.7


def test_a_patients_own_labels_do_not_change_its_own_pseudo_labels(toy, recipe, tmp_path):
    data, train = toy.data, train_rows(toy.data)
    before = labels_of(recipe, data, tmp_path / "a")
    part = pseudo_labels.deal(data, train, 2, recipe.seed)
    patient = data.groups[train[0]]
    own = data.groups == patient
    targets = data.targets.copy()
    targets[own] = targets[own][:, [1, 2, 0]]
    after = labels_of(recipe, replace(data, targets=targets), tmp_path / "b")
    few = data.votes < 10
    same = (part == part[train[0]]) & few
    np.testing.assert_array_equal(after[same], before[same])
    others = (part == 1 - part[train[0]]) & few
    assert (np.abs(after[others] - before[others]).max(1) > 0).all(), "the other teacher has learnt from them"


def test_what_is_held_out_does_not_change_the_weights(toy, recipe, tmp_path):
    """Neither labels nor inputs of the scored fold reach the network, teachers or not."""
    data = toy.data
    held_out = data.folds == 1
    x, targets, votes = data.inputs.x.clone(), data.targets.copy(), data.votes.copy()
    x[held_out] = 5 - x[held_out]
    targets[held_out], votes[held_out] = 1 / 3, 7
    other = replace(data, inputs=replace(data.inputs, x=x), targets=targets, votes=votes)
    one, two = (toy.train(recipe, d, tmp_path / name, fold=1) for d, name in ((data, "a"), (other, "b")))
    assert toy.weights(one) == toy.weights(two)
    assert [row["train_loss"] for row in one.epochs] == [row["train_loss"] for row in two.epochs]
    assert (one.probs != two.probs).any(), "the held-out inputs were indeed others"


def test_the_pseudo_labels_are_what_the_stage_learns_from(toy, recipe, tmp_path):
    plain = replace(recipe, stages=(recipe.stages[0], Stage(epochs=1, lr=0.01)))
    one, two = toy.train(recipe, toy.data, tmp_path / "a"), toy.train(plain, toy.data, tmp_path / "b")
    np.testing.assert_array_equal(one.probs[:2], two.probs[:2])
    assert (one.probs[2] != two.probs[2]).any()


def test_teachers_lie_beside_the_checkpoint(toy, recipe, tmp_path):
    toy.train(recipe, toy.data, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("teacher-*/*.pt")) == ["checkpoint.pt"] * 2
    names = ["checkpoint.pt", "teacher-1-0", "teacher-1-1", "weights"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["3.safetensors"]


def test_each_epoch_of_each_teacher_is_told_of_and_foreseen(toy, recipe, tmp_path):
    """The third stage's teachers go through the second stage, and so have teachers of their own."""
    stages, seen = (*recipe.stages, TAUGHT), []
    recipe = replace(recipe, stages=stages, augment=recipe.augment[:1] * 3)
    saved, replica = tmp_path / "checkpoint.pt", Replica(CPU)
    own = train_fold(recipe, toy.data, 0, replica, saved, seen.append, on_teacher_epoch=lambda: seen.append("taught"))
    assert [row for row in seen if row != "taught"] == own.epochs
    teachers = 2 * 2 + 2 * (2 + 2 * 2 + 1)
    assert seen.count("taught") == teachers and effort(stages) == len(own.epochs) + teachers
    again = []
    train_fold(recipe, toy.data, 0, replica, saved, again.append, on_teacher_epoch=lambda: again.append("taught"))
    assert again == [], "what is trained already is not told of again"


def killed_in_a_teacher(monkeypatch, at):
    """Kill the process after so many epochs of all teachers together."""
    seen = []

    def counted(recipe, data, fold, replica, saved, on_epoch, on_teacher_epoch):
        def count(row):
            seen.append(row)
            if len(seen) == at:
                raise Interrupted

        return train_fold(recipe, data, fold, replica, saved, count)

    monkeypatch.setattr(loop, "train_fold", counted)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_killed_within_a_teacher_and_continued_it_is_as_if_undisturbed(toy, recipe, tmp_path, monkeypatch, at):
    """Teachers have two epochs each: one is killed in the middle of its training, or when it is finished."""
    undisturbed = toy.train(recipe, toy.data, tmp_path / "a")
    with monkeypatch.context() as patched:
        killed_in_a_teacher(patched, at)
        with pytest.raises(Interrupted):
            toy.train(recipe, toy.data, tmp_path / "b")
    trained = []
    with monkeypatch.context() as patched:
        patched.setattr(RunStage, "epoch_batches", counting(trained))
        continued = toy.train(recipe, toy.data, tmp_path / "b")
    assert len(trained) == (4 - at) + 1, "nothing is trained twice"
    assert_same(continued, undisturbed)


def counting(seen):
    """The batches of an epoch, which note each epoch that is trained."""
    epoch_batches = RunStage.epoch_batches

    def counted(self, epoch, done):
        seen.append(epoch)
        return epoch_batches(self, epoch, done)

    return counted


@pytest.mark.parametrize("last", [1, 2, 3])
def test_killed_around_the_teachers_and_continued_it_is_as_if_undisturbed(toy, recipe, tmp_path, last):
    recipe = replace(recipe, stages=(recipe.stages[0], TAUGHT.model_copy(update={"epochs": 2})))

    def killed(row):
        if row["epoch"] == last:
            raise Interrupted

    with pytest.raises(Interrupted):
        toy.train(recipe, toy.data, tmp_path / "b", on_epoch=killed)
    continued = toy.train(recipe, toy.data, tmp_path / "b")
    assert_same(continued, toy.train(recipe, toy.data, tmp_path / "a"))


def assert_same(a, b):
    assert [path.read_bytes() for path in a.weights.values()] == [path.read_bytes() for path in b.weights.values()]
    curves = [[{k: v for k, v in row.items() if k != "seconds"} for row in result.epochs] for result in (a, b)]
    assert curves[0] == curves[1]
    np.testing.assert_array_equal(a.probs, b.probs)
