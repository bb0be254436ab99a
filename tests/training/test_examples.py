"""Units with several examples: what is trained on is the example, what is predicted and scored is the unit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load
from torch import nn

from hms_ray.datasets import Examples
from hms_ray.models._heads import Classifier
from hms_ray.store.inputs import Prepared
from hms_ray.training.batches import StageBatches
from hms_ray.training.stages import Stage
from tests.training.conftest import begun

UNITS = 60
COUNTS = 1 + np.arange(UNITS) * 7 % 3  # 1 to 3 examples a unit
UNIT = np.repeat(np.arange(UNITS), COUNTS)
STAGES = (Stage(epochs=2, lr=0.02, weight="linear"),)


@pytest.fixture
def uneven(toy):
    """The toy's units, each with its image once to three times under noise of its own, and two numbers beside it."""
    rng = np.random.default_rng(3)
    x = toy.data.inputs.x.float()[UNIT]
    x = x + torch.from_numpy(rng.normal(0, 0.5, x.shape).astype(np.float32))
    covariates = torch.from_numpy(rng.normal([40, 170], [20, 10], (len(UNIT), 2)).astype(np.float32))
    covariates[5, 0] = torch.nan
    spec = replace(toy.data.inputs.spec, covariates=("age", "height"))
    examples = Examples(UNIT, pd.DataFrame(covariates.numpy(), columns=list(spec.covariates)))
    return replace(toy.data, inputs=Prepared(x, spec, covariates), examples=examples, trust=np.ones(len(UNIT)))


def build():
    """A body of four features, and a head that is given two numbers beside them."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(body, 4, 3, 0.0, {"stem": "^0", "blocks": []}, covariates=2)


@pytest.fixture
def recipe(toy):
    return toy.recipe(build=build, stages=STAGES, augment=())


@pytest.fixture
def seen(monkeypatch):
    """The batches that are made, each with its examples."""
    found, batch = [], StageBatches._batch

    def noted(self, rows, windows=None):
        made = batch(self, rows, windows)
        found.append((rows, made))
        return made

    monkeypatch.setattr(StageBatches, "_batch", noted)
    return found


def of_epochs(seen, epochs=2):
    """Yield the examples of each epoch."""
    steps = len(seen) // epochs
    for epoch in range(epochs):
        yield np.concatenate([rows for rows, _ in seen[epoch * steps : (epoch + 1) * steps]])


def untrusted(data, examples):
    return replace(data, trust=np.where(np.isin(np.arange(len(UNIT)), examples), 0.0, 1.0))


def test_every_example_of_the_other_folds_is_trained_on_once_an_epoch(uneven, recipe, toy, tmp_path, seen):
    assert sorted(set(COUNTS)) == [1, 2, 3]
    toy.train(recipe, uneven, tmp_path, fold=1)
    expected = np.flatnonzero(uneven.folds[UNIT] != 1).tolist()
    assert [sorted(rows) for rows in of_epochs(seen)] == [expected] * 2


def test_an_example_has_the_label_and_the_weight_of_its_unit_and_a_trust_of_its_own(
    uneven, recipe, toy, tmp_path, seen
):
    trust = np.where(np.arange(len(UNIT)) % 4, 1.0, 0.25)
    toy.train(recipe, replace(uneven, trust=trust), tmp_path)
    train = np.flatnonzero(uneven.folds != 0)
    weights = uneven.votes / uneven.votes[train].mean()  # linear in the votes, their mean over units is 1
    for rows, batch in seen:
        np.testing.assert_allclose(batch.y, uneven.targets[UNIT[rows]], rtol=1e-6)
        np.testing.assert_allclose(batch.weight, weights[UNIT[rows]] * trust[rows], rtol=1e-6)
        np.testing.assert_array_equal(batch.x, uneven.inputs.x[rows])
        np.testing.assert_array_equal(batch.covariates, uneven.inputs.covariates[rows])


def test_an_untrusted_example_is_never_trained_on_but_its_unit_is(uneven, recipe, toy, tmp_path, seen):
    """A unit without a trusted example is left out; held out, it is predicted all the same."""
    whole = np.flatnonzero((COUNTS == 3) & (uneven.folds != 0))
    gone, part = uneven.examples.of(whole[:1]), uneven.examples.of(whole[1:2])[1:]
    data = untrusted(uneven, [*gone, *part])
    toy.train(recipe, data, tmp_path / "a")
    for rows in of_epochs(seen):
        assert not set(rows) & {*gone, *part}
        assert whole[1] in UNIT[rows] and whole[0] not in UNIT[rows]
    held_out = toy.train(recipe, data, tmp_path / "b", fold=int(uneven.folds[whole[0]]))
    assert whole[0] in held_out.rows and np.isfinite(held_out.probs[-1]).all()


def test_a_held_out_unit_has_one_row_the_mean_over_all_its_examples(uneven, recipe, toy, tmp_path):
    """Trusted or not: what can be predicted counts."""
    data = untrusted(uneven, np.flatnonzero(UNIT % 5 == 0)[::2])
    result = toy.train(recipe, data, tmp_path, fold=2)
    np.testing.assert_array_equal(result.rows, np.flatnonzero(data.folds == 2))
    assert result.probs.shape == (2, len(result.rows), 3)
    model = build().eval()
    model.load_state_dict(load(toy.weights(result)))
    with torch.inference_mode():
        probs = data.task.to_probs(model(data.inputs.x, data.inputs.covariates).numpy())
    expected = [probs[np.equal(UNIT, unit)].mean(0) for unit in result.rows]
    np.testing.assert_allclose(result.probs[-1], expected, atol=1e-6)
    many = data.votes[result.rows] >= 10
    score = data.task.score(data.targets[result.rows][many], result.probs[-1][many])
    assert result.epochs[-1]["score"] == pytest.approx(score, abs=1e-12)


def test_numbers_beside_are_standardised_by_the_trusted_training_examples(uneven, recipe):
    """Each example counts once, a value that is not known does not."""
    data = untrusted(uneven, [0, 30, 31])
    model, _ = begun(recipe, data, fold=1)
    used = data.inputs.covariates[torch.from_numpy((data.folds[UNIT] != 1) & (data.trust > 0))].numpy()
    np.testing.assert_allclose(model.network.covariates.mean, np.nanmean(used, 0), rtol=1e-5)
    np.testing.assert_allclose(model.network.covariates.scale, np.nanstd(used, 0), rtol=1e-5)
    torch.testing.assert_close(model.scored.covariates.mean, model.network.covariates.mean, rtol=0, atol=0)


def test_what_is_beside_the_held_out_fold_does_not_change_the_weights(uneven, recipe, toy, tmp_path):
    covariates = uneven.inputs.covariates.clone()
    covariates[torch.from_numpy(uneven.folds[UNIT] == 1)] *= -7
    other = replace(uneven, inputs=replace(uneven.inputs, covariates=covariates))
    one, two = (toy.train(recipe, data, tmp_path / name, fold=1) for data, name in ((uneven, "a"), (other, "b")))
    assert toy.weights(one) == toy.weights(two)
    assert (one.probs != two.probs).any(), "they reach the predictions"
