"""Training a fold: continued as if undisturbed, reproducible, blind to what it is scored on, and it learns."""

import math
import multiprocessing
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load
from timm.utils import ModelEmaV3
from torch import nn

from hms_ray.augment import mixup
from hms_ray.core.errors import TrialFailed
from hms_ray.study.epoch_selection import Candidates
from hms_ray.training import loop
from hms_ray.training.batches import StageBatches
from hms_ray.training.distributed import Replica, Team
from hms_ray.training.fold_model import FoldModel
from hms_ray.training.jobs import FoldStopped
from hms_ray.training.loop import train_fold
from hms_ray.training.stages import Stage
from tests.training import conftest
from tests.training.conftest import begun, rates_of


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


def train_until_killed(folder, is_inside):
    """Train until the second batch of the third epoch, and wait there."""
    steps, forward_backward = [], loop.forward_backward

    def stuck(model, batch, loss):
        steps.append(loss)
        if len(steps) == 2 * 5 + 2:
            is_inside.set()
            time.sleep(600)
        return forward_backward(model, batch, loss)

    torch.set_num_threads(1)
    loop.forward_backward = stuck
    conftest.train(conftest.make_recipe(), conftest.make_data(), folder)


def test_a_process_killed_inside_an_epoch_loses_that_epoch_alone(toy, tmp_path):
    processes = multiprocessing.get_context("spawn")
    is_inside = processes.Event()
    process = processes.Process(target=train_until_killed, args=(tmp_path / "b", is_inside), daemon=True)
    process.start()
    assert is_inside.wait(300)
    process.kill()
    process.join()
    seen = []
    resumed = toy.train(toy.recipe(), toy.data, tmp_path / "b", on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [3, 4]
    assert_same(resumed, toy.train(toy.recipe(), toy.data, tmp_path / "a"))


def test_training_leaves_no_trace_of_what_the_process_drew_before(toy, tmp_path):
    first = toy.train(toy.recipe(), toy.data, tmp_path / "a")
    torch.rand(1000)
    np.random.default_rng().random(10)
    assert_same(toy.train(toy.recipe(), toy.data, tmp_path / "b"), first)


def test_a_checkpoint_of_another_run_is_not_continued(toy, tmp_path):
    toy.train(toy.recipe(fingerprint="other", seed=8), toy.data, tmp_path / "a")
    assert_same(toy.train(toy.recipe(), toy.data, tmp_path / "a"), toy.train(toy.recipe(), toy.data, tmp_path / "b"))


def test_another_seed_gives_other_weights(toy, tmp_path):
    one, two = (toy.train(toy.recipe(seed=seed), toy.data, tmp_path / str(seed)) for seed in (1, 2))
    assert toy.weights(one) != toy.weights(two)


def test_the_network_learns(toy, tmp_path):
    data, task = toy.data, toy.data.task
    result = toy.train(toy.recipe(augment=(), stages=(Stage(epochs=12, lr=0.03),)), data, tmp_path / "a")
    prior = task.score(data.targets[result.rows], np.tile(task.prior(data.targets), (len(result.rows), 1)))
    assert task.score(data.targets[result.rows], result.probs[-1]) < 0.4 * prior


def test_what_is_held_out_does_not_change_the_weights(toy, tmp_path, monkeypatch):
    data, recipe = toy.data, toy.recipe()
    held_out = data.folds == 1
    x, targets, votes = data.inputs.x.clone(), data.targets.copy(), data.votes.copy()
    x[held_out], targets[held_out], votes[held_out] = float("nan"), 1 / 3, 7
    poisoned = replace(data, inputs=replace(data.inputs, x=x), targets=targets, votes=votes)
    clean, other = (toy.train(recipe, d, tmp_path / n, fold=1) for d, n in ((data, "a"), (replace(data), "b")))
    assert_same(clean, other)
    monkeypatch.setattr(FoldModel, "predict", lambda self, units, epoch: np.full((len(units), 3), 1 / 3))  # NaN fails
    assert toy.weights(toy.train(recipe, poisoned, tmp_path / "c", fold=1)) == toy.weights(clean)


def test_only_the_held_out_units_are_predicted_and_scored_on_the_population(toy, tmp_path):
    result = toy.train(toy.recipe(), toy.data, tmp_path / "a", fold=2)
    np.testing.assert_array_equal(result.rows, np.flatnonzero(toy.data.folds == 2))
    many = toy.data.votes[result.rows] >= 10
    score = toy.data.task.score(toy.data.targets[result.rows][many], result.probs[-1][many])
    assert result.epochs[-1]["score"] == pytest.approx(score, abs=1e-12)


@pytest.fixture
def predicted(monkeypatch):
    """The units that are predicted, one entry for each time."""
    found, predict = [], FoldModel.predict

    def noted(self, units, epoch):
        found.append((epoch, units.tolist()))
        return predict(self, units, epoch)

    monkeypatch.setattr(FoldModel, "predict", noted)
    return found


def test_each_epoch_predicts_what_is_scored_and_the_last_one_all(toy, tmp_path, predicted):
    result = toy.train(toy.recipe(), toy.data, tmp_path, fold=1)
    is_scored = toy.data.votes[result.rows] >= 10
    scored, rest = result.rows[is_scored].tolist(), result.rows[~is_scored].tolist()
    assert len(scored) == len(rest) == 10
    assert predicted == [(1, scored), (2, scored), (3, scored), (4, scored), (4, rest)]
    np.testing.assert_array_equal(np.isfinite(result.probs).all(-1), [*[is_scored] * 3, np.ones(20, bool)])


def test_where_all_units_are_scored_each_is_predicted_once_an_epoch(toy, tmp_path, predicted):
    result = toy.train(toy.recipe(min_votes=1), toy.data, tmp_path, fold=1)
    assert [(epoch, units) for epoch, units in predicted if units] == [(e, result.rows.tolist()) for e in (1, 2, 3, 4)]
    assert np.isfinite(result.probs).all()


def test_only_weights_of_candidates_are_kept(toy, tmp_path):
    """Of four epochs, at most the last two."""
    written, recipe = set(), toy.recipe(epoch="cross_fitted", candidates=Candidates(share=0.5))
    result = toy.train(
        recipe, toy.data, tmp_path, on_epoch=lambda row: written.update(p.stem for p in tmp_path.glob("weights/*"))
    )
    assert sorted(result.weights) == [3, 4] and written == {"3", "4"}


def test_a_limit_on_the_best_epoch_looks_at_candidates_alone(toy, tmp_path):
    """An early epoch that cannot be chosen does not save a fold that is bad from then on."""
    recipe, no = toy.recipe(epoch="best", candidates=Candidates(share=0.5), seed=1), math.inf
    stages = (Stage(epochs=2, lr=0.02), Stage(epochs=2, lr=1.0))
    recipe = replace(recipe, stages=stages)
    scores = [row["score"] for row in toy.train(recipe, toy.data, tmp_path / "a").epochs]
    assert scores[1] < scores[2], "the second stage spoils what the first has learnt"
    limits = [no, no, (scores[1] + scores[2]) / 2, no]
    stopped = toy.train(recipe, toy.data, tmp_path / "b", limits=limits)
    assert isinstance(stopped, FoldStopped) and len(stopped.epochs) == 3


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


def test_the_average_follows_its_own_law(toy, tmp_path, monkeypatch):
    seen, update = [], ModelEmaV3.update

    def noted(self, model, step):
        seen.append(model[0].weight.detach().clone())
        update(self, model, step)

    monkeypatch.setattr(ModelEmaV3, "update", noted)
    recipe = toy.recipe(optim={"ema": 0.5}, augment=(), stages=(Stage(epochs=1, lr=0.02),))
    averaged = load(toy.weights(toy.train(recipe, toy.data, tmp_path)))
    expected = seen[0]  # timm's warm-up: the first update copies, then the decay grows to its limit
    for update, weight in enumerate(seen[1:], start=1):
        decay = min(0.5, 1 - (1 + update) ** -(2 / 3))
        expected = decay * expected + (1 - decay) * weight
    assert len(seen) == 5
    torch.testing.assert_close(averaged["0.weight"], expected)


def test_gradients_are_clipped(toy):
    model, stage = begun(toy.recipe(), toy.data)
    loop.forward_backward(model, next(stage.epoch_batches(1, 0)), stage.loss)
    loop.clip_and_step(model, stage.optimizer, 1e-3)
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.network.parameters()]))
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
    with pytest.raises(AssertionError, match="3 thresholds for 4 epochs"):
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
        model, stage = begun(recipe, toy.data, rank=rank, size=size)
        model.network.eval()  # no batch norm over a share, no dropout
        loop.forward_backward(model, next(stage.epoch_batches(1, 0)), stage.loss)
        return [p.grad.clone() for p in model.network.parameters()]

    whole, halves = gradients(0, 1), (gradients(0, 2), gradients(1, 2))
    for expected, a, b in zip(whole, *halves, strict=True):
        torch.testing.assert_close((a + b) / 2, expected, rtol=1e-4, atol=1e-6)


