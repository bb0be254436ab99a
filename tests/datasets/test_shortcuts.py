"""What tells a class apart without any recording is found, whichever way it points, and nothing else."""

import numpy as np
import pandas as pd
import pytest

from hms_ray.datasets import _shortcuts

CLASSES = ("a", "b")
N = 200
RNG = np.random.default_rng(0)
TRUTH = RNG.random((N, 2)) < 0.4


def _found(truth: np.ndarray = TRUTH, **numbers: np.ndarray) -> list[tuple[str, str, float]]:
    found = _shortcuts.found(truth, CLASSES, pd.DataFrame(numbers, index=range(len(truth))))
    return [(its["class"], its["by"], its["auroc"]) for its in found]


def test_without_a_shortcut_nothing_is_said() -> None:
    assert _found(age=RNG.normal(size=N), urban=RNG.integers(0, 2, N)) == []


def test_a_number_that_tells_a_class_is_named_with_its_auroc() -> None:
    age = TRUTH[:, 1] + RNG.normal(0, 0.7, N)
    higher = (age[TRUTH[:, 1]][:, None] > age[~TRUTH[:, 1]]).mean()  # share of pairs in order: no ties
    [(name, by, auroc)] = _found(age=age)
    assert (name, by, auroc) == ("b", "age", pytest.approx(higher)) and 0.75 < auroc < 1


def test_lower_tells_as_well_as_higher() -> None:
    assert _found(age=-TRUTH[:, 0].astype(float)) == [("a", "age", 1.0)]


def test_the_surest_comes_first() -> None:
    weak, sure = TRUTH[:, 0] + RNG.normal(0, 0.8, N), TRUTH[:, 0] + RNG.normal(0, 0.3, N)
    assert [by for _, by, _ in _found(weak=weak, sure=sure)] == ["sure", "weak"]


def test_a_class_that_comes_last_is_told_by_its_place() -> None:
    last = np.stack([np.arange(N) >= 150, TRUTH[:, 1]], axis=1)
    assert _found(last) == [("a", _shortcuts.PLACE, 1.0)]


def test_a_number_that_is_not_known_counts_as_the_mean() -> None:
    half = np.where(np.arange(N) % 2, TRUTH[:, 0].astype(float), np.nan)
    [(_, _, auroc)] = _found(age=half)
    assert auroc == pytest.approx(7 / 8, abs=0.05), "only where neither of a pair is known, chance decides"
    assert _found(age=np.full(N, np.nan)) == []


def test_a_class_of_all_or_none_is_no_question() -> None:
    assert _found(np.stack([np.ones(N, bool), np.zeros(N, bool)], axis=1), age=np.arange(N)) == []
