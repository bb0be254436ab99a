"""The choice of finalists before there was an allocation: a fixed number, by backward elimination.

Arguments are as in `hms_ray.search.pruning.ensemble_gain`, of one question a unit.
"""

import numpy as np

from hms_ray.ensemble.pools import linear
from hms_ray.search.pruning import ensemble_gain

SHRINKAGE = 40  # units: how many of them the belief in equal weights counts for, for each member
SHORTLIST = 3  # members of smallest weight that are tried when one has to go


def choose(targets: np.ndarray, probs: np.ndarray, count: int, min_gain: float = 0.0) -> list[int]:
    """Return which of M members (N, M, K), at most `count`, to train on all folds for the best ensemble of them.

    The member goes without which the pool of the rest is best, as long as there are more than `count` or the cheapest
    one brings less than `min_gain`. Members are compared by pools shrunk to equal weights. Of equals the first goes.
    """
    chosen, weights = np.arange(probs.shape[1]), _shrunk(targets, probs)
    while len(chosen) > 1:
        gone, its_weights = _cheapest(targets, probs[:, chosen], weights)
        fewer = np.delete(chosen, gone)
        if len(chosen) <= count:
            brought = ensemble_gain.gain(targets, probs[:, chosen[gone]], probs[:, fewer])
            if brought + linear.TOLERANCE >= min_gain:
                break
        chosen, weights = fewer, its_weights
    return chosen.tolist()


def _cheapest(targets: np.ndarray, probs: np.ndarray, weights: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the member that costs the shrunk pool least, by position, and the others' weights without it."""
    tried = []
    for member in np.argsort(weights, kind="stable")[:SHORTLIST]:
        others = np.delete(probs, member, axis=1)
        fitted = _shrunk(targets, others)
        tried.append((ensemble_gain.row_kl(targets, linear.pool(others, fitted)).mean(), int(member), fitted))
    return min(tried, key=lambda found: found[0])[1:]


def _shrunk(targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Fit pool weights (M,) to the units and, for each member, to SHRINKAGE made-up ones that it alone foresees."""
    _, members, outcomes = probs.shape
    alone = np.broadcast_to(np.eye(members)[:, :, None], (members, members, outcomes))
    certain = np.broadcast_to(np.eye(outcomes)[0], (members, outcomes))
    counts = np.append(np.ones(len(targets)), np.full(members, float(SHRINKAGE)))
    return linear.fit(np.concatenate([probs, alone]), np.concatenate([targets, certain]), counts).weights