WHOLE = {"lr": 0.02, "schedule": "one_cycle", "warmup": 0.4}


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_stages_that_continue_each_other_have_one_schedule(toy, tmp_path, monkeypatch, schedule):
    first = WHOLE | {"schedule": schedule}
    rates = rates_of(monkeypatch)
    toy.train(toy.recipe(stages=(Stage(epochs=6, **first),)), toy.data, tmp_path / "a")
    expected = rates.copy()
    rates.clear()
    parts = (Stage(epochs=1, **first), Stage(epochs=3, continues=True), Stage(epochs=2, continues=True, evaluations=2))
    result = toy.train(toy.recipe(stages=parts), toy.data, tmp_path / "b")
    assert rates == expected
    assert len(expected) == 6 * 5 and len(set(expected)) > 25
    assert {row["lr"] for row in result.epochs} == {0.02}


def test_stages_of_other_rows_continue_a_schedule_of_their_own_steps(toy, tmp_path, monkeypatch):
    """Half as many rows are fewer steps an epoch: 5, 5, and 3 twice; the rate ends where the schedule ends."""
    rates = rates_of(monkeypatch)
    parts = (Stage(epochs=2, **WHOLE), Stage(epochs=2, continues=True, min_votes=10))
    toy.train(toy.recipe(stages=parts), toy.data, tmp_path / "a")
    found = rates.copy()
    rates.clear()
    data = replace(toy.data, trust=np.where(np.isin(np.arange(60), np.flatnonzero(toy.data.folds)[:32]), 1.0, 0.0))
    toy.train(toy.recipe(stages=(Stage(epochs=4, **WHOLE),)), data, tmp_path / "b")  # 4 steps an epoch
    assert (len(found), len(rates)) == (16, 16)
    assert found == rates


