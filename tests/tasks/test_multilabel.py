"""Known answers of the multi-label task: scikit-learn's log loss and torch's cross-entropy."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.special import xlog1py, xlogy
from sklearn.metrics import log_loss
from torch.nn.functional import binary_cross_entropy_with_logits

from hms_ray import tasks
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.tasks.multilabel import Task

TASK = Task(("murmur", "click", "rub"))
WORST = 15 * math.log(10)  # -log(1e-15)


@pytest.fixture
def labels() -> np.ndarray:
    """Labels (400, 3) of 0 and 1: one frequent, one even, one rare."""
    return (np.random.default_rng(0).random((400, 3)) < [0.8, 0.5, 0.03]).astype(float)


@pytest.fixture
def soft() -> np.ndarray:
    """Labels (400, 3) between 0 and 1, some of them 0 or 1."""
    return np.random.default_rng(1).integers(0, 6, (400, 3)) / 5


@pytest.fixture
def logits() -> np.ndarray:
    """Logits (400, 3), none so large that the clip matters."""
    return np.random.default_rng(2).normal(0, 4, (400, 3))


def entropy(labels: np.ndarray) -> np.ndarray:
    """The entropy of each unit's labels in nats, mean over labels: (N, K) -> (N,)."""
    return -(xlogy(labels, labels) + xlog1py(1 - labels, -labels)).mean(-1)


@pytest.mark.parametrize(
    ("target", "prob", "score"),
    [
        ([0, 1, 1], [0.5, 0.5, 0.5], math.log(2)),
        ([0, 1, 1], [0, 1, 1], 0.0),
        ([0, 0, 0], [0.75, 0, 0], math.log(4) / 3),
        ([1, 0, 0], [0.25, 0.5, 0], (math.log(4) + math.log(2)) / 3),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], 0.0),
        ([0.75, 0, 1], [0.25, 0, 1], 0.5 * math.log(3) / 3),
    ],
)
def test_the_score_by_hand(target: list[float], prob: list[float], score: float) -> None:
    assert TASK.score(np.array([target]), np.array([prob])) == pytest.approx(score, rel=1e-12, abs=2e-15)


