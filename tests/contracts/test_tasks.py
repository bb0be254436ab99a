"""What every task promises, also one nobody has written yet."""

import numpy as np
import pytest

from hms_ray import lookup, tasks
from hms_ray.tasks import CLIP, Task

N = 200


@pytest.fixture(params=lookup.names("tasks"))
def task(request: pytest.FixtureRequest) -> Task:
    """Each task, with three classes."""
    return tasks.from_dict({"kind": request.param, "classes": ["a", "b", "c"]})


def draw(task: Task, seed: int, spread: float = 3.0) -> np.ndarray:
    """Probabilities (N, K) of random logits."""
    return task.to_probs(np.random.default_rng(seed).normal(0, spread, (N, len(task.classes))))


def cross_entropy(task: Task, targets: np.ndarray, probs: np.ndarray) -> float:
    """The mean over units and questions."""
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
