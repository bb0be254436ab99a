"""What a reader is told about the rows: zeros that were clipped, classes that a fold lacks, members that leak."""

from dataclasses import replace

import numpy as np

from hms_ray.ensemble import notes as _notes

NAMES = np.array([f"u{i}" for i in range(48)])


def test_sound_rows_need_no_words(make_rows):
    assert _notes.of(make_rows(), NAMES) == []
    assert _notes.of(make_rows(kind="multilabel"), NAMES) == []


def test_the_losses_are_each_members_on_the_scored_units(make_rows):
    rows = make_rows(weight=np.tile([0.0, 1.0], 24))
    losses = _notes.member_losses(rows)
    for m in range(4):
        expected = rows.task.row_scores(rows.targets[1::2], rows.probs[1::2, m])
        np.testing.assert_array_equal(losses[:, m], expected)


def test_zeros_where_the_target_is_not_are_counted(make_rows):
    rows = make_rows(n_members=2)
    probs, targets = rows.probs.copy(), np.tile([0.5, 0.25, 0.25], (48, 1))
    probs[[3, 5], 1] = [0.5, 0.5, 0.0]
    notes = _notes.of(replace(rows, probs=probs, targets=targets), NAMES)
    assert notes == ["m1: 2 predictions are 0 where the target is not; they are scored as 1e-15"]


def test_a_fold_without_a_class_is_named(make_rows):
    rows = make_rows()
    targets = np.where((rows.folds == 1)[:, None], [0.5, 0.5, 0.0], rows.targets)
    assert _notes.of(replace(rows, targets=targets), NAMES) == ["fold 1 has no scored unit of c"]
    targets = np.where((rows.folds == 1)[:, None], [1.0, 0.0, 0.0], rows.targets)
    assert _notes.of(replace(rows, targets=targets), NAMES) == ["fold 1 has no scored unit of b, c"]


def test_a_class_of_unscored_units_alone_is_absent(make_rows):
    rows = make_rows(n_folds=2)
    last = np.flatnonzero(rows.folds == 0)[-1]
    targets = np.where((rows.folds == 0)[:, None], [0.5, 0.5, 0.0], rows.targets)
    targets[last] = [0, 0, 1]
    rows = replace(rows, targets=targets)
    assert _notes.of(rows, NAMES) == []
    weight = np.where(np.arange(48) == last, 0.0, 1.0)
    assert _notes.of(replace(rows, weight=weight), NAMES) == ["fold 0 has no scored unit of c"]


def test_a_label_that_nobody_holds_is_absent_and_one_that_all_hold_is_not(make_rows):
    rows = make_rows(kind="multilabel")
    held = rows.task.from_outcomes(rows.targets).copy()
    held[rows.folds == 2, :2] = [0, 1]
    notes = _notes.of(replace(rows, targets=rows.task.outcomes(held)), NAMES)
    assert notes == ["fold 2 has no scored unit of a"]


def test_a_fold_without_scored_units_is_not_said_to_lack_classes(make_rows):
    rows = make_rows()
    assert _notes.of(replace(rows, weight=(rows.folds != 1).astype(float)), NAMES) == []


def test_leaks_are_told_by_the_names_of_units(make_rows):
    rows = make_rows(n_groups=100)
    rows.probs[:, 3] = rows.targets
    names = np.array([f"eeg-{i}" for i in range(200)])
    [note] = _notes.of(rows, names, _notes.member_losses(rows))
    assert note.startswith("m3 may have seen its targets") and "such as eeg-" in note


def test_epochs_chosen_on_the_rows_scored_are_owned_up_to():
    assert _notes.of_epochs([], 3) == []
    [note] = _notes.of_epochs(["a", "b"], 3)
    assert note.startswith("the epochs of 2 of 3 candidates were chosen on the rows that they are scored on, so")
    assert note.endswith("are optimistic")
