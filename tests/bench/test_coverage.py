"""The bench of the intervals' coverage: holds are counted as said, and made-up patients are of unequal size."""

import numpy as np
import pytest

from hms_ray.core.seeds import stream


@pytest.fixture
def coverage(bench_named):
    return bench_named("coverage")


def test_coverage_is_a_share_of_the_studies(coverage, monkeypatch):
    monkeypatch.setattr(coverage, "FRESH", 200)
    lines = list(coverage.run(["--patients", "30", "--studies", "8", "--oof"]))
    assert lines[0].startswith("pool auto, nominal 95 %")
    assert lines[1].startswith("     30 made-up patients, 8 studies: score ")
    assert len(lines) == 2


def test_an_interval_is_widened_by_the_error_of_what_stands_for_the_truth(coverage):
    said, low, high = np.array([0.5, 0.0]), np.array([0.5 - 0.3, -0.1]), np.array([0.5 + 0.3, 0.1])
    error = np.array([0.4, 0.0]) / 1.96  # hypot of 0.3 and 0.4 is 0.5
    for truth, expected in (
        ([0.99, 0.09], [True, True]),
        ([1.01, 0.11], [False, False]),
        ([0.01, -0.2], [True, False]),
    ):
        study = coverage.Study(said, low, high, np.array(truth), error, in_sample=0.4)
        assert study.holds.tolist() == expected


def test_halves_share_no_patient_and_are_scored_on_each_other(coverage):
    members = coverage.Members(*coverage.clustered(60, 3, stream(0, "test")))
    half, others = members.of(np.arange(30)), members.of(np.arange(30, 60))
    found = coverage.measure(half, others, "uniform", seed=0)
    score = coverage.TASK.row_scores
    assert found.said[0] == pytest.approx(score(half.targets, half.probs.mean(1)).mean())
    assert found.truth[0] == pytest.approx(score(others.targets, others.probs.mean(1)).mean())
    np.testing.assert_allclose([found.said[1], found.truth[1]], 0, atol=1e-12)


def test_made_up_patients_have_unequal_numbers_of_units(coverage):
    probs, targets, groups = coverage.clustered(50, 3, stream(0, "test"))
    np.testing.assert_allclose(probs.sum(-1), 1)
    np.testing.assert_allclose(targets.sum(-1), 1)
    sizes = np.bincount(groups)
    assert len(sizes) == 50 and sizes.min() >= 1 and sizes.std() > 0
