"""The optimism of a study's choice of configurations: which trials count, on which folds, and when there is none."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.core.seeds import stream
from hms_ray.ensemble import choice
from hms_ray.ensemble.result import Selection
from hms_ray.ensemble.rows import Rows
from hms_ray.ensemble.selection import optimism_of_choice
from hms_ray.study.oof import OofTable, stack

CHOSE = (0, 2)


def read(folder, min_votes=10):
    """The stacked members of a study and their rows."""
    members = stack([OofTable.read(folder.oof(trial)) for trial in folder.oof_ids()])
    weight = (members.votes >= min_votes).astype(float)
    kinds = {"names": members.trials, "families": members.spaces}
    arrays = {"folds": members.folds, "groups": members.group_ids, "weight": weight}
    return members, Rows(task=members.task, probs=members.probs, targets=members.targets, **arrays, **kinds)


def correction(folder, seed=0):
    return choice.correction(folder, *read(folder), stream(seed, "choice"))


def test_the_estimate_is_of_all_trials_on_the_folds_that_chose(make_study, tmp_path):
    folder = make_study(tmp_path, n_members=3, n_tried=5, selected_on=CHOSE)
    found = correction(folder)
    assert found == Selection(
        configurations=8, kept=3, folds=(0, 2), units=40, groups=40, optimism=found.optimism, share=2 / 3
    )
    members, rows = read(folder)
    assert found.optimism == by_hand(rows, lambda m, units: tried_probs(folder, f"cnn-{m:04}", units), members)


def by_hand(rows, probs_of, members):
    """The optimism of choosing 3 of 8 trials whose predictions of units are `probs_of(number, units)`."""
    here = rows.scored & np.isin(rows.folds, CHOSE)
    tried = [probs_of(m, members.unit_ids[here]) for m in range(8)]
    arrays = {name: getattr(rows, name)[here] for name in ("targets", "folds", "groups", "weight")}
    return optimism_of_choice(replace(rows, probs=np.stack(tried, axis=1), **arrays), np.arange(3), stream(0, "choice"))


def tried_probs(folder, trial, units):
    """One trial's predictions of units, looked up one by one."""
    tables = [OofTable.read(folder.trial(trial).fold(k).oof) for k in CHOSE]
    rows = {unit: row for table in tables for unit, row in zip(table.unit_ids, table.probs, strict=True)}
    return np.array([rows[unit] for unit in units])


def with_epochs(folder, rule):
    """Give each fold of each trial predictions of three epochs, the last in its table; fold 0 is best at its second,
    fold 2 at its first, both at the ones after that epoch over all other folds."""
    files.write_json(folder.study, folder.read_study() | {"epoch": rule})
    curves = {0: (0.9, 0.1, 0.5), 1: (0.0, 9.0, 9.0), 2: (0.1, 0.9, 0.5)}
    for trial in (f"cnn-{m:04}" for m in range(8)):
        rows = [(fold, e, score) for fold, scores in curves.items() for e, score in enumerate(scores, start=1)]
        curve = pd.DataFrame(rows, columns=["fold", "epoch", "score"])
        curve = curve.assign(stage=0, train_loss=0.5, lr=1e-3, seconds=1.0)
        files.write_table(folder.trial(trial).epochs, curve)
        for k in CHOSE:
            last = OofTable.read(folder.trial(trial).fold(k).oof).probs
            earlier = [stream(k, trial, e).dirichlet(np.ones(3), len(last)) for e in (1, 2)]
            files.write_array(folder.trial(trial).fold(k).by_epoch, np.stack([*earlier, last]))