def test_a_stage_of_its_own_begins_a_schedule_anew(toy, tmp_path, monkeypatch):
    rates = rates_of(monkeypatch)
    stages = (Stage(epochs=1, **WHOLE), Stage(epochs=1, continues=True), Stage(epochs=2, **WHOLE))
    toy.train(toy.recipe(stages=stages), toy.data, tmp_path / "a")
    assert rates[:10] == rates[10:]


def test_stages_that_continue_each_other_are_one_stage(toy, tmp_path):
    """Nothing but the names of the stages tells three stages of one schedule from one stage."""
    parts = (Stage(epochs=2, **WHOLE), Stage(epochs=1, continues=True), Stage(epochs=1, continues=True))
    one = toy.train(toy.recipe(stages=(Stage(epochs=4, **WHOLE),)), toy.data, tmp_path / "a")
    many = toy.train(toy.recipe(stages=parts), toy.data, tmp_path / "b")
    assert toy.weights(one) == toy.weights(many)
    np.testing.assert_array_equal(one.probs, many.probs)


CHAIN = (
    Stage(epochs=1, **WHOLE),
    Stage(epochs=2, continues=True, evaluations=2, min_votes=10),
    Stage(epochs=1, continues=True),
    Stage(epochs=1, lr=0.01),
)


