"""The ensemble of a study: what it writes, what it scores, and the real out-of-fold files as a known answer."""

import os
from pathlib import Path

import numpy as np
import pytest

from hms_ray import files, tasks
from hms_ray.ensemble import fit_study, linear_pool
from hms_ray.errors import ConfigError
from hms_ray.oof import OofTable
from hms_ray.oof_foreign import import_foreign
from hms_ray.seeds import stream
from hms_ray.study_folder import StudyFolder

TASK = tasks.from_dict({"kind": "votes", "classes": ["a", "b", "c"]})
REAL = Path(os.environ.get("HMS_RAY_REAL", Path(__file__).parents[2].parent / "shared" / "real")) / "oof"


def a_study(root, n_members=4, n_units=120, folds=None, votes=None, selected_on=()):
    """Write a study of members of unequal noise; returns its folder."""
    folder, rng = StudyFolder(root / "study"), stream(0, "study")
    truth = rng.dirichlet(np.ones(3), n_units)
    shared = {
        "unit_ids": np.array([f"u{i:03}" for i in range(n_units)]),
        "group_ids": np.array([f"p{i // 2:03}" for i in range(n_units)]),
        "folds": np.arange(n_units) // 2 % 3 if folds is None else folds,
        "votes": np.tile([2, 12], n_units // 2) if votes is None else votes,
        "targets": rng.multinomial(12, truth) / 12,
        "task": TASK,
        "space": "cnn",
        "data_fingerprint": "data",
        "folds_fingerprint": "folds",
        "selected_on": selected_on,
    }
    for m in range(n_members):
        noisy = truth * np.exp(rng.normal(0, 0.5 + 0.2 * m, truth.shape))
        probs = noisy / noisy.sum(1, keepdims=True)
        OofTable(**shared, probs=probs, trial=f"cnn-{m:04}").write(folder.oof(f"cnn-{m:04}"))
    identity = {"task": TASK.to_dict(), "data": {"fingerprint": "data"}, "folds": {"k": 3, "fingerprint": "folds"}}
    folder.claim({**identity, "score": {"min_votes": 10}})
    return folder


def test_the_figures_are_those_of_the_written_tables(tmp_path):
    folder = a_study(tmp_path)
    result = fit_study(folder)
    assert files.read_json(folder.ensemble) == result
    tables = [OofTable.read(folder.oof(trial)) for trial in folder.oof_ids()]
    rows, targets = tables[0].votes >= 10, tables[0].targets
    singles = [TASK.score(targets[rows], table.probs[rows]) for table in tables]
    weights = {member["trial"]: member["weight"] for member in result["members"]}
    blend = sum(weights.get(table.trial, 0) * table.probs for table in tables)
    assert result["kl_in_sample"] == pytest.approx(TASK.score(targets[rows], blend[rows]))
    assert result["baselines"]["best_single"] == pytest.approx(min(singles))
    assert result["baselines"]["best_single_trial"] == tables[int(np.argmin(singles))].trial
    assert result["baselines"]["mean"] == pytest.approx(
        TASK.score(targets[rows], np.mean([table.probs[rows] for table in tables], axis=0))
    )
    assert sum(weights.values()) == pytest.approx(1)
    assert result["population"] == {"units": 60, "groups": 60, "min_votes": 10}
    assert (result["candidates"], result["pool"], result["notes"]) == (4, "linear", [])
    assert max(result["duality_gap"], result["gap_by_fold"]) < 1e-9
    assert result["kl_in_sample"] < result["kl_cross_fitted"] < result["baselines"]["prior"]


def test_the_written_predictions_cover_all_units_and_give_the_cross_fitted_score(tmp_path):
    folder = a_study(tmp_path, selected_on=(1,))
    result = fit_study(folder)
    table = OofTable.read(folder.ensemble_oof)
    assert len(table.unit_ids) == 120
    assert (table.trial, table.selected_on) == ("ensemble", (1,))
    rows = table.rows(10)
    assert TASK.score(table.targets[rows], table.probs[rows]) == pytest.approx(result["kl_cross_fitted"])
    for fold, score in result["kl_cross_fitted_by_fold"].items():
        its = rows & (table.folds == int(fold))
        assert TASK.score(table.targets[its], table.probs[its]) == pytest.approx(score)


def test_a_fold_is_predicted_with_weights_of_the_other_folds(tmp_path):
    folder = a_study(tmp_path)
    fit_study(folder)
    tables = [OofTable.read(folder.oof(trial)) for trial in folder.oof_ids()]
    probs, first = np.stack([table.probs for table in tables], axis=1), tables[0]
    others = (first.folds != 2) & (first.votes >= 10)
    expected = linear_pool.fit(probs[others], first.targets[others]).predict(probs[first.folds == 2])
    np.testing.assert_allclose(OofTable.read(folder.ensemble_oof).probs[first.folds == 2], expected, atol=1e-12)


def test_min_votes_of_the_call_wins_over_the_study(tmp_path):
    folder = a_study(tmp_path)
    assert fit_study(folder, min_votes=1)["population"] == {"units": 120, "groups": 60, "min_votes": 1}
    assert fit_study(folder)["population"]["min_votes"] == 10


def test_folds_that_chose_nothing_are_scored_apart(tmp_path):
    folder = a_study(tmp_path, selected_on=(0,))
    outside = fit_study(folder)["outside_selection"]
    table = OofTable.read(folder.ensemble_oof)
    rows = table.rows(10) & (table.folds != 0)
    assert (outside["folds"], outside["units"], outside["groups"]) == ([1, 2], 40, 40)
    assert outside["kl_cross_fitted"] == pytest.approx(TASK.score(table.targets[rows], table.probs[rows]))


@pytest.mark.parametrize("selected_on", [(), (0, 1, 2)])
def test_nothing_is_set_apart_where_no_fold_or_every_fold_chose(tmp_path, selected_on):
    assert fit_study(a_study(tmp_path, selected_on=selected_on))["outside_selection"] is None


def test_a_fold_with_all_scored_units_is_averaged_and_noted(tmp_path):
    folds = np.arange(120) // 2 % 3
    result = fit_study(a_study(tmp_path, votes=np.where(folds == 1, 12, 2), folds=folds))
    assert [note.split(":")[0] for note in result["notes"]] == ["fold 1"]
    assert result["kl_cross_fitted_by_fold"]["0"] is None
    assert result["kl_cross_fitted_by_fold"]["1"] == pytest.approx(result["baselines"]["mean"])


def test_weights_without_a_certificate_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(linear_pool, "MAX_ITERATIONS", 0)
    result = fit_study(a_study(tmp_path))
    assert result["duality_gap"] > 1e-9
    assert result["notes"][0].startswith("weights are not certified: the duality gap is ")


def test_a_study_without_tables_says_what_to_run(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no out-of-fold tables.*hms-ray search.*--oof"):
        fit_study(a_study(tmp_path, n_members=0))


def test_tables_of_other_folds_are_refused(tmp_path):
    folder = a_study(tmp_path)
    study = folder.read_study()
    files.write_json(folder.study, {**study, "folds": {**study["folds"], "fingerprint": "others"}})
    with pytest.raises(ConfigError, match="their folds fingerprint is 'folds', the study's is 'others'"):
        fit_study(folder)


def test_one_fold_and_an_empty_population_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="2 folds or more"):
        fit_study(a_study(tmp_path / "one", folds=np.zeros(120, int)))
    with pytest.raises(ConfigError, match="largest vote count present is 12"):
        fit_study(a_study(tmp_path / "few"), min_votes=13)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real out-of-fold files; HMS_RAY_REAL names their folder")
def test_the_real_models_give_the_known_optimum(tmp_path):
    folder = StudyFolder(tmp_path / "real")
    import_foreign(sorted(REAL.glob("*.parquet")), folder, min_votes=10)
    result, every = fit_study(folder), fit_study(folder, min_votes=1)
    assert result["kl_in_sample"] == pytest.approx(0.21354, abs=6e-6)
    assert result["kl_cross_fitted"] == pytest.approx(0.21445, abs=6e-6)
    assert result["baselines"]["best_single"] == pytest.approx(0.23495, abs=6e-6)
    assert result["baselines"]["mean"] == pytest.approx(0.23415, abs=6e-6)
    assert every["kl_in_sample"] == pytest.approx(0.47088, abs=6e-6)
    assert every["kl_cross_fitted"] == pytest.approx(0.47322, abs=6e-6)
    assert max(result["duality_gap"], result["gap_by_fold"], every["duality_gap"], every["gap_by_fold"]) < 1e-9
