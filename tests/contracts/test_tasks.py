"""What every task promises, also one nobody has written yet."""

import json
from itertools import product

import numpy as np
import pytest
import torch

from hms_ray import registry, tasks
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.tasks import CLIP, Task

N = 200


@pytest.fixture(params=registry.names("tasks"))
def task(request: pytest.FixtureRequest) -> Task:
    """Each task, with three classes where it takes three, else with one."""
    try:
        return tasks.from_dict({"kind": request.param, "classes": ["a", "b", "c"]})
    except ConfigError:
        return tasks.from_dict({"kind": request.param, "classes": ["a"]})


def draw(task: Task, seed: int, spread: float = 3.0) -> np.ndarray:
    """Probabilities (N, K) of random logits."""
    return task.to_probs(np.random.default_rng(seed).normal(0, spread, (N, len(task.classes))))


def cross_entropy(task: Task, targets: np.ndarray, probs: np.ndarray) -> float:
    """The cross-entropy of the outcomes, mean over units and questions."""
    log_outcomes = np.log(np.clip(task.outcomes(probs), CLIP, 1 - CLIP))
    return float(-(task.outcomes(targets) * log_outcomes).sum(-1).mean())


def test_outcomes_are_distributions_of_any_leading_shape(task: Task) -> None:
    probs = draw(task, 0).reshape(10, 20, -1)
    outcomes = task.outcomes(probs)
    assert outcomes.shape[:2] == (10, 20)
    assert (outcomes >= 0).all()
    np.testing.assert_allclose(outcomes.sum(-1), 1, rtol=1e-12)
    np.testing.assert_array_equal(task.outcomes(probs[3]), outcomes[3])


def test_from_outcomes_takes_outcomes_back(task: Task) -> None:
    for probs in (draw(task, 0), draw(task, 1).reshape(10, 20, -1), draw(task, 2, spread=200)):
        np.testing.assert_array_equal(task.from_outcomes(task.outcomes(probs)), probs)


def test_the_score_is_the_cross_entropy_of_outcomes_but_for_a_constant(task: Task) -> None:
    targets, one, other = draw(task, 0), draw(task, 1), draw(task, 2, spread=30)
    assert (other < CLIP).any(), "the clip must matter"
    gained = task.score(targets, one) - task.score(targets, other)
    assert gained == pytest.approx(cross_entropy(task, targets, one) - cross_entropy(task, targets, other), rel=1e-12)


def test_the_loss_is_the_score_but_for_a_constant(task: Task) -> None:
    targets, one, other = draw(task, 0), np.zeros((N, len(task.classes))), np.log(draw(task, 1))
    losses = [task.loss(torch.tensor(x), torch.tensor(targets)) for x in (one, other)]
    scores = [task.row_scores(targets, task.to_probs(x)) for x in (one, other)]
    assert losses[0].shape == (N,) and losses[0].dtype == torch.float32
    np.testing.assert_allclose(losses[1] - losses[0], scores[1] - scores[0], rtol=1e-4, atol=1e-5)


def test_the_loss_with_weights_of_1_and_no_focus_is_the_loss(task: Task) -> None:
    logits, targets = torch.tensor(np.log(draw(task, 1))), torch.tensor(draw(task, 0))
    ones = torch.ones(task.outcomes(draw(task, 0))[0].shape)
    assert torch.equal(task.loss(logits, targets, ones, focal=0.0), task.loss(logits, targets))
    torch.testing.assert_close(task.loss(logits, targets, 3 * ones), 3 * task.loss(logits, targets))


@pytest.mark.parametrize("focal", [0.5, 2.0])
def test_focus_takes_most_from_what_is_predicted_well(task: Task, focal: float) -> None:
    sure = task.decide(draw(task, 0)).astype(float)  # certain targets: the loss has no entropy to take off
    right, wrong = (torch.tensor(10 * sign * (sure - 0.5)) for sign in (1, -1))
    targets = torch.tensor(sure)
    assert (task.loss(right, targets, focal=focal) < 0.1 * task.loss(right, targets)).all()
    torch.testing.assert_close(task.loss(wrong, targets, focal=focal), task.loss(wrong, targets), rtol=0.02, atol=0)


def test_balanced_weights_are_1_in_the_mean_and_0_for_what_does_not_occur(task: Task) -> None:
    targets = task.decide(draw(task, 0)).astype(float)
    shares = task.outcomes(targets).mean(0)
    weights = task.balance(targets)
    assert weights.shape == shares.shape
    np.testing.assert_allclose((shares * weights).sum(-1), 1, rtol=1e-12)
    one = task.balance(targets[:1])
    assert ((one > 0) == (task.outcomes(targets[0]) > 0)).all()
    assert np.isfinite(one).all()


def test_the_score_is_0_of_the_targets_and_more_of_anything_else(task: Task) -> None:
    targets = draw(task, 0)
    assert task.score(targets, targets) == pytest.approx(0, abs=1e-14)
    assert (task.row_scores(targets, draw(task, 1)) > 0).all()
    assert np.isfinite(task.row_scores(targets.round(), 1 - targets.round())).all()


