"""The estimator: arrays in, fitted attributes out, for every task; saved and loaded it predicts alike."""

import json
from dataclasses import replace

import numpy as np
import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.ensemble import Ensemble, Limits, fit, methods

FAMILIES = ("a", "a", "b", "b")
KINDS = {"votes": 3, "multilabel": 3, "binary": 1}


@pytest.fixture
def arrays(make_rows):
    """The function that makes rows as in conftest.py and returns them as arguments of `fit`."""

    def made(**changes):
        rows = make_rows(**changes)
        names = {"probs": rows.task.from_outcomes(rows.probs), "targets": rows.task.from_outcomes(rows.targets)}
        return names | {"groups": rows.groups, "folds": rows.folds, "task": rows.task}

    return made


@pytest.mark.parametrize("pool", methods.names())
@pytest.mark.parametrize("kind", KINDS)
def test_every_pool_of_every_task_is_fitted_scored_and_predicts(arrays, kind, pool):
    given = arrays(kind=kind, n_classes=KINDS[kind], n_groups=30)
    ensemble = fit(**given, pool=pool, families=FAMILIES)
    task, targets = given["task"], given["targets"]
    assert ensemble.oof_.shape == targets.shape
    task.check_probs(ensemble.oof_, "oof_")
    assert ensemble.score_cross_fitted_ == pytest.approx(task.score(targets, ensemble.oof_), rel=1e-12)
    predicted = ensemble.predict(given["probs"])
    task.check_probs(predicted, "predicted")
    assert ensemble.score_in_sample_ == pytest.approx(task.score(targets, predicted), rel=1e-12)
    low, high = ensemble.interval_
    assert low < ensemble.score_cross_fitted_ < high
    assert (ensemble.method_, ensemble.task_, ensemble.weights_.shape) == (pool, task, (4,))
    assert (ensemble.n_units_, ensemble.n_groups_, ensemble.names_) == (60, 30, tuple(f"member {m}" for m in range(4)))


@pytest.mark.parametrize("pool", ["auto", "linear", "calibrated"])
def test_the_score_in_sample_is_the_better_one(arrays, pool):
    ensemble = fit(**arrays(), pool=pool)
    assert ensemble.score_in_sample_ < ensemble.score_cross_fitted_


def test_auto_beats_the_mean_and_the_best_member(arrays):
    given = arrays(n_groups=60, noise=(0.7, 0.9, 0.9, 1.5))
    probs, targets, task = given["probs"], given["targets"], given["task"]
    ensemble = fit(**given)
    assert ensemble.score_cross_fitted_ < task.score(targets, probs.mean(1))
    assert ensemble.score_cross_fitted_ < min(task.score(targets, probs[:, m]) for m in range(4))
    assert abs(fit(**given, pool="linear").gap_) < 1e-9


def test_the_cross_fitted_score_is_honest_where_the_one_in_sample_is_not(arrays):
    """Twelve members that know nothing: their pool cannot beat the best constant on rows it has not seen."""
    given = arrays(n_groups=30, noise=(50.0,) * 12)
    ensemble = fit(**given, pool="linear")
    fresh = arrays(n_groups=1000, noise=(50.0,) * 12, seed=1)
    truth = given["task"].score(fresh["targets"], ensemble.predict(fresh["probs"]))
    assert ensemble.score_in_sample_ < truth
    assert abs(ensemble.score_cross_fitted_ - truth) < abs(ensemble.score_in_sample_ - truth)


@pytest.mark.parametrize("pool", methods.names()[1:])
def test_one_member_is_a_pool(arrays, pool):
    given = arrays(n_members=1)
    ensemble = fit(**given, pool=pool)
    if pool in ("linear", "uniform", "best_single", "greedy"):
        np.testing.assert_allclose(ensemble.oof_, given["probs"][:, 0], atol=1e-12)
        assert ensemble.weights_.tolist() == [1]
    assert np.isfinite(ensemble.score_cross_fitted_)


@pytest.mark.parametrize("pool", ["auto", "linear", "greedy"])
def test_identical_members_are_one(arrays, pool):
    given = arrays(n_members=1)
    alone, four = fit(**given, pool=pool), fit(**given | {"probs": np.repeat(given["probs"], 4, axis=1)}, pool=pool)
    np.testing.assert_allclose(four.oof_, alone.oof_, atol=1e-3)
    assert np.isfinite(four.weights_).all()


