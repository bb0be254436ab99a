"""What an ensemble has to beat: the best member, the uniform average, and the class prior."""

import numpy as np

from hms_ray.ensemble._nested import splits
from hms_ray.tasks import Task


def best_single(task: Task, targets: np.ndarray, probs: np.ndarray) -> tuple[int, float]:
    """Return the member with the best score on these rows, and that score; probs (N, M, K).

    It is chosen in hindsight on the rows it is scored on, which favours the baseline: a cross-fitted ensemble that
    beats it has beaten more than anybody could have picked beforehand.
    """
    scores = [task.score(targets, probs[:, m]) for m in range(probs.shape[1])]
    best = int(np.argmin(scores))
    return best, scores[best]


def mean(probs: np.ndarray) -> np.ndarray:
    """Return the uniform average of the members, (N, M, K) -> (N, K)."""
    return probs.mean(1)


def prior(task: Task, targets: np.ndarray, folds: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Predict each fold by the best constant of the other folds' scored units, (N, K).

    Where the other folds hold no scored unit, all their units are used.
    """
    constants = np.empty_like(targets)
    for _, held_out in splits(folds):
        others = population & ~held_out
        constants[held_out] = task.prior(targets[others if others.any() else ~held_out])
    return constants
