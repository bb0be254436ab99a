"""Metrics against figures worked out by hand and against scikit-learn's own."""

import json
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, roc_auc_score

from hms_ray import tasks
from hms_ray.tasks import calibration_bins
from hms_ray.tasks._metrics import calibration_errors, threshold

VOTES = tasks.from_dict({"kind": "votes", "classes": ["a", "b", "c"]})
LABELS = tasks.from_dict({"kind": "multilabel", "classes": ["a", "b"]})
BINARY = tasks.from_dict({"kind": "binary", "classes": ["a"]})


@pytest.fixture
def one_hot() -> tuple[np.ndarray, np.ndarray]:
    """Targets (90, 3), all votes for one class, and predictions (90, 3)."""
    rng = np.random.default_rng(0)
    return np.eye(3)[rng.integers(0, 3, 90)], rng.dirichlet(np.ones(3), 90)


@pytest.fixture
def held() -> tuple[np.ndarray, np.ndarray]:
    """Labels (90, 2) of 0 and 1, and predictions (90, 2)."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 2, (90, 2)).astype(float), rng.random((90, 2))


def test_votes_by_hand() -> None:
    """Two units of class a, of which a tie that counts for it, one of b; nobody is of c."""
    targets = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]])
    probs = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    found = VOTES.metrics(targets, probs)
    assert (found.units, found.ties, found.support.tolist()) == (3, 1, [2, 1, 0])
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(found.precision, [1, 1 / 2, np.nan])
    np.testing.assert_allclose(found.recall, [1 / 2, 1, np.nan])
    np.testing.assert_allclose(found.specificity, [1, 1 / 2, 1])
    np.testing.assert_allclose(found.f1, [2 / 3, 2 / 3, np.nan])
    assert (found.accuracy, found.macro_f1) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    expected = -(np.log(0.8) + (np.log(0.2) + np.log(0.7)) / 2 + np.log(0.8)) / 3
    assert found.log_loss == pytest.approx(expected, rel=1e-12)
    assert found.log_loss - found.score == pytest.approx(np.log(2) / 3, rel=1e-12), "the entropy of the tied votes"
    np.testing.assert_allclose(found.class_calibration, [0.4 / 3, 0.1 / 3, 0.3 / 3])
    assert found.calibration_error == pytest.approx(0.8 / 9)


def test_labels_by_hand() -> None:
    """a holds of two units, one of them found, and is never said of another; b holds of none and is said of one."""
    targets = np.array([[1, 0], [1, 0], [0, 0], [0, 0.5]])
    probs = np.array([[0.9, 0.1], [0.2, 0.2], [0.1, 0.6], [0.4, 0.5]])
    found = LABELS.metrics(targets, probs)
    assert found.confusion.tolist() == [[[2, 0], [1, 1]], [[3, 1], [0, 0]]]
    assert (found.ties, found.support.tolist(), found.accuracy) == (1, [2, 0], 6 / 8)
    np.testing.assert_allclose(found.precision, [1, 0])
    np.testing.assert_allclose(found.recall, [1 / 2, np.nan])
    np.testing.assert_allclose(found.specificity, [1, 3 / 4])
    np.testing.assert_allclose(found.f1, [2 / 3, 0])
    assert found.macro_f1 == pytest.approx(1 / 3)
    assert found.log_loss - found.score == pytest.approx(np.log(2) / 8), "the entropy of the soft label"


def test_auroc_counts_pairs_in_order_and_ties_half() -> None:
    targets, probs = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.4], [0.1]])
    found = BINARY.metrics(targets, probs)
    assert found.auroc.tolist() == [3.5 / 4] and found.macro_auroc == 3.5 / 4


def test_a_class_of_all_units_or_of_none_has_no_auroc_and_does_not_count() -> None:
    targets = np.array([[1, 1], [1, 0], [1, 0]])
    found = LABELS.metrics(targets, np.array([[0.9, 0.2], [0.8, 0.1], [0.7, 0.6]]))
    assert np.isnan(found.auroc[0]) and found.auroc[1] == found.macro_auroc == 0.5
    none = LABELS.metrics(targets[1:], np.full((2, 2), 0.1))
    assert np.isnan(none.macro_auroc) and none.to_dict()["macro_auroc"] is None
    nothing = BINARY.metrics(np.zeros((3, 1)), np.full((3, 1), 0.25))
    assert np.isnan(nothing.micro_f1) and nothing.to_dict()["micro_f1"] is None


def test_no_threshold_has_a_larger_f1_than_the_one_returned(held: tuple[np.ndarray, np.ndarray]) -> None:
    targets, probs = held
    found = LABELS.thresholds(targets, probs)
    for k in range(2):
        candidates = np.convolve(np.sort(probs[:, k]), [0.5, 0.5], "valid")
        scores = [f1_score(targets[:, k], probs[:, k] > candidate) for candidate in candidates]
        assert (
            f1_score(targets[:, k], probs[:, k] > found[k]) == max(scores) >= f1_score(targets[:, k], probs[:, k] > 0.5)
        )


@pytest.mark.parametrize(
    ("truth", "probs", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 0.25),
        ([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], 0.15),  # 4/5 against 2/3 and 2/4
        ([1, 0, 0, 1], [0.1, 0.2, 0.8, 0.9], 0.85),  # 2/3 against 2/5 and 2/4
        ([1, 0, 0, 0], [0.1, 0.2, 0.4, 0.9], 0.65),  # 0 everywhere
        ([0, 0, 1, 1], [0.1, 0.1, 0.7, 0.7], 0.4),
        ([0, 0, 0], [0.1, 0.2, 0.9], 0.5),
        ([1, 1, 1], [0.1, 0.2, 0.9], 0.5),
        ([1, 0, 1], [0.1, 0.1, 0.1], 0.5),
    ],
)
def test_thresholds_by_hand(truth: list[int], probs: list[float], expected: float) -> None:
    assert threshold(np.array(truth) > 0, np.array(probs), 0.5) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("probs", "expected"), [([0.1, 0.2, 0.3, 0.4, 0.5], 0.45), ([0.4, 0.5, 0.6, 0.8, 0.9], 0.45), ([0.5] * 5, 0.5)]
)
def test_of_thresholds_that_tie_the_one_nearest_to_one_half_is_taken(probs: list[float], expected: float) -> None:
    """The lowest candidate has 2 * 2 / (4 + 2) and the highest 2 * 1 / (1 + 2)."""
    assert threshold(np.array([0, 1, 0, 0, 1]) > 0, np.array(probs), 0.5) == pytest.approx(expected)


def test_neighbouring_numbers_are_told_apart() -> None:
    for low in np.random.default_rng(0).random(20):
        probs = np.array([low, np.nextafter(low, 1)])
        found = threshold(np.array([False, True]), probs, 0.5)
        assert (probs > found).tolist() == [False, True], "there is no number midway"


def test_thresholds_change_decisions_and_not_what_is_true(held: tuple[np.ndarray, np.ndarray]) -> None:
    targets, probs = held
    plain, found = (LABELS.metrics(targets, probs, its) for its in (None, np.array([0.2, 0.9])))
    assert found.support.tolist() == plain.support.tolist()
    assert (found.log_loss, found.macro_auroc) == (plain.log_loss, plain.macro_auroc)
    for k, its in enumerate((0.2, 0.9)):
        expected = confusion_matrix(targets[:, k], probs[:, k] > its)
        np.testing.assert_array_equal(found.confusion[k], expected)
        assert found.f1[k] == pytest.approx(f1_score(targets[:, k], probs[:, k] > its))


def test_each_row_may_have_its_own_thresholds(held: tuple[np.ndarray, np.ndarray]) -> None:
    targets, probs = held
    by_row = np.where(np.arange(90)[:, None] < 40, [0.2, 0.9], [0.7, 0.4])
    found = LABELS.metrics(targets, probs, by_row)
    parts = [LABELS.metrics(targets[its], probs[its], by_row[its][0]) for its in (slice(40), slice(40, None))]
    np.testing.assert_array_equal(found.confusion, sum(part.confusion for part in parts))
    np.testing.assert_array_equal(LABELS.decide(probs, by_row), probs > by_row)


def test_votes_have_no_thresholds(one_hot: tuple[np.ndarray, np.ndarray]) -> None:
    assert VOTES.thresholds(*one_hot) is None


def test_a_label_that_nobody_holds_and_none_is_said_to_has_no_f1() -> None:
    found = BINARY.metrics(np.zeros((3, 1)), np.full((3, 1), 0.25))
    assert found.confusion.tolist() == [[[3, 0], [0, 0]]]
    assert (found.accuracy, found.calibration_error) == (1, 0.25)
    assert np.isnan([found.macro_f1, found.precision[0], found.recall[0], found.f1[0]]).all()


def test_votes_for_one_class_give_scikit_learns_figures(one_hot: tuple[np.ndarray, np.ndarray]) -> None:
    targets, probs = one_hot
    found, truth, predicted = VOTES.metrics(targets, probs), targets.argmax(1), probs.argmax(1)
    assert found.log_loss == pytest.approx(log_loss(truth, probs), rel=1e-12) == found.score
    assert found.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    np.testing.assert_allclose(found.f1, f1_score(truth, predicted, average=None))
    assert found.micro_f1 == pytest.approx(f1_score(truth, predicted, average="micro")) == found.accuracy
    assert found.macro_auroc == pytest.approx(roc_auc_score(truth, probs, multi_class="ovr", average="macro"))


def test_labels_give_scikit_learns_figures(held: tuple[np.ndarray, np.ndarray]) -> None:
    targets, probs = held
    found = LABELS.metrics(targets, probs)
    by_label = [log_loss(targets[:, k], probs[:, k]) for k in range(2)]
    assert found.log_loss == pytest.approx(np.mean(by_label), rel=1e-12) == found.score
    assert found.accuracy == pytest.approx(np.mean([accuracy_score(targets[:, k], probs[:, k] > 0.5) for k in (0, 1)]))
    assert found.macro_f1 == pytest.approx(f1_score(targets, probs > 0.5, average="macro"))
    assert found.micro_f1 == pytest.approx(f1_score(targets, probs > 0.5, average="micro"))
    np.testing.assert_allclose(found.auroc, roc_auc_score(targets, probs, average=None))
    assert found.macro_auroc == pytest.approx(roc_auc_score(targets, probs, average="macro"))


def test_one_label_of_several_has_the_figures_it_has_alone(held: tuple[np.ndarray, np.ndarray]) -> None:
    targets, probs = held
    every, alone = LABELS.metrics(targets, probs), BINARY.metrics(targets[:, :1], probs[:, :1])
    for name in ("confusion", "support", "precision", "recall", "specificity", "f1", "auroc", "class_calibration"):
        np.testing.assert_array_equal(getattr(every, name)[:1], getattr(alone, name))


@pytest.mark.parametrize(
    ("rows", "sizes"), [(1, [1]), (59, [59]), (60, [30, 30]), (95, [32, 32, 31]), (900, [90] * 10)]
)
def test_bins_hold_equally_many_rows_and_never_few_in_the_order_of_shares(rows: int, sizes: list[int]) -> None:
    probs = np.random.default_rng(0).random(rows)
    bins = calibration_bins(probs)
    assert [len(its) for its in bins] == sizes
    ends = [(probs[its].min(), probs[its].max()) for its in bins]
    assert all(high <= low for (_, high), (low, _) in pairwise(ends))
    assert sorted(np.concatenate(bins)) == list(range(rows))


def test_calibration_error_finds_a_bias_in_any_bin_and_weighs_bins_by_rows() -> None:
    """95 rows make bins of 32, 32 and 31; the highest bin is .3 too low, the others are right."""
    probs = np.linspace(0, 0.6, 95)
    biased = probs + 0.3 * (np.arange(95) >= 64)
    found = calibration_errors(np.column_stack([biased, probs + 0.1]), np.column_stack([probs, probs]))
    np.testing.assert_allclose(found, [0.3 * 31 / 95, 0.1])


def test_biases_that_cancel_within_a_bin_are_no_error_and_between_bins_are() -> None:
    probs = np.repeat([0.2, 0.8], 30)
    within, between = np.tile([0.1, -0.1], 30), np.repeat([0.1, -0.1], 30)
    targets = np.column_stack([probs + within, probs + between])
    np.testing.assert_allclose(calibration_errors(targets, np.column_stack([probs, probs])), [0, 0.1], atol=1e-15)


def test_what_ensemble_json_keeps_is_json_without_nan() -> None:
    found = VOTES.metrics(np.eye(3)[[0, 1]], np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1]]))
    content = found.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert (content["units"], content["accuracy"], content["confusion"][1]) == (2, 0.5, [1, 0, 0])
    none = {"units": 0, "precision": None, "recall": None, "specificity": 1.0, "f1": None, "auroc": None}
    assert content["per_class"]["c"] == none | {"calibration_error": pytest.approx(0.1)}
    assert content["per_class"]["b"]["f1"] == 0.0 and content["macro_f1"] == pytest.approx(1 / 3)