@pytest.mark.parametrize("last", range(1, 8))
def test_a_chain_continued_after_any_epoch_equals_an_undisturbed_run(toy, tmp_path, last):
    """Also between the two evaluations of an epoch."""
    recipe = toy.recipe(stages=CHAIN, epoch="cross_fitted")

    def killed(row):
        if row["epoch"] == last:
            raise Interrupted

    with pytest.raises(Interrupted):
        toy.train(recipe, toy.data, tmp_path / "b", on_epoch=killed)
    continued = toy.train(recipe, toy.data, tmp_path / "b")
    undisturbed = toy.train(recipe, toy.data, tmp_path / "a")
    assert [row["stage"] for row in undisturbed.epochs] == [0, 1, 1, 1, 1, 2, 3]
    assert sorted(continued.weights) == list(range(1, 8))
    assert_same(continued, undisturbed)


def rows_seen(monkeypatch):
    """Note the rows of each batch that is made."""
    seen, batch = [], StageBatches._batch

    def noted(self, rows, windows=None):
        seen.append(rows.tolist())
        return batch(self, rows, windows)

    monkeypatch.setattr(StageBatches, "_batch", noted)
    return seen


@pytest.mark.parametrize("evaluations", [2, 3, 5])
def test_each_unit_is_trained_on_once_an_epoch_however_often_it_is_evaluated(toy, tmp_path, monkeypatch, evaluations):
    seen, at = rows_seen(monkeypatch), []
    plain = toy.recipe(stages=(Stage(epochs=2, lr=0.02, evaluations=evaluations),))
    result = toy.train(plain, toy.data, tmp_path / "a", on_epoch=lambda row: at.append(len(seen)))
    assert [row["epoch"] for row in result.epochs] == list(range(1, 2 * evaluations + 1))
    assert len(result.probs) == 2 * evaluations
    train = np.flatnonzero(toy.data.folds != 0).tolist()
    for epoch in (seen[:5], seen[5:]):
        assert sorted(row for rows in epoch for row in rows) == train
    assert seen[:5] != seen[5:], "each epoch has an order of its own"
    parts = np.diff([0, *at])
    assert at[evaluations - 1] == 5 and len(seen) == 10
    assert parts.max() - parts.min() <= 1 and parts.min() >= 1


def test_evaluations_do_not_change_the_order(toy, tmp_path, monkeypatch):
    seen = rows_seen(monkeypatch)
    toy.train(toy.recipe(stages=(Stage(epochs=1, lr=0.02),)), toy.data, tmp_path / "a")
    whole = seen.copy()
    seen.clear()
    toy.train(toy.recipe(stages=(Stage(epochs=1, lr=0.02, evaluations=2),)), toy.data, tmp_path / "b")
    assert seen == whole


def test_more_evaluations_than_batches_fail_the_trial(toy, tmp_path):
    recipe = toy.recipe(stages=(Stage(epochs=1, lr=0.02, evaluations=6),))
    with pytest.raises(TrialFailed, match="6 evaluations an epoch need as many batches; there are 5"):
        toy.train(recipe, toy.data, tmp_path / "a")


