"""What trials leave in the study folder: each fold once, its weights before the table that marks it as finished."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.study.folder import FoldFolder
from hms_ray.study.oof import OofTable
from hms_ray.study.trial_store import FoldRecord
from hms_ray.training import checkpoint
from hms_ray.training.build import build_model
from hms_ray.training.evaluate import predict
from hms_ray.training.inputs import open_run

TRIAL = "toy-base"


@pytest.fixture
def trained(toy):
    """A store that has received all three folds, the last one first."""
    toy.store = toy.study.trial_store((2,))
    toy.results = {fold: toy.train(toy.study, toy.space, fold, toy.store) for fold in (2, 0, 1)}
    return toy


def record(result):
    return FoldRecord(result.fold, result.rows, result.probs, result.epochs)


def finish(trained):
    """Predict what the chosen epochs lack, as a worker does, and write the trial's table."""
    trained.predict(trained.study, trained.space, trained.store)
    trained.store.finish(TRIAL)


def test_finished_folds_hold_predictions_and_weights_and_no_checkpoint(trained):
    for fold, result in trained.results.items():
        folder = trained.folder.trial(TRIAL).fold(fold)
        table = OofTable.read(folder.oof)
        assert sorted(path.name for path in folder.root.iterdir()) == [
            "epochs.npy",
            "oof.parquet",
            "weights",
            "weights.json",
        ]
        assert sorted(result.weights) == [1, 2], "either epoch may be chosen"
        np.testing.assert_array_equal(np.load(folder.by_epoch), result.probs)
        np.testing.assert_array_equal(table.probs, result.probs[-1])
        assert set(table.folds) == {fold}
        assert (table.trial, table.space, table.selected_on) == (TRIAL, "toy", (2,))


def test_weights_are_written_before_the_table_that_says_finished(toy, monkeypatch):
    def no_room(self, path):
        raise OSError("no space left on device")

    monkeypatch.setattr(OofTable, "write", no_room)
    with pytest.raises(OSError, match="no space left"):
        toy.train(toy.study, toy.space, 0, toy.study.trial_store())
    folder = toy.folder.trial(TRIAL).fold(0)
    assert folder.weights(2).is_file()
    assert folder.checkpoint.is_file(), "the checkpoint stays until the fold is finished"
    assert toy.study.trial_store().missing(TRIAL, range(3)) == [0, 1, 2]


def test_a_restart_finds_what_is_finished(trained):
    store = trained.study.trial_store((2,))
    assert store.missing(TRIAL, range(3)) == []
    trained.folder.trial(TRIAL).fold(1).oof.unlink()
    assert store.missing(TRIAL, range(3)) == [1]
    assert store.missing("toy-0001", [2, 0]) == [2, 0]


def test_curves_hold_each_epoch_once_sorted_by_fold(trained):
    curve = files.read_table(trained.folder.trial(TRIAL).epochs)
    assert curve[["fold", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2], [2, 1], [2, 2]]
    columns = ["fold", "stage", "epoch", "train_loss", "skipped_steps", "score", "lr", "memory_gb", "seconds"]
    assert list(curve) == columns
    assert trained.store.seconds(TRIAL) == pytest.approx(curve["seconds"].sum())


def test_a_repeated_epoch_replaces_its_row(trained):
    row = {"fold": 1, "stage": 0, "epoch": 1, "train_loss": 9.0, "skipped_steps": 0, "score": 8.0, "lr": 0.1}
    row |= {"memory_gb": 0.0, "seconds": 7.0}
    trained.study.trial_store().add_epoch(TRIAL, row)
    curve = files.read_table(trained.folder.trial(TRIAL).epochs)
    assert len(curve) == 6
    assert curve.set_index(["fold", "epoch"]).loc[(1, 1), "train_loss"] == 9.0


