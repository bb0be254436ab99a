"""The score is the competition's, the loss is its gradient-bearing twin."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from hms_ray import tasks
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.tasks.votes import Task

TASK = Task(("seizure", "lpd", "gpd", "lrda", "grda", "other"))
ONE_HOT = np.eye(6)[:1]
UNIFORM = np.full((1, 6), 1 / 6)


def competition_kl(targets: np.ndarray, probs: np.ndarray) -> float:
    """The competition's metric, term by term."""
    total = 0.0
    for target_row, prob_row in zip(targets, probs, strict=True):
        for target, prob in zip(target_row.tolist(), prob_row.tolist(), strict=True):
            clipped = min(max(prob, 1e-15), 1 - 1e-15)
            total += target * math.log(target / clipped) if target else 0.0
    return total / len(targets)


@pytest.fixture
def votes() -> np.ndarray:
    """Vote shares (500, 6) of panels of 1 to 20 experts, most classes without a vote."""
    rng = np.random.default_rng(0)
    counts = np.array([rng.multinomial(rng.integers(1, 21), rng.dirichlet(np.full(6, 0.3))) for _ in range(500)])
    return counts / counts.sum(1, keepdims=True)


@pytest.fixture
def logits() -> np.ndarray:
    """Logits (500, 6), a few of them extreme."""
    return np.random.default_rng(1).normal(0, 20, (500, 6))


@pytest.mark.parametrize(
    ("target", "prob", "score"),
    [
        (ONE_HOT, UNIFORM, math.log(6)),
        (ONE_HOT, ONE_HOT, 0.0),  # -log(1 - 1e-15)
        (ONE_HOT, np.eye(6)[1:2], 15 * math.log(10)),
        (UNIFORM, UNIFORM, 0.0),
        ([[0.5, 0.5, 0, 0, 0, 0]], [[0.25, 0.5, 0.25, 0, 0, 0]], 0.5 * math.log(2)),
        ([[0.75, 0.25, 0, 0, 0, 0]], [[0.25, 0.75, 0, 0, 0, 0]], 0.5 * math.log(3)),
    ],
)
def test_the_score_by_hand(target: np.ndarray, prob: np.ndarray, score: float) -> None:
    assert TASK.score(np.asarray(target), np.asarray(prob)) == pytest.approx(score, rel=1e-12, abs=2e-15)


def test_the_score_is_the_competitions(votes: np.ndarray, logits: np.ndarray) -> None:
    probs = TASK.to_probs(logits)
    assert (probs < 1e-15).any(), "the clip must matter"
    assert TASK.score(votes, probs) == pytest.approx(competition_kl(votes, probs), rel=1e-12)
    assert TASK.row_scores(votes, probs).shape == (500,)


def test_the_loss_is_scipys_divergence(votes: np.ndarray, logits: np.ndarray) -> None:
    logits = logits / 10
    loss = TASK.loss(torch.tensor(logits), torch.tensor(votes))
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss, entropy(votes, TASK.to_probs(logits), axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_lose_nothing_but_their_own_rounding(
    votes: np.ndarray, logits: np.ndarray, dtype: torch.dtype
) -> None:
    half = torch.tensor(logits, dtype=dtype, requires_grad=True)
    loss = TASK.loss(half, torch.tensor(votes, dtype=dtype).float())
    reference = TASK.loss(half.detach().double(), torch.tensor(votes, dtype=dtype).double())
    torch.testing.assert_close(loss, reference)
    loss.mean().backward()
    assert torch.isfinite(half.grad).all() and half.grad.abs().max() > 0


def test_the_gradient_of_the_loss_is_softmax_less_target(votes: np.ndarray, logits: np.ndarray) -> None:
    x = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    TASK.loss(x, torch.tensor(votes)).sum().backward()
    np.testing.assert_allclose(x.grad, TASK.to_probs(logits.astype(np.float32)) - votes, atol=1e-5)


def test_probabilities_of_any_logits_are_probabilities() -> None:
    probs = TASK.to_probs(np.array([[1e4, -1e4, 0, 0, 0, 0], [60000] * 6], dtype=np.float16))
    assert probs.dtype == np.float64
    TASK.check_probs(probs, "two rows")
    np.testing.assert_allclose(probs, [[1, 0, 0, 0, 0, 0], [1 / 6] * 6])


def test_the_prior_is_the_best_constant(votes: np.ndarray) -> None:
    prior = TASK.prior(votes)
    best = TASK.score(votes, np.tile(prior, (500, 1)))
    for moved in np.random.default_rng(2).dirichlet(200 * prior, 20):
        assert best < TASK.score(votes, np.tile(moved, (500, 1)))


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ([np.nan, 1, 0, 0, 0, 0], "must be finite"),
        ([np.inf, 0, 0, 0, 0, 0], "must be finite"),
        ([-0.5, 1.5, 0, 0, 0, 0], "must not be negative"),
        ([3, 2, 0, 0, 0, 0], "must sum to 1"),
        ([0] * 6, "must sum to 1"),
        ([0.998, 0, 0, 0, 0, 0], "must sum to 1"),
    ],
)
@pytest.mark.parametrize("check", ["check_probs", "check_targets"])
def test_rows_that_are_no_shares_are_named(row: list[float], rule: str, check: str) -> None:
    rows = np.concatenate([UNIFORM, UNIFORM, [row], [row]])
    with pytest.raises(DataError, match=f"oof.csv: .* {rule} in each row; 2 do not, the first is row 2: "):
        getattr(TASK, check)(rows, "oof.csv")


def test_rounded_shares_pass() -> None:
    TASK.check_probs(np.full((3, 6), 0.1667), "rounded")
    TASK.check_probs(np.full((3, 6), np.float16(1 / 6)), "half")


def test_columns_of_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match=r"oof.csv: predictions must have one column for each class \(seizure"):
        TASK.check_probs(np.full((3, 5), 0.2), "oof.csv")


@pytest.mark.parametrize(("classes", "given"), [((), "0: none"), (("seizure",), "1: seizure")])
def test_votes_need_a_choice(classes: tuple[str, ...], given: str) -> None:
    with pytest.raises(ConfigError, match=f"^the number of classes of a votes task must be 2 or more; got {given}$"):
        tasks.from_dict({"kind": "votes", "classes": list(classes)})


def test_a_task_survives_study_json() -> None:
    assert TASK.to_dict() == {"kind": "votes", "classes": list(TASK.classes)}
    assert tasks.from_dict(TASK.to_dict()) == TASK


def test_an_unknown_kind_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"no tasks entry named 'vote'; there are: .*votes.* Did you mean 'votes'"):
        tasks.from_dict({"kind": "vote", "classes": ["a"]})


def test_scoring_needs_no_torch() -> None:
    code = "import sys, hms_ray.tasks.votes as v; v.Task(('a', 'b')); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
