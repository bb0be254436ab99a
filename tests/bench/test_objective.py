"""The bench of what a trial is told: known numbers come back, and what orders is not what it is compared with."""

import numpy as np
import pandas as pd
import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError


@pytest.fixture
def objective(bench_named):
    return bench_named("objective")


def test_the_noise_of_a_fold_is_found_beside_the_effects_of_folds(objective):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (400, 1)) + rng.normal(0, 5, 5) + rng.normal(0, 1, (400, 5))
    assert objective.noise(scores) == pytest.approx(0.5, rel=0.1)
    assert objective.noise(np.tile(rng.normal(size=5), (4, 1))) == np.inf, "all configurations are equal"


def test_a_fold_is_compared_with_the_others_alone(objective):
    """Every fold ranks the configurations at random: their order on it tells nothing of that on the others."""
    scores = np.random.default_rng(0).normal(size=(2000, 4))
    assert abs(objective.order_of(scores, 1)) < 0.05 > abs(objective.order_of(scores, 2))
    assert objective.order_of(scores[:, :1].repeat(4, axis=1), 1) == pytest.approx(1)
    assert np.isnan(objective.order_of(scores, 4))


def test_a_configuration_delivers_each_fold_at_the_epoch_that_the_others_choose(objective):
    curves = np.array([[[0.9, 0.5, 0.75], [0.9, 0.8, 0.6], [0.9, 0.8, 0.5]]])
    units = np.array([1, 1, 2])
    # the first two at epoch 3, where their others have .53 and .58, but the third at 2: .65 after it and .675 after 3
    assert objective.deliver_plainly(curves, units, 2) == pytest.approx([(0.75 + 0.6 + 2 * 0.8) / 4])
    assert objective.deliver(curves, units) == pytest.approx([(0.75 + 0.6 + 2 * 0.5) / 4]), "the last ones"


def test_more_folds_of_fewer_trials_are_searched_with_less_noise(objective):
    best, first = objective.search(0.0, 1, 15, seed=0)
    assert best <= first < 0, "without noise the best one is found"
    assert objective.search(0.0, 2, 15, seed=0) == (best, first)
    assert objective.search(5.0, 1, 15, seed=0) != (best, first)


def test_a_study_is_told_epoch_by_epoch(objective, tmp_path):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame([(fold, epoch) for fold in range(3) for epoch in range(1, 7)], columns=["fold", "epoch"])
    for trial in range(6):
        files.write_table(
            tmp_path / f"trials/t-{trial}/epochs.parquet",
            rows.assign(score=trial + rng.random(len(rows)) / 100 - rows.epoch),
        )
    files.write_table(tmp_path / "trials/stopped/epochs.parquet", rows[:3].assign(score=0.0))
    votes = pd.DataFrame({"fold": [0, 0, 1, 2, 2], "votes": [12, 3, 12, 12, 10]})
    files.write_table(tmp_path / "oof/t-0.parquet", votes)
    files.write_json(tmp_path / "study.json", {"score": {"min_votes": 10}})
    for trial in range(9):  # as a race leaves them: most trials have one fold
        files.write_table(tmp_path / f"trials/s-{trial}/epochs.parquet", rows[:6].assign(score=0.0))
    curves, units = objective.read_curves(tmp_path)
    assert curves.shape == (6, 3, 6) and units.tolist() == [1, 1, 2]
    lines = list(objective.run(["--oof", "--study", str(tmp_path), "--searches", "2", "--folds-to-train", "12"]))
    [ranks] = [line for line in lines if line.startswith("  the last epoch")]
    assert ranks.split()[-2:] == ["1.00", "1.00"]
    [ours] = [line for line in lines if line.startswith("  ours: better")]
    assert ours.split()[-1] == "+0.00000", "curves fall to their end"


def test_a_study_whose_trials_lack_folds_is_refused_in_one_sentence(objective, tmp_path):
    with pytest.raises(ConfigError, match=r"no trial has all its folds\. `hms-ray search` makes such a study with"):
        objective.read_curves(tmp_path)