def test_targets_as_predictions_are_right_in_every_metric(task: Task) -> None:
    targets = task.decide(draw(task, 0)).astype(float)
    found = task.metrics(targets, targets)
    assert (found.accuracy, found.macro_f1, found.micro_f1, found.macro_auroc) == (1, 1, 1, 1)
    assert found.calibration_error == 0
    assert found.log_loss == pytest.approx(0, abs=1e-13)


def test_metrics_agree_with_each_other_and_with_the_score(task: Task) -> None:
    targets, probs = draw(task, 0), draw(task, 1)
    found, size = task.metrics(targets, probs), len(task.classes)
    assert (found.classes, found.units, found.score) == (task.classes, N, task.score(targets, probs))
    assert found.log_loss == pytest.approx(cross_entropy(task, targets, probs), rel=1e-12)
    assert found.log_loss >= task.metrics(targets, targets).log_loss, "no prediction beats the targets themselves"
    assert found.confusion.shape in {(size, size), (size, 2, 2)} and found.confusion.sum() % N == 0
    for name in ("support", "precision", "recall", "specificity", "f1", "auroc", "class_calibration"):
        assert getattr(found, name).shape == (size,)
    np.testing.assert_array_equal(found.support, task.decide(targets).sum(0))
    np.testing.assert_allclose(found.f1, 2 / (1 / found.precision + 1 / found.recall))
    assert 0 < found.accuracy < 1 and 0 < found.calibration_error < 1


def test_thresholds_that_a_task_chooses_are_ones_that_it_takes(task: Task) -> None:
    targets, probs = draw(task, 0), draw(task, 1)
    thresholds = task.thresholds(targets, probs)
    assert thresholds is None or thresholds.shape == (len(task.classes),)
    assert (thresholds is not None) == task.asks_each_class
    found, plain = (task.metrics(targets, probs, its) for its in (thresholds, None))
    np.testing.assert_array_equal(found.support, plain.support)
    assert (found.f1 >= plain.f1).all() and found.macro_auroc == plain.macro_auroc
    np.testing.assert_array_equal(task.confusion(targets, probs, thresholds), found.confusion)


def test_metrics_do_not_depend_on_the_order_of_units(task: Task) -> None:
    targets, probs, order = draw(task, 0), draw(task, 1), np.random.default_rng(2).permutation(N)
    one, other = (task.metrics(targets[rows], probs[rows]).to_dict() for rows in (np.arange(N), order))
    assert one["confusion"] == other["confusion"]
    for name in ("log_loss", "accuracy", "macro_f1", "micro_f1", "macro_auroc", "calibration_error"):
        assert one[name] == pytest.approx(other[name], rel=1e-12)


def test_metrics_of_one_unit_can_be_written_down(task: Task) -> None:
    for unit in range(5):
        content = task.metrics(draw(task, 0)[[unit]], draw(task, 1)[[unit]]).to_dict()
        assert content["units"] == 1 and set(content["per_class"]) == set(task.classes)
        assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_the_prior_beats_other_constants(task: Task) -> None:
    targets = draw(task, 0)
    prior = task.prior(targets)
    assert prior.shape == (len(task.classes),)
    task.check_probs(prior[None], "prior")
    best = task.score(targets, np.tile(prior, (N, 1)))
    for other in draw(task, 1, spread=1.0)[:20]:
        assert best < task.score(targets, np.tile(other, (N, 1)))


@pytest.mark.parametrize("logit", [6e4, -6e4, 0.0])
def test_extreme_logits_give_a_finite_loss_and_gradient(task: Task, logit: float) -> None:
    logits = torch.zeros(N, len(task.classes))
    logits[:, 0] = logit
    logits.requires_grad_()
    weights = torch.tensor(task.balance(draw(task, 0)))
    options = [(None, 0.0), (weights, 0.5), (None, 2.0)]
    for targets, (its, focal) in product((draw(task, 0), draw(task, 1, spread=1e5)), options):
        loss = task.loss(logits, torch.tensor(targets), its, focal)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()


def test_probabilities_of_any_logits_pass_the_checks(task: Task) -> None:
    for spread in (1.0, 100.0, 1e5):
        probs = draw(task, 0, spread)
        assert probs.dtype == np.float64
        task.check_probs(probs, "drawn")
        task.check_targets(probs, "drawn")


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 1.5])
def test_what_is_no_probability_is_refused_by_row(task: Task, value: float) -> None:
    rows = draw(task, 0)
    rows[7, 0] = value
    for check in (task.check_probs, task.check_targets):
        with pytest.raises(DataError, match=r"^oof.csv: .* 1 do not, the first is row 7: \["):
            check(rows, "oof.csv")


def test_rows_of_another_width_are_refused(task: Task) -> None:
    for check in (task.check_probs, task.check_targets):
        with pytest.raises(DataError, match=r"^oof.csv: .* one column for each class .*; their shape is \(200, "):
            check(np.hstack([draw(task, 0), np.zeros((N, 1))]), "oof.csv")


def test_a_task_survives_study_json(task: Task) -> None:
    assert tasks.from_dict(task.to_dict()) == task
