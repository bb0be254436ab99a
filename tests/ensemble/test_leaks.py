"""Members that have seen targets are named with the rows that show it; honest ones, however good, are not."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray.ensemble import leaks
from hms_ray.ensemble.notes import member_losses

LEAKED = np.arange(1, 200, 3)  # units that the leaking member has seen: 67 of 200


def honest(make_rows, **changes):
    """Two hundred units and five members of like noise."""
    return make_rows(**{"n_groups": 100, "noise": (0.7, 0.8, 0.9, 0.8, 0.7)} | changes)


def leaking(rows, units=LEAKED, member=2):
    """The rows, of which the member predicts some units by their targets."""
    probs = rows.probs.copy()
    probs[units, member] = rows.targets[units]
    return replace(rows, probs=probs)


def notes(rows):
    names = np.array([f"unit-{i}" for i in range(len(rows.targets))])
    return list(leaks.notes(rows, member_losses(rows), names[rows.scored]))


def units_named(note):
    return {int(word.strip(",").removeprefix("unit-")) for word in note.split() if word.startswith("unit-")}


@pytest.mark.parametrize("kind", ["votes", "multilabel"])
def test_a_member_that_copies_targets_is_named_with_rows_that_show_it(make_rows, kind):
    rows = leaking(honest(make_rows, kind=kind))
    [note] = notes(rows)
    score = [rows.score(rows.probs[:, m]) for m in range(5)]
    assert note.startswith(f"m2 may have seen its targets: it scores {score[2]:.5f}, the next best ")
    assert f"the next best member {min(np.delete(score, 2)):.5f}; on " in note and "almost exact" in note
    assert len(units_named(note)) == leaks.SHOWN
    assert units_named(note) <= set(LEAKED.tolist())


def test_the_count_is_of_the_copied_rows_where_others_are_wrong(make_rows):
    rows = leaking(honest(make_rows))
    losses = member_losses(rows)
    others = np.delete(losses, 2, axis=1).min(1)
    expected = (others[LEAKED] > leaks.WRONG).sum()
    assert f"on {expected} units it is almost exact where no other member is close (others: " in notes(rows)[0]


def test_a_member_that_copies_everything_is_named(make_rows):
    rows = honest(make_rows)
    [note] = notes(leaking(rows, np.arange(200)))
    assert note.startswith("m2 may have seen its targets: it scores 0.00000")


def test_a_member_that_saw_a_blurred_target_is_named_by_its_score(make_rows):
    rows = honest(make_rows)
    probs = rows.probs.copy()
    probs[:, 2] = 0.75 * rows.targets + 0.25 / 3
    [note] = notes(replace(rows, probs=probs))
    assert note.startswith("m2 may have seen its targets")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["votes", "multilabel"])
def test_honest_members_are_not_named(make_rows, kind, seed):
    assert notes(honest(make_rows, kind=kind, seed=seed)) == []


def test_an_honest_member_that_is_better_by_far_is_not_named(make_rows):
    rows = honest(make_rows, noise=(0.9, 0.9, 0.6, 0.9, 0.9))
    scores = [rows.score(rows.probs[:, m]) for m in range(5)]
    assert scores[2] < 0.75 * np.sort(scores)[1], "or it would not be far"
    assert notes(rows) == []


def test_a_few_lucky_units_are_no_leak(make_rows):
    assert notes(leaking(honest(make_rows), units=LEAKED[:5])) == []


def test_unscored_units_neither_show_a_leak_nor_are_named(make_rows):
    rows = honest(make_rows)
    unscored = np.isin(np.arange(200), LEAKED)
    assert notes(leaking(replace(rows, weight=(~unscored).astype(float)))) == []
    half = replace(rows, weight=np.tile([1.0, 0.0], 100))
    [note] = notes(leaking(half))
    assert units_named(note) <= set(LEAKED.tolist())
    assert all(unit % 2 == 0 for unit in units_named(note))


@pytest.mark.parametrize("n_members", [1, 2])
def test_one_or_two_members_say_nothing_about_each_other(make_rows, n_members):
    rows = make_rows(n_groups=100, n_members=n_members)
    assert notes(leaking(rows, np.arange(200), member=0)) == []


@pytest.mark.filterwarnings("error")
def test_identical_and_perfect_members_do_not_crash(make_rows):
    rows = honest(make_rows)
    same = replace(rows, probs=np.repeat(rows.probs[:, :1], 5, axis=1))
    assert notes(same) == []
    assert notes(replace(rows, probs=np.repeat(rows.targets[:, None], 5, axis=1))) == []
    assert len(notes(replace(leaking(rows, np.arange(200)), groups=np.zeros(200, int)))) == 1