def best_of_others(trained, fold, folds):
    """The epoch, counted from 1, with the lowest score over all scored units of the other folds; the last if alone."""
    labels, task = trained.study.labels, trained.study.labels.task
    others = [trained.results[k] for k in folds if k != fold]
    if not others:
        return 2
    rows = np.concatenate([other.rows for other in others])
    many = labels.votes[rows] >= 10
    probs = np.concatenate([other.probs for other in others], axis=1)
    return int(np.argmin([task.score(labels.targets[rows][many], probs[e][many]) for e in (0, 1)])) + 1


def test_the_score_is_over_the_scored_units_of_the_folds(trained):
    labels, task = trained.study.labels, trained.study.labels.task
    for folds in ([2], [0, 1, 2]):
        rows = np.concatenate([trained.results[k].rows for k in folds])
        probs = np.concatenate([trained.results[k].probs[best_of_others(trained, k, folds) - 1] for k in folds])
        many = labels.votes[rows] >= 10
        expected = task.score(labels.targets[rows][many], probs[many])
        assert trained.store.score(TRIAL, folds) == pytest.approx(expected, abs=1e-12)


def test_reports_count_epochs_over_the_folds(trained):
    reports = trained.store.reports(TRIAL)
    assert [step for step, _ in reports] == [1, 2, 3, 4, 5, 6]
    first = trained.results[0].epochs[0]["score"]
    assert reports[0] == (1, first), "in the order of the folds, whichever was trained first"


def test_the_out_of_fold_table_joins_all_folds(trained):
    finish(trained)
    table = OofTable.read(trained.folder.oof(TRIAL))
    assert sorted(table.unit_ids) == sorted(trained.study.labels.unit_ids)
    order = np.argsort(table.unit_ids)
    expected = np.argsort(trained.study.labels.unit_ids)
    np.testing.assert_array_equal(table.targets[order], trained.study.labels.targets[expected])
    np.testing.assert_array_equal(table.folds[order], trained.study.labels.folds[expected])
    assert table.folds_fingerprint == trained.folder.read_study()["folds"]["fingerprint"]
    for fold, result in trained.results.items():
        epoch = best_of_others(trained, fold, (0, 1, 2))
        probs, known = table.probs[table.folds == fold], np.isfinite(result.probs[epoch - 1])
        np.testing.assert_array_equal(probs[known], result.probs[epoch - 1][known])
        assert (table.epoch_rule, table.epochs[fold]) == ("cross_fitted", epoch)


def test_units_that_are_not_scored_are_predicted_once_by_the_weights_of_the_chosen_epoch(trained):
    """The table is what predicting every unit after every epoch would have given."""
    epochs = {k: best_of_others(trained, k, (0, 1, 2)) for k in range(3)}
    expected = {k: epoch for k, epoch in epochs.items() if epoch != 2}  # after the last epoch all are
    assert trained.store.unpredicted(TRIAL) == expected != {}
    with pytest.raises(AssertionError, match="has units that are not predicted"):
        trained.store.finish(TRIAL)
    assert trained.predict(trained.study, trained.space, trained.store) == expected
    assert trained.store.unpredicted(TRIAL) == {}
    run, labels = trained.space.run, trained.study.labels
    for fold, epoch in expected.items():
        result = trained.results[fold]
        model = build_model(run, labels.task)
        model.load_state_dict(checkpoint.unpack(trained.folder.trial(TRIAL).fold(fold).weights(epoch)))
        inputs = open_run(run, trained.study.stores(run), labels.windows, labels.examples)
        whole = predict(model, inputs, result.rows, labels.task, torch.device("cpu"), 16)
        np.testing.assert_allclose(trained.store._probs(TRIAL, fold, epoch), whole, atol=1e-6)


def test_a_study_from_before_only_scored_units_were_predicted_lacks_nothing(trained):
    for fold, result in trained.results.items():
        path = trained.folder.trial(TRIAL).fold(fold).by_epoch
        files.write_array(path, np.where(np.isnan(result.probs), 1 / 6, result.probs))
    assert trained.store.unpredicted(TRIAL) == {}
    trained.store.finish(TRIAL)


