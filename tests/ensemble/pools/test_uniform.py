"""The uniform pool: the plain mean."""

import numpy as np

from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import uniform


def test_it_is_the_mean_whatever_the_targets():
    rng = stream(0, "uniform")
    probs = rng.dirichlet(np.ones(3), (10, 4))
    for targets in rng.dirichlet(np.ones(3), (2, 10)):
        pool = uniform.fit(probs, targets, rng.uniform(0, 1, 10))
        assert pool.weights.tolist() == [0.25] * 4
        assert pool.gap is None
        np.testing.assert_allclose(pool.predict(probs), probs.mean(1), rtol=1e-15)