@pytest.mark.parametrize(
    ("rule", "epochs"), [("cross_fitted", {0: 3, 2: 3}), ("best", {0: 2, 2: 1}), ("last", {0: 3, 2: 3})]
)
def test_trials_are_compared_at_the_epochs_that_the_folds_that_chose_give_them(make_study, tmp_path, rule, epochs):
    """Fold 1 chose nobody, and has no say in the epochs either: without it, no fold has two others to choose by."""
    folder = make_study(tmp_path, n_members=3, n_tried=5, selected_on=CHOSE)
    with_epochs(folder, rule)

    def probs_of(m, units):
        found = {}
        for k in CHOSE:
            fold = folder.trial(f"cnn-{m:04}").fold(k)
            found |= dict(zip(OofTable.read(fold.oof).unit_ids, np.load(fold.by_epoch)[epochs[k] - 1], strict=True))
        return np.array([found[unit] for unit in units])

    members, rows = read(folder)
    assert correction(folder).optimism == by_hand(rows, probs_of, members)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda trial: trial.fold(2).by_epoch.write_bytes(b"PK\x03\x04"), r"epochs\.npy: no readable array"),
        (lambda trial: trial.fold(2).by_epoch.unlink(), r"epochs\.npy: no readable array"),
        (
            lambda trial: np.save(trial.fold(2).by_epoch, np.load(trial.fold(2).by_epoch)[:1]),
            r"epochs\.npy: holds 1 epochs, but epoch 3 is selected",
        ),
        (
            lambda trial: np.save(trial.fold(2).by_epoch, np.load(trial.fold(2).by_epoch)[:, :2]),
            r"epochs\.npy: an epoch has the shape \(2, 3\)",
        ),
        (lambda trial: trial.epochs.write_bytes(b""), r"epochs\.parquet: not a parquet file"),
        (
            lambda trial: files.write_table(trial.epochs, files.read_table(trial.epochs).query("fold != 2")),
            r"epochs\.parquet: finished folds must have the same number of epochs, but it has fold 0: 3, fold 2: 0",
        ),
    ],
)
def test_damaged_epochs_of_a_trial_are_refused_by_name(make_study, tmp_path, damage, sentence):
    folder = make_study(tmp_path, n_members=3, n_tried=5, selected_on=CHOSE)
    with_epochs(folder, "cross_fitted")
    damage(folder.trial("cnn-0004"))
    with pytest.raises(DataError, match=sentence):
        correction(folder)


def test_trials_that_were_stopped_before_their_last_fold_do_not_count(make_study, tmp_path):
    folder = make_study(tmp_path, n_members=3, n_tried=5, selected_on=CHOSE)
    folder.trial("cnn-0005").fold(2).oof.unlink()
    folder.trial("cnn-0006").fold(1).oof.unlink()
    assert correction(folder).configurations == 7, "fold 1 chose nobody, so that nobody needs it"


def test_of_later_folds_on_which_rounds_have_chosen_nothing_is_estimated(make_study, tmp_path):
    """Trials were chosen on fold 0; only those that went on were trained on fold 2."""
    folder = make_study(tmp_path, n_members=3, n_tried=5, selected_on=(0,))
    before = correction(folder)
    for m in range(3):
        table = OofTable.read(folder.oof(f"cnn-{m:04}"))
        replace(table, selected_on=(0, 2)).write(folder.oof(f"cnn-{m:04}"))
    for m in range(4, 8):
        folder.trial(f"cnn-{m:04}").fold(2).oof.unlink()
    assert correction(folder) == before
    assert (before.configurations, before.kept, before.folds) == (8, 3, (0,))


def test_members_from_elsewhere_are_not_among_the_kept(make_study, tmp_path):
    folder = make_study(tmp_path, n_members=3, n_tried=5, selected_on=CHOSE)
    table = OofTable.read(folder.oof("cnn-0001"))
    replace(table, trial="foreign", selected_on=()).write(folder.oof("foreign"))
    found = correction(folder)
    assert (found.configurations, found.kept) == (8, 3)


def every_trial_kept(folder):
    for m in range(3, 8):
        shutil.rmtree(folder.root / "trials" / f"cnn-{m:04}")


def no_trials(folder):
    shutil.rmtree(folder.root / "trials")


def only_foreign_members(folder):
    for m in range(3):
        shutil.rmtree(folder.root / "trials" / f"cnn-{m:04}")


@pytest.mark.parametrize("change", [every_trial_kept, no_trials, only_foreign_members])
def test_where_nothing_was_chosen_there_is_nothing_to_correct(make_study, tmp_path, change):
    folder = make_study(tmp_path, n_members=3, n_tried=5, selected_on=CHOSE)
    change(folder)
    assert correction(folder) is None


def test_where_no_fold_chose_there_is_nothing_to_correct(make_study, tmp_path):
    assert correction(make_study(tmp_path, n_members=3, n_tried=5)) is None


def test_where_the_folds_that_chose_hold_no_scored_unit_there_is_nothing_to_correct(make_study, tmp_path):
    votes = np.where(np.arange(120) // 2 % 3 == 1, 12, 2)
    assert correction(make_study(tmp_path, n_members=3, n_tried=5, selected_on=CHOSE, votes=votes)) is None