def test_weights_of_epochs_that_are_not_chosen_are_deleted_once_a_trial_has_all_folds(toy):
    store, root = toy.study.trial_store(), toy.folder.trial(TRIAL).root

    def kept():
        return {k: sorted(int(path.stem) for path in root.glob(f"folds/{k}/weights/*")) for k in range(3)}

    toy.results = {fold: toy.train(toy.study, toy.space, fold, store) for fold in (2, 0)}
    assert kept() == {0: [1, 2], 1: [], 2: [1, 2]}, "while a fold is missing, any epoch may be chosen"
    toy.results[1] = toy.train(toy.study, toy.space, 1, store)
    assert kept() == {k: [best_of_others(toy, k, (0, 1, 2))] for k in range(3)}, "before there is a table"
    assert store.without_weights(TRIAL) == []


def test_a_fold_in_training_keeps_its_checkpoint_while_another_ends(trained):
    """Two folds of a whole trial lack their weights and are trained again side by side."""
    for fold in (0, 1):
        trained.folder.trial(TRIAL).fold(fold).drop_weights()
    checkpoint_of_1 = trained.folder.trial(TRIAL).fold(1).checkpoint
    files.write_bytes(checkpoint_of_1, b"in training")
    trained.train(trained.study, trained.space, 0, trained.store)
    assert checkpoint_of_1.is_file()
    assert trained.store.without_weights(TRIAL) == [1]


def test_what_a_kill_left_of_epochs_that_are_not_chosen_goes_with_the_table(trained):
    folder = trained.folder.trial(TRIAL).fold(0)
    chosen = best_of_others(trained, 0, (0, 1, 2))
    folder.write_weights(3 - chosen, b"left by a kill")
    assert trained.store.without_weights(TRIAL) == []
    finish(trained)
    assert [path.stem for path in (folder.root / "weights").iterdir()] == [str(chosen)]


def test_a_fold_trained_again_for_its_weights_keeps_the_epoch_of_the_table(trained):
    finish(trained)
    table = OofTable.read(trained.folder.oof(TRIAL))
    folder = trained.folder.trial(TRIAL).fold(0)
    folder.drop_weights()
    assert trained.store.without_weights(TRIAL) == [0]
    result = trained.train(trained.study, trained.space, 0, trained.store)
    curve = [row | {"score": 9.0} for row in result.epochs]
    other = replace(result, probs=result.probs[:, :, ::-1].copy(), epochs=curve)
    trained.store.write_fold(TRIAL, record(other))  # as other code, or a GPU, would have it
    finish(trained)
    again = OofTable.read(trained.folder.oof(TRIAL))
    assert again.epochs == table.epochs, "the weights of other epochs are gone"
    expected = other.probs[table.epochs[0] - 1]
    known = np.isfinite(expected)
    np.testing.assert_array_equal(again.probs[again.folds == 0][known], expected[known])
    assert [path.stem for path in (folder.root / "weights").iterdir()] == [str(table.epochs[0])]
    np.testing.assert_array_equal(
        trained.store.scored(TRIAL, [0]).probs, other.probs[-1][trained.study.labels.votes[other.rows] >= 10]
    )


def test_a_table_is_behind_a_fold_that_was_trained_again_until_it_is_written_again(trained):
    """A kill between the two would leave the old predictions beside the new weights."""
    assert not trained.store.is_whole(TRIAL)
    finish(trained)
    assert trained.store.is_whole(TRIAL)
    trained.folder.trial(TRIAL).fold(0).drop_weights()
    assert not trained.store.is_whole(TRIAL)
    trained.train(trained.study, trained.space, 0, trained.store)
    assert trained.store.without_weights(TRIAL) == [] and not trained.store.is_whole(TRIAL)
    finish(trained)
    assert trained.store.is_whole(TRIAL)