def test_rows_of_weight_0_are_predicted_and_nothing_else(arrays):
    given = arrays()
    counts = np.tile([1.0, 0.0, 2.0], 16)
    before = fit(**given, weights=counts)
    targets = given["targets"].copy()
    targets[counts == 0] = [0, 0, 1]
    after = fit(**given | {"targets": targets}, weights=counts)
    np.testing.assert_array_equal(before.oof_, after.oof_)
    by_row = given["task"].row_scores(given["targets"], before.oof_)
    assert before.score_cross_fitted_ == after.score_cross_fitted_ == pytest.approx(np.average(by_row, weights=counts))
    assert (before.n_units_, before.n_groups_) == (32, 24)
    without = fit(**{name: v[counts > 0] for name, v in given.items() if name != "task"}, weights=counts[counts > 0])
    np.testing.assert_allclose(without.oof_, before.oof_[counts > 0], atol=1e-12)


def test_the_score_of_a_fold_does_not_come_from_its_own_rows(arrays):
    given = arrays()
    held_out = given["folds"] == 1
    targets = np.where(held_out[:, None], given["targets"][:, [2, 0, 1]], given["targets"])
    before, after = fit(**given), fit(**given | {"targets": targets})
    np.testing.assert_array_equal(before.oof_[held_out], after.oof_[held_out])
    assert (before.predict(given["probs"]) != after.predict(given["probs"])).any()


def test_without_folds_patients_are_dealt_out_and_without_groups_each_row_is_one(arrays):
    given = {name: value for name, value in arrays(n_groups=25).items() if name != "folds"}
    assert fit(**given, pool="linear").n_groups_ == 25
    assert fit(**given | {"groups": None}, pool="linear").n_groups_ == 50


def test_limits_are_kept(arrays):
    ensemble = fit(**arrays(), limits=Limits(members=2))
    assert 1 <= (ensemble.weights_ > 0).sum() <= 2
    ensemble = fit(**arrays(), families=FAMILIES, limits=Limits(per_family=1), pool="log_linear")
    assert (ensemble.weights_.reshape(2, 2) > 0).sum(1).max() == 1
    ensemble = fit(**arrays(), limits=Limits(seconds=2.0, costs=(3.0, 1.0, 1.0, 1.0)), pool="uniform")
    assert ensemble.weights_.tolist().count(0.5) == 2 and ensemble.weights_[0] == 0


def test_the_fit_is_the_same_to_the_last_bit(arrays):
    one, two = (fit(**arrays(n_groups=15), families=FAMILIES) for _ in range(2))
    np.testing.assert_array_equal(one.oof_, two.oof_)
    np.testing.assert_array_equal(one.weights_, two.weights_)
    assert (one.score_cross_fitted_, one.score_in_sample_, one.interval_) == (
        two.score_cross_fitted_,
        two.score_in_sample_,
        two.interval_,
    )


def test_the_seed_is_of_the_interval_alone(arrays):
    one, two = (fit(**arrays(), pool="linear", seed=seed) for seed in (0, 1))
    assert one.interval_ != two.interval_
    np.testing.assert_array_equal(one.oof_, two.oof_)


def test_arguments_are_not_changed(arrays):
    given = arrays()
    before = {name: value.copy() for name, value in given.items() if name != "task"}
    fit(**given)
    for name, value in before.items():
        np.testing.assert_array_equal(given[name], value)


def test_progress_is_told(arrays):
    told = []
    fit(**arrays(), progress=lambda *figures: told.append(figures))
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    [total] = {total for _, total in told}
    assert total - 8 < len(told) <= total, "a candidate without a share is not fitted to all rows"


def test_notes_tell_what_is_odd(arrays):
    given = arrays(n_groups=100)
    given["probs"][:, 1] = given["targets"]
    [note] = fit(**given, pool="linear").notes_
    assert note.startswith("member 1 may have seen its targets")
    weights = (arrays()["folds"] == 0).astype(float)
    assert fit(**arrays(), weights=weights).notes_[0].startswith("fold 0: no scored unit lies in the other folds")


