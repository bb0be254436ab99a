"""Out-of-fold tables: what is written is read, and what does not fit is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray import tasks
from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.core.seeds import stream
from hms_ray.study.oof import OofTable, epochs_of, optimism, population, stack

TASK = tasks.from_dict({"kind": "votes", "classes": ["calm", "storm"]})


def a_table(trial="cnn-0001", n_units=8, **changes):
    """Build a small sound table; the same targets for every trial, other predictions."""
    shares = stream(0, "targets").dirichlet([1, 1], n_units)
    fields = {
        "unit_ids": np.array([f"u{i}" for i in range(n_units)]),
        "group_ids": np.array([f"p{i // 2}" for i in range(n_units)]),
        "folds": np.arange(n_units) // 2 % 2,
        "votes": np.arange(1, n_units + 1),
        "targets": shares,
        "probs": stream(0, trial).dirichlet([1, 1], n_units),
        "task": TASK,
        "trial": trial,
        "space": "cnn",
        "data_fingerprint": "d" * 16,
        "folds_fingerprint": "f" * 16,
        "selected_on": (0,),
    }
    return OofTable(**{**fields, **changes})


def shuffled(table, seed=1):
    order = stream(seed, "order").permutation(len(table.unit_ids))
    names = ("unit_ids", "group_ids", "folds", "votes", "targets", "probs")
    return replace(table, **{name: getattr(table, name)[order] for name in names})


def assert_same(first, second):
    for name, value in vars(first).items():
        np.testing.assert_array_equal(getattr(second, name), value, err_msg=name)


def test_read_returns_what_was_written(tmp_path):
    a_table().write(tmp_path / "t.parquet")
    assert_same(a_table(), OofTable.read(tmp_path / "t.parquet"))


def test_columns_and_metadata_are_those_of_the_format(tmp_path):
    a_table().write(tmp_path / "t.parquet")
    frame = files.read_table(tmp_path / "t.parquet")
    expected = ["unit_id", "group_id", "fold", "votes", "calm_target", "storm_target", "calm_prob", "storm_prob"]
    assert list(frame.columns) == expected
    assert [str(frame[c].dtype) for c in expected[2:]] == ["int64"] * 2 + ["float64"] * 4
    assert files.read_metadata(tmp_path / "t.parquet")["selected_on"] == [0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unit_ids": np.array(["u0", *[f"u{i}" for i in range(7)]])}, "1 unit_ids come more than once.* 'u0'"),
        ({"probs": np.full((8, 2), 0.4)}, "predictions must sum to 1"),
        ({"targets": np.full((8, 2), np.nan)}, "targets must be finite"),
        ({"unit_ids": np.array([None, *"abcdefg"], dtype=object)}, "'unit_id' has an empty cell in row 0"),
    ],
)
def test_impossible_values_are_refused_with_the_file(tmp_path, changes, sentence):
    a_table(**changes).write(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=f"bad.parquet: .*{sentence}"):
        OofTable.read(tmp_path / "bad.parquet")


def test_a_fold_that_is_no_whole_number_is_refused(tmp_path):
    a_table().write(tmp_path / "t.parquet")
    frame = files.read_table(tmp_path / "t.parquet").astype({"fold": float})
    files.write_table(tmp_path / "t.parquet", frame, files.read_metadata(tmp_path / "t.parquet"))
    with pytest.raises(DataError, match=r"t.parquet: column 'fold' must hold whole numbers"):
        OofTable.read(tmp_path / "t.parquet")


def test_a_missing_column_is_named(tmp_path):
    a_table().write(tmp_path / "t.parquet")
    frame = files.read_table(tmp_path / "t.parquet").drop(columns="storm_prob")
    files.write_table(tmp_path / "t.parquet", frame, files.read_metadata(tmp_path / "t.parquet"))
    with pytest.raises(DataError, match=r"t.parquet: missing column 'storm_prob'"):
        OofTable.read(tmp_path / "t.parquet")


def test_a_table_of_something_else_is_refused(tmp_path):
    files.write_table(tmp_path / "t.parquet", files.read_table(_written(tmp_path)))
    with pytest.raises(DataError, match=r"t.parquet: not an out-of-fold table"):
        OofTable.read(tmp_path / "t.parquet")


def _written(folder):
    a_table().write(folder / "good.parquet")
    return folder / "good.parquet"


def test_population_keeps_the_units_with_enough_votes():
    assert a_table().rows(7).tolist() == [False] * 6 + [True, True]


def test_an_empty_population_names_the_limit_and_the_largest_count():
    with pytest.raises(ConfigError, match=r"min_votes=10.* largest vote count present is 9"):
        population(np.array([3, 9]), 10)


def test_stack_joins_on_unit_ids_whatever_the_order():
    first, second = a_table("cnn-0001"), a_table("mit-0002", space="mit", selected_on=(1,))
    members = stack([shuffled(first, 1), shuffled(second, 2)])
    assert members.unit_ids.tolist() == first.unit_ids.tolist()
    np.testing.assert_array_equal(members.probs, np.stack([first.probs, second.probs], axis=1))
    np.testing.assert_array_equal(members.targets, first.targets)
    assert (members.trials, members.spaces, members.selected_on) == (("cnn-0001", "mit-0002"), ("cnn", "mit"), (0, 1))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"data_fingerprint": "x"},
            "'b' was made from other data, though its units and their group_ids, votes, targets are the same$",
        ),
        ({"folds_fingerprint": "x"}, "'b' was made from other folds, though each unit is in the same one$"),
        (
            {"folds": np.arange(8) // 4, "folds_fingerprint": "x"},
            "'b' has other folds for 4 units, the first is 'u2': another seed, or another way of dealing them$",
        ),
        ({"folds": np.arange(8) // 2, "folds_fingerprint": "x"}, "'b' has another number of folds: 4, not 2$"),
        ({"votes": np.full(8, 1), "data_fingerprint": "x"}, "'b' has other votes for 7 units, the first is 'u1'$"),
        ({"targets": np.full((8, 2), 0.5), "data_fingerprint": "x"}, "'b' has other targets for 8 units, .*'u0'$"),
        ({"n_units": 7, "data_fingerprint": "x"}, "'b' has other units: it lacks 1 units, the first is 'u7'$"),
        ({"n_units": 9}, "'b' has other units: it adds 1 units, the first is 'u8'"),
        ({"task": tasks.from_dict({"kind": "votes", "classes": ["storm", "calm"]})}, "'b' has another task"),
    ],
)
def test_stack_refuses_tables_that_do_not_fit(changes, sentence):
    with pytest.raises(DataError, match=f"do not fit 'a': .*{sentence}"):
        stack([a_table("a"), a_table("b", **changes)])


@pytest.mark.parametrize(
    ("rule", "epochs"), [("cross_fitted", (4, 5)), ("last", (3, 3)), ("best", (1, 7)), ("given", ())]
)
def test_how_the_epochs_were_chosen_is_kept(tmp_path, rule, epochs):
    a_table(epoch_rule=rule, epochs=epochs).write(tmp_path / "t.parquet")
    table = OofTable.read(tmp_path / "t.parquet")
    assert (table.epoch_rule, table.epochs) == (rule, epochs)
    assert epochs_of(tmp_path / "t.parquet") == epochs
    assert all(type(epoch) is int for epoch in table.epochs)


def test_epochs_counted_by_numpy_are_written_as_whole_numbers(tmp_path):
    a_table(epoch_rule="last", epochs=tuple(np.array([3, 4]))).write(tmp_path / "t.parquet")
    assert epochs_of(tmp_path / "t.parquet") == (3, 4)


def test_by_default_nothing_is_known_of_epochs():
    assert (a_table().epoch_rule, a_table().epochs) == ("given", ())


def test_epochs_of_something_else_are_refused(tmp_path):
    files.write_table(tmp_path / "t.parquet", files.read_table(_written(tmp_path)))
    with pytest.raises(DataError, match=r"t.parquet: not an out-of-fold table .* lacks .*epochs"):
        epochs_of(tmp_path / "t.parquet")


def test_a_stack_remembers_how_each_members_epochs_were_chosen():
    assert stack([a_table("a", epoch_rule="best"), a_table("b")]).epoch_rules == ("best", "given")


def test_only_epochs_chosen_on_the_rows_scored_are_called_optimistic():
    assert optimism("best") == "optimistic: best epochs, chosen on the rows scored"
    assert {optimism(rule) for rule in ("cross_fitted", "last", "given")} == {""}
