"""Arrays from anywhere: what is taken, what is filled in, and one sentence for each fault."""

import numpy as np
import pytest

from hms_ray import tasks
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.core.seeds import stream
from hms_ray.ensemble.inputs import make_rows as taken

N, M, K = 12, 3, 4
TASK = tasks.from_dict({"kind": "votes", "classes": list("wxyz")})


def arrays(**changes):
    """Sound arguments of twelve rows of six patients in three folds, but for the changes."""
    rng = stream(0, "inputs")
    sound = {
        "probs": rng.dirichlet(np.ones(K), (N, M)),
        "targets": rng.dirichlet(np.ones(K), N),
        "groups": np.repeat(np.arange(6), 2),
        "folds": np.repeat(np.arange(3), 4),
        "weights": None,
        "task": "votes",
        "names": ["one", "two", "three"],
        "families": None,
    }
    return sound | changes


def spoilt(name, where, value):
    """Sound arguments with one entry of one array changed."""
    array = arrays()[name].astype(float)
    array[where] = value
    return {name: array}


def refused(error=DataError, **changes):
    with pytest.raises(error) as caught:
        taken(**arrays(**changes))
    return str(caught.value)


def test_sound_arrays_are_taken_as_they_are():
    given = arrays(weights=np.arange(12), families=["a", "a", "b"])
    rows = taken(**given)
    for mine, its in (("probs", "probs"), ("targets", "targets"), ("groups", "groups"), ("folds", "folds")):
        np.testing.assert_array_equal(getattr(rows, mine), given[its])
    np.testing.assert_array_equal(rows.weight, np.arange(12.0))
    assert (rows.names, rows.families) == (("one", "two", "three"), ("a", "a", "b"))
    assert rows.task.to_dict() == {"kind": "votes", "classes": ["0", "1", "2", "3"]}


def test_what_is_left_out_is_filled_in():
    rows = taken(**arrays(groups=None, weights=None, names=None))
    assert rows.names == ("member 0", "member 1", "member 2")
    assert rows.families == ("", "", "")
    assert rows.n_groups == 12, "each row is its own"
    assert rows.weight.tolist() == [1] * 12


def test_lists_and_a_task_of_ones_own_are_taken():
    given = arrays(task=TASK)
    rows = taken(**{name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in given.items()})
    assert rows.task is TASK
    np.testing.assert_array_equal(rows.probs, given["probs"])


@pytest.mark.parametrize(("kind", "k"), [("multilabel", 4), ("multilabel", 1), ("binary", 1)])
def test_labels_become_two_outcomes_each(kind, k):
    held = np.full((N, M, k), 0.3)
    rows = taken(**arrays(probs=held, targets=np.ones((N, k)), task=kind))
    assert rows.probs.shape == (N, M, k, 2)
    np.testing.assert_allclose(rows.probs[..., 1], 0.7)
    np.testing.assert_array_equal(rows.targets[..., 0], 1)


@pytest.mark.parametrize("groups", [np.repeat(np.arange(23), 3), np.array([f"p{i % 7}" for i in range(40)])])
def test_groups_are_dealt_out_whole_to_five_folds(groups):
    n = len(groups)
    probs = np.full((n, 1, 2), 0.5)
    given = {"probs": probs, "targets": probs[:, 0], "groups": groups, "folds": None, "weights": None}
    rows = taken(**given, task="votes", names=None, families=None)
    assert rows.fold_numbers == (0, 1, 2, 3, 4)
    for name in np.unique(groups):
        assert len(np.unique(rows.folds[groups == name])) == 1
    sizes = np.bincount(rows.folds)
    assert sizes.max() - sizes.min() <= np.unique(groups, return_counts=True)[1].max()
    np.testing.assert_array_equal(taken(**given, task="votes", names=None, families=None).folds, rows.folds)


def test_few_groups_make_few_folds():
    assert taken(**arrays(folds=None, groups=np.repeat([7, 9, 8], 4))).fold_numbers == (0, 1, 2)