def test_a_stage_without_augmentations_sees_the_images_untouched(toy, tmp_path, monkeypatch):
    recipe = toy.recipe()
    recipe = replace(recipe, augment=(((mixup, mixup.Params(p=1.0)),), ()))
    seen, forward_backward = [], loop.forward_backward

    def noted(model, batch, loss):
        known = {x.numpy().tobytes() for x in toy.data.inputs.x.float()}
        seen.append({x.numpy().tobytes() in known for x in batch.x.contiguous()})
        return forward_backward(model, batch, loss)

    monkeypatch.setattr(loop, "forward_backward", noted)
    toy.train(recipe, toy.data, tmp_path / "a")
    assert len(seen) == 20 and all(False in found for found in seen[:10])
    assert seen[10:] == [{True}] * 10


def test_predictions_of_every_epoch_are_those_that_are_scored(toy, tmp_path):
    data, result = toy.data, toy.train(toy.recipe(stages=CHAIN), toy.data, tmp_path / "a", fold=2)
    many = data.votes[result.rows] >= 10
    assert len(result.probs) == len(result.epochs) == 7
    for probs, row in zip(result.probs, result.epochs, strict=True):
        assert row["score"] == data.task.score(data.targets[result.rows][many], probs[many])


@pytest.mark.parametrize(("rule", "kept"), [("last", [4]), ("cross_fitted", [1, 2, 3, 4])])
def test_the_weights_of_epochs_that_may_be_chosen_are_those_that_predict(toy, tmp_path, rule, kept):
    recipe = toy.recipe(epoch=rule)
    result = toy.train(recipe, toy.data, tmp_path / "a")
    assert sorted(result.weights) == kept
    model, x = recipe.build().eval(), toy.data.inputs.x[torch.from_numpy(result.rows)].float()
    for epoch, path in result.weights.items():
        model.load_state_dict(load(path.read_bytes()))
        with torch.inference_mode():
            probs = toy.data.task.to_probs(model(x).numpy())
        known = slice(None) if epoch == 4 else toy.data.votes[result.rows] >= 10
        np.testing.assert_allclose(probs[known], result.probs[epoch - 1][known], atol=1e-6)


def test_the_best_epoch_alone_keeps_its_weights(toy, tmp_path):
    result = toy.train(toy.recipe(epoch="best", stages=CHAIN), toy.data, tmp_path / "a")
    scores = [row["score"] for row in result.epochs]
    assert list(result.weights) == [1 + scores.index(min(scores))]
    assert [path.name for path in (tmp_path / "a" / "weights").iterdir()] == [
        f"{1 + scores.index(min(scores))}.safetensors"
    ]


def test_a_checkpoint_whose_weights_were_deleted_is_begun_anew(toy, tmp_path):
    """An epoch that may be chosen cannot do without them, and only training makes them."""
    recipe, seen = toy.recipe(epoch="cross_fitted"), []

    def killed(row):
        if row["epoch"] == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        toy.train(recipe, toy.data, tmp_path / "b", on_epoch=killed)
    (tmp_path / "b" / "weights" / "2.safetensors").unlink()
    again = toy.train(recipe, toy.data, tmp_path / "b", on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [1, 2, 3, 4]
    assert_same(again, toy.train(recipe, toy.data, tmp_path / "a"))


def test_a_compiled_network_learns_the_same_and_leaves_no_trace_in_names(toy, tmp_path, monkeypatch):
    """Traced by torch's compiler but run as it is, which takes a second instead of a minute."""
    compiled, compile_ = [], nn.Module.compile

    def traced(self):
        compiled.append(self)
        compile_(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    stages = (Stage(epochs=1, lr=0.02),)
    plain = toy.train(toy.recipe(stages=stages), toy.data, tmp_path / "a")
    assert compiled == []
    other = toy.train(toy.recipe(stages=stages, optim={"compile": True}), toy.data, tmp_path / "b")
    assert len(compiled) == 1, "the network that is trained, not its average"
    assert other.epochs[0]["train_loss"] == pytest.approx(plain.epochs[0]["train_loss"], rel=1e-4)
    weights = [load(toy.weights(result)) for result in (plain, other)]
    assert weights[0].keys() == weights[1].keys()
    np.testing.assert_allclose(other.probs, plain.probs, atol=1e-3)
