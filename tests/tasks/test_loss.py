"""Losses that weigh outcomes: against torch's pos_weight, scikit-learn's class weights and a focal loss by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hms_ray import tasks

VOTES = tasks.from_dict({"kind": "votes", "classes": ["a", "b", "c"]})
LABELS = tasks.from_dict({"kind": "multilabel", "classes": ["a", "b", "c"]})
BINARY = tasks.from_dict({"kind": "binary", "classes": ["disease"]})


@pytest.fixture
def logits() -> torch.Tensor:
    """Logits (60, 3) in double precision."""
    return torch.tensor(np.random.default_rng(0).normal(0, 3, (60, 3)))


@pytest.fixture
def held() -> torch.Tensor:
    """Labels (60, 3) of 0 and 1, of which the last is rare."""
    return torch.tensor((np.random.default_rng(1).random((60, 3)) < [0.5, 0.3, 0.1]).astype(float))


@pytest.fixture
def shares() -> torch.Tensor:
    """Vote shares (60, 3)."""
    return torch.tensor(np.random.default_rng(2).dirichlet(np.ones(3), 60))


def test_weights_of_labels_that_hold_are_torchs_pos_weight(logits: torch.Tensor, held: torch.Tensor) -> None:
    positive = torch.tensor([1.0, 2.5, 9.0])
    weights = torch.stack([positive, torch.ones(3)], dim=-1)
    expected = binary_cross_entropy_with_logits(logits, held, pos_weight=positive, reduction="none").mean(-1)
    torch.testing.assert_close(LABELS.loss(logits, held, weights).double(), expected, rtol=1e-5, atol=1e-6)


def test_weights_of_one_hot_votes_are_torchs_class_weights(logits: torch.Tensor) -> None:
    classes, weights = torch.arange(60) % 3, torch.tensor([1.0, 2.5, 9.0])
    targets = torch.nn.functional.one_hot(classes, 3)
    expected = cross_entropy(logits, classes, weights.double(), reduction="none")
    torch.testing.assert_close(VOTES.loss(logits, targets, weights).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_the_focal_loss_by_hand(logits: torch.Tensor, held: torch.Tensor, gamma: float) -> None:
    weights = torch.tensor([[0.25, 0.75], [1.0, 1.0], [3.0, 0.5]])
    found, plain = (LABELS.loss(logits, held, its, gamma).tolist() for its in (weights, None))
    for i, (x, y) in enumerate(zip(logits.tolist(), held.tolist(), strict=True)):
        terms = []
        for k, (logit, holds) in enumerate(zip(x, y, strict=True)):
            p = 1 / (1 + math.exp(-logit if holds else logit))  # of what is true
            terms.append((float(weights[k, 0 if holds else 1]), -((1 - p) ** gamma) * math.log(p)))
        assert found[i] == pytest.approx(sum(w * term for w, term in terms) / 3, rel=1e-4, abs=1e-6)
        assert plain[i] == pytest.approx(sum(term for _, term in terms) / 3, rel=1e-4, abs=1e-6)


def test_the_focal_loss_of_votes_by_hand(logits: torch.Tensor, shares: torch.Tensor) -> None:
    probs, weights = VOTES.to_probs(logits.numpy()), np.array([1.0, 2.0, 0.5])
    entropy = (shares.numpy() * np.log(shares.numpy()) * weights).sum(-1)
    expected = entropy - (weights * shares.numpy() * (1 - probs) ** 2 * np.log(probs)).sum(-1)
    found = VOTES.loss(logits, shares, torch.tensor(weights), 2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_soft_labels_weigh_both_outcomes() -> None:
    weights = torch.tensor([[4.0, 0.5]])
    found = BINARY.loss(torch.zeros(1, 1), torch.tensor([[0.25]]), weights)
    assert float(found) == pytest.approx((0.25 * 4 + 0.75 * 0.5) * math.log(2))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.875])
def test_balanced_weights_are_scikit_learns(share: float) -> None:
    held = (np.arange(80) < 80 * share).astype(int)
    expected = compute_class_weight("balanced", classes=np.array([1, 0]), y=held)
    np.testing.assert_allclose(BINARY.balance(held[:, None]), [expected], rtol=1e-12)
    classes = np.repeat([0, 1, 2], [10, 20, 70])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=classes)
    np.testing.assert_allclose(VOTES.balance(np.eye(3)[classes]), expected, rtol=1e-12)


def test_balanced_weights_are_torchs_pos_weight_up_to_scale(logits: torch.Tensor, held: torch.Tensor) -> None:
    """The usual pos_weight is negatives over positives; each label's loss is then a multiple of the balanced one."""
    weights, share = LABELS.balance(held.numpy()), held.numpy().mean(0)
    np.testing.assert_allclose(weights[:, 0] / weights[:, 1], (1 - share) / share, rtol=1e-12)
    for k in range(3):
        positive = torch.tensor((1 - share[k]) / share[k])
        expected = binary_cross_entropy_with_logits(logits[:, k], held[:, k], pos_weight=positive, reduction="none")
        found = BINARY.loss(logits[:, [k]], held[:, [k]], torch.tensor(weights[[k]])).double()
        torch.testing.assert_close(found, expected * weights[k, 1], rtol=1e-5, atol=1e-6)


def test_an_outcome_that_nobody_has_weighs_nothing_and_not_infinity() -> None:
    np.testing.assert_array_equal(LABELS.balance(np.array([[1, 0, 1], [1, 0, 0]])), [[1, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(VOTES.balance(np.array([[1, 0, 0], [0.5, 0, 0.5]])), [1 / 1.5, 0, 2])
