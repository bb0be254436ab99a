"""Training a fold: continued as if undisturbed, reproducible, blind to what it is scored on, and it learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from hms_ray.training.learner import Learner
from hms_ray.training.loop import FoldStopped, train_fold
from hms_ray.training.stages import Stage
from hms_ray.training.team import Replica, Team


class Interrupted(Exception):
    """Stands for a killed worker."""


def curve_of(result):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.epochs]


def assert_same(a, b):
    assert [path.read_bytes() for path in a.weights.values()] == [path.read_bytes() for path in b.weights.values()]
    assert curve_of(a) == curve_of(b)
    np.testing.assert_array_equal(a.probs, b.probs)


@pytest.mark.parametrize("ema", [0.9, 0.0])
@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_training_continued_after_any_epoch_equals_an_undisturbed_run(toy, tmp_path, last, ema):
    recipe = toy.recipe(optim={"ema": ema})

    def killed(row):
        if row["epoch"] == last:
            raise Interrupted

    undisturbed = toy.train(recipe, toy.data, tmp_path / "a")
    with pytest.raises(Interrupted):
        toy.train(recipe, toy.data, tmp_path / "b", on_epoch=killed)
    seen = []
    continued = toy.train(recipe, toy.data, tmp_path / "b", on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == list(range(last + 1, 5))
    assert_same(continued, undisturbed)


def test_a_run_killed_again_and_again_equals_an_undisturbed_run(toy, tmp_path):
    recipe = toy.recipe()

    def killed(row):
        raise Interrupted

    for _ in range(sum(stage.epochs for stage in recipe.stages)):
        with pytest.raises(Interrupted):
            toy.train(recipe, toy.data, tmp_path / "b", on_epoch=killed)
    assert_same(toy.train(recipe, toy.data, tmp_path / "b"), toy.train(recipe, toy.data, tmp_path / "a"))


def test_training_leaves_no_trace_of_what_the_process_drew_before(toy, tmp_path):
    first = toy.train(toy.recipe(), toy.data, tmp_path / "a")
    torch.rand(1000)
    np.random.default_rng().random(10)
    assert_same(toy.train(toy.recipe(), toy.data, tmp_path / "b"), first)


def test_a_checkpoint_of_another_run_is_not_continued(toy, tmp_path):
    toy.train(toy.recipe(mark="other", seed=8), toy.data, tmp_path / "a")
    assert_same(toy.train(toy.recipe(), toy.data, tmp_path / "a"), toy.train(toy.recipe(), toy.data, tmp_path / "b"))


def test_another_seed_gives_other_weights(toy, tmp_path):
    one, two = (toy.train(toy.recipe(seed=seed), toy.data, tmp_path / str(seed)) for seed in (1, 2))
    assert toy.weights(one) != toy.weights(two)


def test_the_network_learns(toy, tmp_path):
    data, task = toy.data, toy.data.task
    result = toy.train(toy.recipe(augment=(), stages=(Stage(epochs=12, lr=0.03),)), data, tmp_path / "a")
    prior = task.score(data.targets[result.rows], np.tile(task.prior(data.targets), (len(result.rows), 1)))
    assert task.score(data.targets[result.rows], result.probs[-1]) < 0.4 * prior


def test_what_is_held_out_does_not_change_the_weights(toy, tmp_path):
    data, recipe = toy.data, toy.recipe()
    held_out = data.folds == 1
    x, targets, votes = data.inputs.x.clone(), data.targets.copy(), data.votes.copy()
    x[held_out], targets[held_out], votes[held_out] = float("nan"), 1 / 3, 7
    poisoned = replace(data, inputs=replace(data.inputs, x=x), targets=targets, votes=votes)
    clean, other = (toy.train(recipe, d, tmp_path / n, fold=1) for d, n in ((data, "a"), (replace(data), "b")))
    assert_same(clean, other)
    trained = Learner(recipe, poisoned, 1, Replica(torch.device("cpu")))
    done = 0
    for number, stage in enumerate(recipe.stages):
        trained.begin(number, 0, stage.targets(poisoned.targets, poisoned.votes))
        for epoch in range(stage.epochs):
            trained.train(epoch, done)
            done += 1
    for name, tensor in load(toy.weights(clean)).items():
        torch.testing.assert_close(trained.scored.state_dict()[name], tensor, rtol=0, atol=0)


def test_only_the_held_out_units_are_predicted_and_scored_on_the_population(toy, tmp_path):
    result = toy.train(toy.recipe(), toy.data, tmp_path / "a", fold=2)
    np.testing.assert_array_equal(result.rows, np.flatnonzero(toy.data.folds == 2))
    many = toy.data.votes[result.rows] >= 10
    score = toy.data.task.score(toy.data.targets[result.rows][many], result.probs[-1][many])
    assert result.epochs[-1]["score"] == pytest.approx(score, abs=1e-12)


def test_an_epoch_without_scored_units_has_no_score(toy, tmp_path):
    result = toy.train(toy.recipe(min_votes=13), toy.data, tmp_path / "a")
    assert all(math.isnan(row["score"]) for row in result.epochs)
    assert np.isfinite(result.probs[-1]).all()


def test_the_curve_counts_epochs_over_all_stages(toy, tmp_path):
    seen = []
    result = toy.train(toy.recipe(), toy.data, tmp_path / "a", on_epoch=seen.append)
    assert seen == result.epochs
    assert [(row["stage"], row["epoch"], row["lr"]) for row in seen] == [
        (0, 1, 0.02),
        (0, 2, 0.02),
        (1, 3, 0.01),
        (1, 4, 0.01),
    ]


def test_the_kept_weights_are_those_that_are_scored(toy, tmp_path):
    recipe = toy.recipe()
    result = toy.train(recipe, toy.data, tmp_path / "a")
    model = recipe.build().eval()
    model.load_state_dict(load(toy.weights(result)))
    with torch.inference_mode():
        logits = model(toy.data.inputs.x[torch.from_numpy(result.rows)].float()).numpy()
    np.testing.assert_allclose(toy.data.task.to_probs(logits), result.probs[-1], atol=1e-6)


def test_the_average_is_what_is_scored_where_there_is_one(toy, tmp_path):
    weights = [toy.weights(toy.train(toy.recipe(optim={"ema": e}), toy.data, tmp_path / str(e))) for e in (0.0, 0.9)]
    assert weights[0] != weights[1]


def test_the_average_follows_its_own_law(toy):
    recipe = toy.recipe(optim={"ema": 0.5}, augment=())
    learner = Learner(recipe, toy.data, 0, Replica(torch.device("cpu")))
    learner.begin(0, 0, toy.data.targets)
    seen = []
    for batch in learner.epochs.batches(np.random.default_rng(0), np.random.default_rng(0)):
        learner._update(batch)
        seen.append(learner.plain[0].weight.detach().clone())
    expected = seen[0]  # timm's warm-up: the first update copies, then the decay grows to its limit
    for update, weight in enumerate(seen[1:], start=1):
        decay = min(0.5, 1 - (1 + update) ** -(2 / 3))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(learner.scored[0].weight, expected)


def test_gradients_are_clipped(toy):
    recipe = toy.recipe(optim={"name": "sgd", "clip_grad": 1e-3, "weight_decay": 0.0, "ema": 0.0}, augment=())
    learner = Learner(recipe, toy.data, 0, Replica(torch.device("cpu")))
    learner.begin(0, 0, toy.data.targets)
    learner._update(next(learner.epochs.batches(np.random.default_rng(0), np.random.default_rng(0))))
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in learner.plain.parameters()]))
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)


def test_a_fold_is_stopped_after_the_epoch_whose_score_is_above_its_limit(toy, tmp_path):
    scores = [row["score"] for row in toy.train(toy.recipe(), toy.data, tmp_path / "a").epochs]
    limits = [math.inf, scores[1], scores[2] - 1e-9, 0.0]
    stopped = toy.train(toy.recipe(), toy.data, tmp_path / "b", limits=limits)
    assert isinstance(stopped, FoldStopped)
    assert (stopped.fold, [row["score"] for row in stopped.epochs]) == (0, scores[:3])


def test_a_fold_that_was_stopped_stops_at_once_when_it_is_continued(toy, tmp_path):
    def untouched(row):
        pytest.fail("it was trained again")

    limits = [math.inf, 0.0, math.inf, math.inf]
    stopped = toy.train(toy.recipe(), toy.data, tmp_path / "a", limits=limits)
    again = toy.train(toy.recipe(), toy.data, tmp_path / "a", on_epoch=untouched, limits=limits)
    assert again == stopped


@pytest.mark.parametrize(("min_votes", "limits"), [(10, [math.inf] * 4), (13, [0.0] * 4)])
def test_neither_endless_limits_nor_epochs_without_a_score_stop_a_fold(toy, tmp_path, min_votes, limits):
    free = toy.train(toy.recipe(min_votes=min_votes), toy.data, tmp_path / "a")
    bound = toy.train(toy.recipe(min_votes=min_votes), toy.data, tmp_path / "b", limits=limits)
    assert (toy.weights(bound), len(bound.epochs)) == (toy.weights(free), 4)


def test_workers_stop_as_the_first_says(toy, tmp_path):
    class Second(Team):
        """The first worker's score is above its limit after three epochs."""

        asked = 0

        def from_first(self, state):
            if state is None or isinstance(state, dict):  # a checkpoint
                return None
            self.asked += 1
            return self.asked == 4

    replica = Replica(torch.device("cpu"), rank=1, size=2, team=Second())
    result = train_fold(toy.recipe(), toy.data, 0, replica, tmp_path / "a", lambda row: None, [1.0] * 4)
    assert isinstance(result, FoldStopped)
    assert len(result.epochs) == 3
    assert all(math.isnan(row["score"]) for row in result.epochs)