SHAPES = "probs must be (N, M, K) and targets (N, K), but they are "
FAULTS = [
    ({"probs": np.ones((N, M))}, f"{SHAPES}(12, 3) and (12, 4)"),
    ({"targets": np.ones((N, 3))}, f"{SHAPES}(12, 3, 4) and (12, 3)"),
    ({"targets": np.ones((11, K))}, f"{SHAPES}(12, 3, 4) and (11, 4)"),
    ({"probs": np.ones((N, 0, K))}, f"{SHAPES}(12, 0, 4) and (12, 4)"),
    ({"probs": np.ones((0, M, K)), "targets": np.ones((0, K))}, f"{SHAPES}(0, 3, 4) and (0, 4)"),
    ({"groups": np.zeros(11)}, "groups must have 12 entries, but its shape is (11,)"),
    ({"folds": np.zeros((N, 1), int)}, "folds must have 12 entries, but its shape is (12, 1)"),
    ({"weights": np.ones(3)}, "weights must have 12 entries, but its shape is (3,)"),
    ({"weights": 1.0}, "weights must have 12 entries, but its shape is ()"),
    ({"names": ["one"]}, "names must have 3 entries, but its shape is (1,)"),
    ({"families": ["a"] * 4}, "families must have 3 entries, but its shape is (4,)"),
    (spoilt("probs", (5, 1, 2), np.nan), "two: predictions must be finite in each row; 1 do not, the first is row 5"),
    (spoilt("probs", (0, 2, 0), -0.1), "three: predictions must not be negative in each row"),
    (spoilt("probs", (7, 0, 0), 0.9), "one: predictions must sum to 1 in each row; 1 do not, the first is row 7"),
    (spoilt("targets", (3, 1), np.nan), "targets: targets must be finite in each row; 1 do not, the first is row 3"),
    (spoilt("targets", 4, 0.5), "targets: targets must sum to 1 in each row; 1 do not, the first is row 4"),
    ({"weights": np.full(N, -1.0)}, "weights must be finite and not negative; 12 are not: rows 0, 1, 2, 3, 4 ... ("),
    ({"weights": np.r_[np.ones(11), np.nan]}, "weights must be finite and not negative; 1 are not: rows 11"),
    ({"weights": np.zeros(N)}, "weights are all 0: nothing would be fitted"),
    ({"folds": np.repeat([0.0, 1, 2], 4)}, "folds must be whole numbers, but they are float64"),
    ({"folds": np.repeat(["a", "b", "c"], 4)}, "folds must be whole numbers, but they are "),
    ({"folds": np.arange(N) % 2}, "folds split 6 groups over several folds: 0, 1, 2, 3, 4 ... (6 in all)"),
    ({"folds": np.repeat([0, 1, 2], [3, 5, 4])}, "folds split 1 groups over several folds: 1"),
    ({"folds": np.full(N, 4)}, "cross-fitting needs 2 folds or more; all rows are of fold 4"),
    ({"folds": None, "groups": np.zeros(N)}, "cross-fitting needs 2 folds or more; all rows are of fold 0"),
    ({"task": tasks.from_dict({"kind": "votes", "classes": ["a", "b"]})}, "must have one column for each class (a, b)"),
]


@pytest.mark.parametrize(("changes", "sentence"), FAULTS, ids=[sentence for _, sentence in FAULTS])
def test_each_fault_has_its_sentence(changes, sentence):
    assert sentence in refused(**changes)


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("vote", "no tasks entry named 'vote'; there are: binary, multilabel, votes. Did you mean 'votes'?"),
        ("binary", "the number of classes of a binary task must be 1"),
    ],
)
def test_a_task_that_cannot_be_is_refused(task, sentence):
    assert sentence in refused(ConfigError, task=task)


def test_labels_need_not_sum_to_one_but_lie_within_0_and_1():
    high = np.full((N, M, K), 0.9)
    assert taken(**arrays(probs=high, targets=np.ones((N, K)), task="multilabel")).n_units == 12
    high[3, 1] = 1.5
    said = refused(probs=high, targets=np.ones((N, K)), task="multilabel")
    assert "two: predictions must be within [0, 1] in each row; 1 do not, the first is row 3" in said


def test_all_arrays_of_a_wrong_shape_are_named_at_once():
    said = refused(groups=np.zeros(2), names=["one"], weights=np.ones(5))
    assert "arrays that do not fit probs: 3 faults" in said
    assert all(f"{name} must have " in said for name in ("groups", "names", "weights"))


def test_all_values_that_cannot_be_are_named_at_once():
    probs = spoilt("probs", (5, 1, 2), np.nan)["probs"]
    probs[0, 2] = 0.5
    targets = spoilt("targets", 4, 0.5)["targets"]
    said = refused(probs=probs, targets=targets, weights=np.full(N, -1), folds=np.arange(N) % 2)
    assert "5 faults" in said
    for sentence in ("weights must be", "folds split", "two: predictions", "three: predictions", "targets: targets"):
        assert f"\n  - {sentence}" in said
