"""Members that may have seen their targets: much better than all others, or exact where no other is close."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hms_ray.ensemble.bootstrap import mean_and_error
from hms_ray.ensemble.rows import Rows

FAR = 0.6  # a score below this share of the next best member's,
SURE = 6.0  # by this many standard errors of the paired difference, by patient
UNCANNY = 0.02  # a unit's loss below this share of the best other member's loss there,
WRONG = 0.05  # which is above this, in nats
FEW, RARE = 5, 0.005  # up to this number of such units, or this share of all units, may be chance;
TIMES = 10  # so may this multiple of the other members' median number
SHOWN = 5


def notes(rows: Rows, losses: np.ndarray, unit_names: np.ndarray) -> Iterator[str]:
    """Yield a sentence for each suspicious member, with the units that show it.

    losses (n, M): of the scored units, whose names are unit_names (n,). With fewer than three members nothing can be
    compared, and there are no notes.
    """
    if losses.shape[1] < 3:
        return
    groups, weight = rows.groups[rows.scored], rows.weight[rows.scored]
    two = np.partition(losses, 1, axis=1)[:, :2]
    best_other = np.where(losses == two[:, :1], two[:, 1:], two[:, :1])  # (n, M)
    ahead = best_other - losses
    uncanny = (losses < UNCANNY * (ahead + losses)) & (ahead + losses > WRONG)
    counts, scores = uncanny.sum(0), weight @ losses / weight.sum()
    for m, name in enumerate(rows.names):
        others = np.delete(np.arange(len(scores)), m)
        typical, next_best = np.median(counts[others]), others[scores[others].argmin()]
        suspicious = counts[m] > max(FEW, RARE * len(losses), TIMES * typical)
        if not suspicious and scores[m] < FAR * scores[next_best]:
            gain, error = mean_and_error(losses[:, next_best] - losses[:, m], groups, weight)
            suspicious = gain > SURE * error
        if suspicious:
            first = np.lexsort((-ahead[:, m], ~uncanny[:, m]))[:SHOWN]
            yield (
                f"{name} may have seen its targets: it scores {scores[m]:.5f}, the next best member "
                f"{scores[next_best]:.5f}; on {counts[m]} units it is almost exact where no other member is close "
                f"(others: {typical:g}), such as {', '.join(map(str, unit_names[first]))}"
            )