def test_a_limit_is_given_for_each_epoch_or_none(toy, tmp_path):
    with pytest.raises(AssertionError, match="3 limits for 4 epochs"):
        toy.train(toy.recipe(), toy.data, tmp_path / "a", limits=[1.0] * 3)


def test_a_cpu_takes_no_gpu_memory(toy, tmp_path):
    result = toy.train(toy.recipe(), toy.data, tmp_path / "a")
    assert [row["memory_gb"] for row in result.epochs] == [0.0] * 4
    assert (result.peak_gpu_bytes, result.gpu_bytes, result.out_of_memory) == (0, 0, False)


def test_two_shares_see_the_batch_that_one_worker_sees(toy):
    """The mean gradient of two workers is the gradient of the whole batch, where their shares are equal."""
    settings = {"name": "sgd", "ema": 0.0, "clip_grad": 1e9, "weight_decay": 0.0}
    recipe = toy.recipe(optim=settings, augment=(), stages=(Stage(epochs=1, lr=0.01),))

    def gradients(rank, size):
        learner = Learner(recipe, toy.data, 0, Replica(torch.device("cpu"), rank, size))
        learner.begin(0, 0, toy.data.targets)
        learner.plain.eval()  # no batch norm over a share, no dropout
        learner._update(next(learner.epochs.batches(np.random.default_rng(0), np.random.default_rng(0), rank, size)))
        return [p.grad.clone() for p in learner.plain.parameters()]

    whole, halves = gradients(0, 1), (gradients(0, 2), gradients(1, 2))
    for expected, a, b in zip(whole, *halves, strict=True):
        torch.testing.assert_close((a + b) / 2, expected, rtol=1e-4, atol=1e-6)
