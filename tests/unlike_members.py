"""Made-up members that err partly alike, for tests of who is kept beside whom."""

import numpy as np

from hms_ray.ensemble.pools import linear


def _softmax(logits):
    odds = np.exp(logits)
    return odds / odds.sum(-1, keepdims=True)


def simulate(rng, n_patients, noise, n_classes=4):
    """Patients of 1 to 11 units; members that err alike, by patient, and by unit, as large as `noise` (M,) says."""
    groups = np.repeat(np.arange(n_patients), rng.integers(1, 12, n_patients))
    n_units, members = len(groups), len(noise)
    logits = rng.normal(0, 1.5, (n_patients, n_classes))[groups] + rng.normal(0, 1, (n_units, n_classes))
    errors = rng.normal(0, 0.7, (n_patients, members, n_classes))[groups]
    errors += rng.normal(0, 0.6, (n_units, members, n_classes))
    alike = rng.normal(0, 0.5, (n_units, 1, n_classes))
    probs = _softmax(logits[:, None] + alike + errors * np.asarray(noise)[:, None])
    return rng.multinomial(12, _softmax(logits)) / 12, groups, probs


def pooled_loss(targets, probs):
    """What the best linear pool of these members scores on these units, but for the targets' entropy."""
    pooled = linear.fit(probs, targets).predict(probs)
    return -(targets * np.log(pooled)).sum(-1).mean()
