"""The plain baseline: a known spectrum, no look at the fold that is predicted, better than knowing nothing."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray.datasets import _spectrum_baseline, bmd_hs
from hms_ray.simulate import simulate_hearts
from hms_ray.study import folds


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> bmd_hs.BmdHsDataset:
    folder = tmp_path_factory.mktemp("hearts") / "folder"
    simulate_hearts(folder, 40, 0, seconds=4.0)
    return bmd_hs.load(folder, bmd_hs.Params())


def test_a_tone_is_in_its_band() -> None:
    tone = np.sin(2 * np.pi * 500 * np.arange(8000) / 4000)
    mean, deviation, high = _spectrum_baseline.spectrum(tone, 4000.0).reshape(3, -1)
    assert abs(int(mean.argmax()) - 16) <= 1 and mean.max() - np.median(mean) > 5
    assert deviation[16] < 0.6 and high[16] == pytest.approx(mean[16], abs=0.5), "it does not change"


def test_silence_is_finite() -> None:
    assert np.isfinite(_spectrum_baseline.spectrum(np.zeros(100), 4000.0)).all()


def test_it_beats_the_prior_on_subjects_that_it_never_heard(dataset: bmd_hs.BmdHsDataset) -> None:
    fold = folds.assign(dataset.units, 4, 0)["fold"].to_numpy()
    probs, prior = dataset.baseline(fold), np.empty_like(dataset.targets)
    for k in range(4):
        prior[fold == k] = dataset.targets[fold != k].mean(0)
    assert dataset.task.score(dataset.targets, probs) < dataset.task.score(dataset.targets, prior)


def test_a_fold_s_own_labels_do_not_matter(dataset: bmd_hs.BmdHsDataset) -> None:
    fold = np.arange(len(dataset.units)) % 4
    before, turned = dataset.baseline(fold), dataset.targets.copy()
    turned[fold == 0] = 1 - turned[fold == 0]
    after = replace(dataset, targets=turned).baseline(fold)
    np.testing.assert_array_equal(before[fold == 0], after[fold == 0])
    assert not np.array_equal(before[fold == 1], after[fold == 1])


def test_a_label_that_the_others_all_have_is_no_question(dataset: bmd_hs.BmdHsDataset) -> None:
    targets = dataset.targets.copy()
    targets[:, 0] = 1
    probs = replace(dataset, targets=targets).baseline(np.arange(len(targets)) % 2)
    assert (probs[:, 0] == 1).all() and (probs[:, 1] < 1).all()
