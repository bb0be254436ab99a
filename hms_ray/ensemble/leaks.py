"""Members that know too much: far better than all others, or right to the digit where no other is even near."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hms_ray.ensemble.bootstrap import by_group, standard_errors
from hms_ray.ensemble.rows import Rows

FAR = 0.6  # a score below this share of the next best member's,
SURE = 6.0  # by so many standard errors of the paired difference, by patient
UNCANNY = 0.02  # a unit's loss below this share of the best other member's there,
WRONG = 0.05  # which is more than this, in nats
FEW, RARE = 5, 0.005  # so many units, and this share of all, may be luck,
TIMES = 10  # and so may be this multiple of what the others have, in the median
SHOWN = 5


def notes(rows: Rows, losses: np.ndarray, unit_names: np.ndarray) -> Iterator[str]:
    """Yield a sentence for each member that looks as if it had seen the targets, with the units that show it.

    losses (n, M) are those of the scored units, whose names unit_names (n,) are. Fewer than three members say nothing
    about each other.
    """
    if losses.shape[1] < 3:
        return
    groups, weight = rows.groups[rows.scored], rows.weight[rows.scored]
    ahead = _best_other(losses) - losses  # (n, M), nats
    uncanny = (losses < UNCANNY * (ahead + losses)) & (ahead + losses > WRONG)
    counts, scores = uncanny.sum(0), weight @ losses / weight.sum()
    for m, name in enumerate(rows.names):
        others = np.delete(np.arange(len(scores)), m)
        rest, next_best = np.median(counts[others]), others[scores[others].argmin()]
        many = counts[m] > max(FEW, RARE * len(losses), TIMES * rest)
        gain = losses[:, next_best] - losses[:, m]
        if many or (scores[m] < FAR * scores[next_best] and _mean_over_error(gain, groups, weight) > SURE):
            first = np.lexsort((-ahead[:, m], ~uncanny[:, m]))[:SHOWN]
            yield (
                f"{name} may have seen its targets: it scores {scores[m]:.5f}, the next best {scores[next_best]:.5f}, "
                f"and is all but exact on {counts[m]} units where no other is near (others: {rest:g}), "
                f"such as {', '.join(map(str, unit_names[first]))}"
            )


def _best_other(losses: np.ndarray) -> np.ndarray:
    """Return for each unit and member the smallest loss of any other member, (n, M)."""
    two = np.partition(losses, 1, axis=1)[:, :2]
    return np.where(losses == two[:, :1], two[:, 1:], two[:, :1])


def _mean_over_error(gain: np.ndarray, groups: np.ndarray, weight: np.ndarray) -> float:
    sums, sizes = by_group(gain[:, None], groups, weight)
    error = standard_errors(sums, sizes)[0] if len(sizes) > 1 else np.inf
    return float(sums.sum() / sizes.sum() / error) if error > 0 else np.inf
