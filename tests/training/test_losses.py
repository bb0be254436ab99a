"""What a stage's loss counts: outcomes balanced by the labels that it trains on, and focused; with known answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hms_ray import tasks
from hms_ray.training import early_stopping, loop
from hms_ray.training.stages import EarlyStopping, Stage
from tests.training.conftest import begun

LOGITS = torch.tensor([[0.3, -1.0, 0.7], [2.0, 0.1, -0.4]])


def weights_of(recipe, data, fold=0):
    return begun(recipe, data, fold=fold)[1].loss.keywords["weights"]


@pytest.fixture
def labelled(toy):
    """Three labels of the toy's units, of which the first is rare and the last common."""
    held = np.stack([np.arange(60) % 10 == 1, np.arange(60) % 2 == 0, np.arange(60) % 4 > 0], 1)
    return replace(
        toy.data, targets=held.astype(float), task=tasks.from_dict({"kind": "multilabel", "classes": ["a", "b", "c"]})
    )


BALANCED = Stage(epochs=2, lr=0.02, class_weight="balanced")


def test_votes_are_weighed_by_the_shares_of_the_training_units(toy):
    train = toy.data.folds != 0
    expected = 1 / (3 * toy.data.targets[train].mean(0))
    found = weights_of(toy.recipe(stages=(BALANCED,)), toy.data)
    assert (found.dtype, found.shape) == (torch.float32, (3,))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_labels_are_weighed_where_they_hold_and_where_they_do_not(toy, labelled):
    held = labelled.targets[labelled.folds != 0].mean(0)
    expected = np.stack([1 / (2 * held), 1 / (2 * (1 - held))], 1)
    found = weights_of(toy.recipe(stages=(BALANCED,)), labelled).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0, 0] > 3 > 1 > found[0, 1], "the first label is rare"


def test_weights_are_of_the_units_and_labels_of_the_stage(toy):
    """Not of units with few votes that it leaves out, nor of the labels as they were before smoothing."""
    stage = BALANCED.model_copy(update={"min_votes": 10, "smooth": 0.5})
    data = toy.data
    units = (data.folds != 0) & (data.votes >= 10)
    shares = (data.targets[units] * 12 + 0.5) / 13.5
    found = weights_of(toy.recipe(stages=(stage,)), data).numpy()
    np.testing.assert_allclose(found, 1 / (3 * shares.mean(0)), rtol=1e-6)


def test_weights_are_not_of_watched_patients(toy):
    stage, data = BALANCED.model_copy(update={"early_stopping": EarlyStopping(share=0.4)}), toy.data
    recipe, train = toy.recipe(stages=(stage,)), np.flatnonzero(toy.data.folds != 0)
    kept = train[~early_stopping.set_aside(stage.early_stopping, data.groups[train], recipe.seed, 0)]
    expected = 1 / (3 * data.targets[kept].mean(0))
    np.testing.assert_allclose(weights_of(recipe, data).numpy(), expected, rtol=1e-6)


def test_what_is_held_out_does_not_change_the_weights_of_outcomes(toy, labelled):
    recipe, targets = toy.recipe(stages=(BALANCED,)), labelled.targets.copy()
    targets[labelled.folds == 1] = 1 - targets[labelled.folds == 1]
    one, other = (weights_of(recipe, data, fold=1) for data in (labelled, replace(labelled, targets=targets)))
    assert one.tolist() == other.tolist() != weights_of(recipe, replace(labelled, targets=targets), fold=0).tolist()


def test_each_stage_has_its_own_loss(toy, labelled, tmp_path, monkeypatch):
    """Focused at first, balanced when it continues, and at last as it always was."""
    stages = (
        Stage(epochs=1, lr=0.02, focal=2.0),
        Stage(epochs=1, continues=True, class_weight="balanced", focal=1.0),
        Stage(epochs=1, lr=0.01),
    )
    used, y, forward_backward = [], torch.eye(3)[:2], loop.forward_backward

    def noted(model, batch, loss):
        if not any(loss is known for known in used):
            used.append(loss)
        return forward_backward(model, batch, loss)

    monkeypatch.setattr(loop, "forward_backward", noted)
    toy.train(toy.recipe(stages=stages), labelled, tmp_path)
    task, weights = labelled.task, torch.from_numpy(labelled.task.balance(labelled.targets[labelled.folds != 0]))
    expected = ({"focal": 2.0}, {"weights": weights, "focal": 1.0}, {})
    for loss, given in zip(used, expected, strict=True):
        torch.testing.assert_close(loss(LOGITS, y), task.loss(LOGITS, y, **given))


def test_the_gradient_is_that_of_the_stages_loss(toy, labelled):
    model, stage = begun(toy.recipe(stages=(BALANCED.model_copy(update={"focal": 2.0}),), augment=()), labelled)
    model.network.eval()  # no batch norm, no dropout
    batch = next(stage.epoch_batches(1, 0))
    loss = loop.forward_backward(model, batch, stage.loss)
    found = [p.grad.clone() for p in model.network.parameters()]
    model.network.zero_grad()
    weights = torch.from_numpy(labelled.task.balance(labelled.targets[labelled.folds != 0]))
    expected = (batch.weight * labelled.task.loss(model.network(batch.x), batch.y, weights, 2.0)).mean()
    expected.backward()
    torch.testing.assert_close((loss, found), (expected.detach(), [p.grad for p in model.network.parameters()]))


def test_a_balanced_stage_finds_a_rare_label_as_likely_as_not(toy, labelled, tmp_path):
    """Where nothing tells the units from each other; a plain loss ends at the label's share, a tenth."""
    data = replace(labelled, inputs=replace(labelled.inputs, x=labelled.inputs.x * 0))
    found = []
    for weight in ("none", "balanced"):
        stage = Stage(epochs=30, lr=0.3, class_weight=weight)
        recipe = toy.recipe(build=bias, stages=(stage,), augment=(), optim={"batch": 40})
        found.append(toy.train(recipe, data, tmp_path / weight).probs[-1][:, 0].mean())
    assert found == pytest.approx([0.1, 0.5], abs=0.05)


def bias():
    """A network that learns nothing but its bias from images that are zero."""
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
