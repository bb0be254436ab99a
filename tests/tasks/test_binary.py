"""The binary task is the multi-label task of one label, and takes no other number."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn.functional import binary_cross_entropy_with_logits

from hms_ray import tasks
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.tasks import multilabel
from hms_ray.tasks.binary import Task

TASK = Task(("abnormal",))


@pytest.fixture
def labels() -> np.ndarray:
    """Labels (300, 1) of 0 and 1."""
    return (np.random.default_rng(0).random((300, 1)) < 0.2).astype(float)


@pytest.fixture
def logits() -> np.ndarray:
    """Logits (300, 1), none so large that the clip matters."""
    return np.random.default_rng(1).normal(0, 4, (300, 1))


def test_the_score_is_scikit_learns_log_loss(labels: np.ndarray, logits: np.ndarray) -> None:
    probs = TASK.to_probs(logits)
    assert TASK.score(labels, probs) == pytest.approx(log_loss(labels, probs[:, 0]), rel=1e-12)


def test_the_loss_is_torchs_cross_entropy_and_the_score(labels: np.ndarray, logits: np.ndarray) -> None:
    x, y = torch.tensor(logits), torch.tensor(labels)
    loss = TASK.loss(x, y)
    torch.testing.assert_close(loss.mean().double(), binary_cross_entropy_with_logits(x, y), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, TASK.row_scores(labels, TASK.to_probs(logits)), rtol=1e-5, atol=1e-6)


def test_the_prior_is_the_share_of_positives(labels: np.ndarray) -> None:
    prior = TASK.prior(labels)
    np.testing.assert_allclose(prior, [labels.mean()])
    best = TASK.score(labels, np.tile(prior, (300, 1)))
    assert best < TASK.score(labels, np.tile(prior * 1.05, (300, 1)))
    assert best < TASK.score(labels, np.tile(prior * 0.95, (300, 1)))


@pytest.mark.parametrize("wrong", [0.0, 1.0])
def test_a_wrong_0_or_1_costs_the_clip_and_not_infinity(wrong: float) -> None:
    score = TASK.score(np.array([[1 - wrong]]), np.array([[wrong]]))
    assert score == pytest.approx(15 * math.log(10), rel=1e-12)


def test_the_outcomes_are_yes_and_no() -> None:
    np.testing.assert_array_equal(TASK.outcomes(np.array([[0.25], [1]])), [[[0.25, 0.75]], [[1, 0]]])


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[0.5], [np.nan]], r"labels: targets must be finite in each row; 1 do not, the first is row 1: \[nan\]"),
        ([[2], [-1]], r"labels: targets must be within \[0, 1\] in each row; 2 do not, the first is row 0: \[2\]"),
        ([1, 0], r"labels: targets must have one column for each class \(abnormal\); their shape is \(2,\)"),
        ([[1, 0]], r"labels: targets must have one column for each class \(abnormal\); their shape is \(1, 2\)"),
    ],
)
def test_bad_targets_are_named(rows: list, sentence: str) -> None:
    with pytest.raises(DataError, match=f"^{sentence}$"):
        TASK.check_targets(np.array(rows), "labels")


@pytest.mark.parametrize(("classes", "given"), [([], "0: none"), (["normal", "abnormal"], "2: normal, abnormal")])
def test_other_than_one_class_is_refused(classes: list[str], given: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^the number of classes of a binary task must be 1, the positive one; got {given}$"
    ):
        tasks.from_dict({"kind": "binary", "classes": classes})


def test_a_task_survives_study_json() -> None:
    assert TASK.to_dict() == {"kind": "binary", "classes": ["abnormal"]}
    assert tasks.from_dict(TASK.to_dict()) == TASK
    assert multilabel.Task(("abnormal",)) != TASK