def test_one_patient_that_counts_has_no_interval(arrays):
    ensemble = fit(**arrays(), weights=(arrays()["groups"] == 4).astype(float), pool="linear")
    assert (ensemble.interval_, ensemble.n_groups_, ensemble.n_units_) == (None, 1, 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pool": "linaer"}, r"no pool named 'linaer'; there are: auto, .*two_level.* Did you mean 'linear'\?"),
        ({"limits": Limits(members=0)}, "max_members must be 1 or more, but got 0"),
        ({"limits": Limits(costs=(1.0,) * 4)}, "costs need max_seconds"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"task": "votess"}, "Did you mean 'votes'"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_fitted(arrays, changes, sentence):
    told = []
    with pytest.raises(ConfigError, match=sentence):
        fit(**arrays() | {"progress": lambda *_: told.append(1)} | changes)
    assert told == []


def test_arrays_that_cannot_be_are_refused(arrays):
    with pytest.raises(DataError, match="folds split 24 groups over several folds"):
        fit(**arrays() | {"folds": np.arange(48) % 2})


@pytest.mark.parametrize(
    ("kind", "pool"), [*(("votes", name) for name in methods.names()), ("multilabel", "two_level"), ("binary", "auto")]
)
def test_saved_and_loaded_it_predicts_the_same_to_the_bit(arrays, tmp_path, kind, pool):
    given = arrays(kind=kind, n_classes=KINDS[kind])
    names = ["one", "two", "three", "four"]
    ensemble = fit(**given, pool=pool, families=FAMILIES, names=names)
    ensemble.save(tmp_path / "new" / "ensemble.json")
    loaded = Ensemble.load(tmp_path / "new" / "ensemble.json")
    fresh = arrays(kind=kind, n_classes=KINDS[kind], seed=1)["probs"]
    np.testing.assert_array_equal(loaded.predict(fresh), ensemble.predict(fresh))
    assert loaded.oof_ is None
    assert replace(loaded, pool_=None) == replace(ensemble, pool_=None)
    assert loaded.gap_ == ensemble.gap_
    np.testing.assert_array_equal(loaded.weights_, ensemble.weights_)


def test_without_an_interval_it_is_saved_as_well(arrays, tmp_path):
    replace(fit(**arrays(), pool="linear"), interval_=None).save(tmp_path / "e.json")
    assert Ensemble.load(tmp_path / "e.json").interval_ is None


def test_a_save_that_fails_leaves_the_old_file(arrays, tmp_path, monkeypatch):
    ensemble, path = fit(**arrays(), pool="linear"), tmp_path / "e.json"
    ensemble.save(path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace(ensemble, method_="other").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["{}", "[]", '"text"', "null", '{"pool_": {}, "task_": {}}', "{", "\ufffd"])
def test_another_file_is_no_ensemble(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(DataError, match=r"other\.json: not "):
        Ensemble.load(tmp_path / "other.json")


def test_a_missing_file_and_a_studys_ensemble_are_no_ensemble(arrays, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Ensemble.load(tmp_path / "none.json")
    (tmp_path / "ensemble.json").write_text(json.dumps({"pool": "auto", "fitted": {}, "members": []}))
    with pytest.raises(DataError, match="not an ensemble that was saved by hms_ray"):
        Ensemble.load(tmp_path / "ensemble.json")


def test_predictions_of_another_shape_or_without_sense_are_refused(arrays):
    given = arrays()
    ensemble, probs = fit(**given, pool="linear", names=["one", "two", "three", "four"]), given["probs"]
    for wrong in (probs[:, :3], probs[..., :2], probs[0], probs[:, 0]):
        with pytest.raises(DataError, match=r"probs must be \(N, 4, 3\), but its shape is \("):
            ensemble.predict(wrong)
    spoilt = probs.copy()
    spoilt[7, 2, 0] = np.nan
    with pytest.raises(DataError, match="three: predictions must be finite in each row; 1 do not, the first is row 7"):
        ensemble.predict(spoilt)
    assert ensemble.predict(probs[:1]).shape == (1, 3)
    assert ensemble.predict(probs.tolist()).shape == (48, 3)


def test_single_precision_is_about_the_same(arrays):
    given = arrays()
    single = fit(**given | {"probs": given["probs"].astype(np.float32)})
    np.testing.assert_allclose(single.oof_, fit(**given).oof_, atol=1e-4)
