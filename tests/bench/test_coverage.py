"""The bench of the interval's coverage: it runs, and its studies are probabilities with patients of unequal size."""

import numpy as np

from hms_ray.seeds import stream


def test_coverage_is_a_share_of_the_studies(bench_named):
    lines = list(bench_named("coverage").run(["--patients", "30", "--studies", "8"]))
    assert lines[0] == "8 studies each, pool linear, nominal 95 %"
    share = float(lines[1].split()[2].removesuffix("%"))
    assert 50 < share <= 100


def test_studies_have_patients_of_unequal_size(bench_named):
    probs, targets, groups = bench_named("coverage").study(50, stream(0, "test"))
    np.testing.assert_allclose(probs.sum(-1), 1)
    np.testing.assert_allclose(targets.sum(-1), 1)
    sizes = np.bincount(groups)
    assert len(sizes) == 50 and sizes.min() >= 1 and sizes.std() > 0