@pytest.mark.parametrize(
    ("target", "prob", "score"),
    [([1, 1, 1], [0, 0, 0], WORST), ([0, 0, 0], [1, 1, 1], WORST), ([0, 1, 0], [1, 1, 0], WORST / 3)],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_a_wrong_0_or_1_costs_the_clip_and_not_infinity(
    target: list[int], prob: list[int], score: float, dtype: type
) -> None:
    assert TASK.score(np.array([target], dtype), np.array([prob], dtype)) == pytest.approx(score, rel=1e-12)


def test_the_score_is_scikit_learns_log_loss(labels: np.ndarray, logits: np.ndarray) -> None:
    probs = TASK.to_probs(logits)
    expected = np.mean([log_loss(labels[:, k], probs[:, k], labels=[0, 1]) for k in range(3)])
    assert TASK.score(labels, probs) == pytest.approx(expected, rel=1e-12)
    assert TASK.row_scores(labels, probs).shape == (400,)


def test_the_score_of_soft_labels_is_the_log_loss_less_their_entropy(soft: np.ndarray, logits: np.ndarray) -> None:
    probs = TASK.to_probs(logits)
    log_losses = -(soft * np.log(probs) + (1 - soft) * np.log1p(-probs)).mean(-1)
    np.testing.assert_allclose(TASK.row_scores(soft, probs), log_losses - entropy(soft), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(TASK.row_scores(soft, soft), 0, atol=2e-15)


def test_the_loss_is_torchs_cross_entropy(soft: np.ndarray, logits: np.ndarray) -> None:
    x, y = torch.tensor(logits), torch.tensor(soft)
    loss = TASK.loss(x, y)
    assert loss.shape == (400,) and loss.dtype == torch.float32
    torch.testing.assert_close(loss.mean().double(), binary_cross_entropy_with_logits(x, y), rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_score_of_the_same_logits(labels: np.ndarray, soft: np.ndarray, logits: np.ndarray) -> None:
    for y in (labels, soft):
        loss = TASK.loss(torch.tensor(logits), torch.tensor(y)).double().numpy()
        scores = TASK.row_scores(y, TASK.to_probs(logits))
        np.testing.assert_allclose(loss - entropy(y), scores, rtol=1e-5, atol=1e-6)
    assert not entropy(labels).any(), "labels of 0 and 1 have no entropy: loss and score are one number"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_lose_nothing_but_their_own_rounding(
    soft: np.ndarray, logits: np.ndarray, dtype: torch.dtype
) -> None:
    half = torch.tensor(logits, dtype=dtype, requires_grad=True)
    loss = TASK.loss(half, torch.tensor(soft))
    torch.testing.assert_close(loss, TASK.loss(half.detach().double(), torch.tensor(soft)))
    loss.mean().backward()
    assert torch.isfinite(half.grad).all() and half.grad.abs().max() > 0


def test_the_gradient_of_the_loss_is_sigmoid_less_target(soft: np.ndarray, logits: np.ndarray) -> None:
    x = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    TASK.loss(x, torch.tensor(soft)).sum().backward()
    np.testing.assert_allclose(x.grad, (TASK.to_probs(logits) - soft) / 3, atol=1e-6)


def test_probabilities_of_any_logits_are_probabilities() -> None:
    probs = TASK.to_probs(np.array([[60000, -60000, 0]], dtype=np.float16))
    assert probs.dtype == np.float64
    TASK.check_probs(probs, "one row")
    np.testing.assert_array_equal(probs, [[1, 0, 0.5]])


def test_the_prior_is_the_best_constant(labels: np.ndarray, soft: np.ndarray) -> None:
    for y in (labels, soft):
        prior = TASK.prior(y)
        best = TASK.score(y, np.tile(prior, (400, 1)))
        for k in range(3):
            for step in (-0.01, 0.01):
                moved = prior + step * np.eye(3)[k]
                assert best < TASK.score(y, np.tile(moved, (400, 1)))


def test_each_label_is_a_question_of_two_outcomes() -> None:
    probs = np.array([[0.25, 1, 0], [0.5, 0.125, 1]])
    expected = [[[0.25, 0.75], [1, 0], [0, 1]], [[0.5, 0.5], [0.125, 0.875], [1, 0]]]
    np.testing.assert_array_equal(TASK.outcomes(probs), expected)
    np.testing.assert_array_equal(TASK.outcomes(probs == 1)[0], [[0, 1], [1, 0], [0, 1]])
    members = np.stack([probs, probs], axis=1)  # (N, M, K)
    assert TASK.outcomes(members).shape == (2, 2, 3, 2)
    np.testing.assert_array_equal(TASK.from_outcomes(TASK.outcomes(members)), members)


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ([np.nan, 1, 0], "must be finite"),
        ([0, -np.inf, 0], "must be finite"),
        ([0, 1, -0.5], r"must be within \[0, 1\]"),
        ([1.5, 1, 0], r"must be within \[0, 1\]"),
    ],
)
@pytest.mark.parametrize(("check", "what"), [("check_probs", "predictions"), ("check_targets", "targets")])
def test_rows_that_are_no_probabilities_are_named(row: list[float], rule: str, check: str, what: str) -> None:
    good = [0.5, 1, 1]
    values = r"\[" + ", ".join(f"{v:g}" for v in row) + r"\]"
    sentence = f"^oof.csv: {what} {rule} in each row; 2 do not, the first is row 2: {values}$"
    with pytest.raises(DataError, match=sentence):
        getattr(TASK, check)(np.array([good, good, row, row]), "oof.csv")


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3, 2)])
@pytest.mark.parametrize("check", ["check_probs", "check_targets"])
def test_other_shapes_are_refused(shape: tuple[int, ...], check: str) -> None:
    with pytest.raises(DataError, match=r"one column for each class \(murmur, click, rub\); their shape is \(4,"):
        getattr(TASK, check)(np.full(shape, 0.5), "oof.csv")


def test_labels_need_not_sum_to_1() -> None:
    rows = np.array([[0.0, 0, 0], [1, 1, 1]])
    TASK.check_targets(rows, "labels")
    TASK.check_probs(rows, "labels")


def test_a_task_survives_study_json() -> None:
    assert TASK.to_dict() == {"kind": "multilabel", "classes": ["murmur", "click", "rub"]}
    assert tasks.from_dict(TASK.to_dict()) == TASK


def test_a_task_without_labels_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^the number of classes of a multilabel task must be 1 or more; got 0: none$"
    ):
        tasks.from_dict({"kind": "multilabel", "classes": []})


def test_scoring_needs_no_torch() -> None:
    program = (
        "import sys, numpy as np; from hms_ray import tasks\n"
        "for kind in ('binary', 'multilabel'):\n"
        "    task = tasks.from_dict({'kind': kind, 'classes': ['a']})\n"
        "    task.score(np.ones((2, 1)), task.to_probs(np.zeros((2, 1))))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