@pytest.mark.parametrize(("rule", "kept"), [("last", [2]), ("best", None)])
def test_other_rules_keep_one_epoch_from_the_start(toy, rule, kept):
    study = replace(toy.study, epoch=rule)
    store, space = study.trial_store(), toy.make_space(epoch=rule)
    result = toy.train(study, space, 0, store)
    best = int(np.argmin([row["score"] for row in result.epochs])) + 1
    assert sorted(result.weights) == (kept or [best])
    own = study.labels.votes[result.rows] >= 10
    np.testing.assert_array_equal(store.scored(TRIAL, [0]).probs, result.probs[(kept or [best])[0] - 1][own])


def test_a_trial_that_never_began_has_no_reports_and_took_no_time(toy):
    store = toy.study.trial_store()
    assert (store.reports("toy-0009"), store.seconds("toy-0009")) == ([], 0.0)


def test_the_folder_of_a_fold_keeps_its_place(toy):
    assert toy.folder.trial(TRIAL).fold(1) == FoldFolder(toy.folder.root / "trials" / TRIAL / "folds" / "1")


def test_weights_can_be_dropped_and_are_then_missed(trained):
    assert trained.store.without_weights(TRIAL) == []
    trained.store.drop_weights(TRIAL)
    assert trained.store.missing(TRIAL, range(3)) == []
    assert trained.store.without_weights(TRIAL) == [0, 1, 2]


def test_curves_are_those_of_the_fold(trained):
    for fold, result in trained.results.items():
        np.testing.assert_array_equal(trained.store.curve(TRIAL, fold), [row["score"] for row in result.epochs])
    assert trained.store.curve("toy-0009", 0).size == 0


def test_learning_curves_are_written_by_fold_and_epoch(toy):
    row = {"stage": 0, "train_loss": 1.0, "skipped_steps": 0, "score": 0.1, "lr": 0.1, "memory_gb": 0.0, "seconds": 1.0}
    for fold in (1, 0):
        toy.study.trial_store().replace_epochs(TRIAL, fold, [row | {"fold": fold, "epoch": e} for e in (2, 1)])
    table = files.read_table(toy.folder.trial(TRIAL).epochs)
    assert table[["fold", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]


def garbage(path):
    path.write_bytes(b"garbage")


def shorter(path):
    files.write_array(path, np.load(path)[:1])


def narrower(path):
    files.write_array(path, np.load(path)[:, :, :2])


def flat(path):
    files.write_array(path, np.load(path)[0])


def removed(path):
    path.unlink()


def archive(path):
    with path.open("wb") as file:
        np.savez(file, np.ones(3))


def broken_archive(path):
    path.write_bytes(b"PK\x03\x04 and no more")


@pytest.mark.parametrize("damage", [garbage, shorter, narrower, flat, removed, archive, broken_archive])
def test_damaged_predictions_are_refused_by_name(trained, damage):
    path = trained.folder.trial(TRIAL).fold(1).by_epoch
    damage(path)
    with pytest.raises(DataError, match=re.escape(str(path))):
        for epoch in (1, 2):
            trained.study.trial_store()._read_scored(TRIAL, 1, epoch)


def folder_instead(path):
    path.unlink()
    path.mkdir()


def without_fold(path):
    table = files.read_table(path)
    files.write_table(path, table[table["fold"] != 1])


@pytest.mark.parametrize("damage", [garbage, folder_instead, without_fold])
def test_damaged_learning_curves_are_refused_by_name(trained, damage):
    path = trained.folder.trial(TRIAL).epochs
    damage(path)
    with pytest.raises(DataError, match=re.escape(str(path))):
        trained.study.trial_store().scored(TRIAL, [0, 1])


def test_a_table_that_lacks_the_epoch_of_a_fold_is_refused(trained):
    finish(trained)
    path = trained.folder.oof(TRIAL)
    files.write_table(path, files.read_table(path), files.read_metadata(path) | {"epochs": [1, 2]})
    for question in ("without_weights", "unpredicted", "is_whole"):
        with pytest.raises(DataError, match=r"toy-base\.parquet: must name the epoch of each of 3 folds"):
            getattr(trained.study.trial_store(), question)(TRIAL)
