"""The optimism of a choice: a score is too good on the rows that were used to choose; here this is estimated.

The bootstrap bias correction of Tsamardinos, Greasidou and Borboudakis (2018): choose on the patients of a draw, score
on the patients that the draw leaves out, and compare.
"""

from __future__ import annotations

import numpy as np

from hms_ray.ensemble.bootstrap import by_group
from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.rows import Rows

SINGLE_DRAWS = 1000
POOL_DRAWS = 100


def best_single(losses: np.ndarray, groups: np.ndarray, weight: np.ndarray, rng: np.random.Generator) -> float | None:
    """Return the score of the best member on patients that were not used to choose it; losses (N, M).

    None with a single patient: no draw leaves a patient out.
    """
    sums, sizes = by_group(losses, groups, weight)
    if len(sizes) < 2:
        return None
    counts = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), SINGLE_DRAWS).astype(np.float64)
    counts = counts[(counts == 0).any(1)]
    left_out = (counts == 0).astype(np.float64)
    chosen = ((counts @ sums) / (counts @ sizes)[:, None]).argmin(1)
    scores = (left_out @ sums) / (left_out @ sizes)[:, None]
    return float(scores[np.arange(len(chosen)), chosen].mean())


def optimism_of_choice(rows: Rows, kept: np.ndarray, rng: np.random.Generator) -> float:
    """Return the optimism, in nats, in the score of the kept members' pool that is due to the choice of these members.

    rows: the units that the choice used, with every configuration that could have been chosen; kept: positions of those
    that were chosen. In each draw of patients two linear pools are fitted: one of all configurations, which can choose
    among them, and one of those kept. Both score worse on the patients left out; the excess of the first is due to
    the choice.
    """
    _, codes = np.unique(rows.groups, return_inverse=True)
    n_groups, excess = codes.max() + 1, []
    for _ in range(POOL_DRAWS):
        counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups))[codes] * rows.weight
        left_out = (counts == 0) & rows.scored
        if left_out.any() and (counts > 0).any():
            free = _optimism(rows, counts, left_out, np.arange(rows.n_members))
            excess.append(free - _optimism(rows, counts, left_out, kept))
    return float(np.mean(excess)) if excess else 0.0


def _optimism(rows: Rows, weight: np.ndarray, left_out: np.ndarray, members: np.ndarray) -> float:
    """Return how much worse the linear pool of these members is on the units left out than on those it is fitted on."""
    probs = rows.probs[:, members]
    losses = rows.losses(linear.fit(probs, rows.targets, weight).predict(probs))
    return float(np.average(losses[left_out], weights=rows.weight[left_out]) - np.average(losses, weights=weight))
