"""The best single member: the one that the task scores best."""

import numpy as np
import pytest

from hms_ray import tasks
from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import best_single

KINDS = {"votes": 3, "multilabel": 4, "binary": 1}


def a_problem(kind, seed, n_members=6):
    """A task, members' probabilities (M, N, K), half of them 0 or 1, and targets (N, K), of which some are 0 or 1."""
    task = tasks.from_dict({"kind": kind, "classes": list("abcd")[: KINDS[kind]]})
    rng = stream(seed, "best", kind)
    members = task.to_probs(rng.normal(0, 3, (n_members, 30, KINDS[kind])))
    members[::2] = task.to_probs(rng.normal(0, 1e3, (n_members, 30, KINDS[kind])))[::2]
    return task, members, task.to_probs(rng.choice([0.5, 100.0], (30, 1)) * rng.normal(0, 2, (30, KINDS[kind])))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_the_task_scores_the_chosen_one_best(kind, seed):
    task, members, targets = a_problem(kind, seed)
    pool = best_single.fit(task.outcomes(members).swapaxes(0, 1), task.outcomes(targets))
    scores = [task.score(targets, probs) for probs in members]
    assert pool.weights.tolist() == np.eye(6)[int(np.argmin(scores))].tolist()
    assert pool.gap is None


def test_the_units_weights_count():
    probs = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.4, 0.6], [0.1, 0.9]]])  # (N, M, K)
    targets = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert best_single.fit(probs, targets, np.array([1.0, 0.1])).weights.tolist() == [1, 0]
    assert best_single.fit(probs, targets, np.array([0.1, 1.0])).weights.tolist() == [0, 1]


def test_the_first_of_equals_is_taken():
    probs = np.tile([0.3, 0.7], (5, 4, 1))
    assert best_single.fit(probs, np.tile([0.5, 0.5], (5, 1))).weights.tolist() == [1, 0, 0, 0]
