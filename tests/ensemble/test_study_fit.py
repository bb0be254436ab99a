"""The ensemble of a study: what it writes, what it scores, and the real out-of-fold files as a known answer."""

import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from hms_ray import cli, ensemble
from hms_ray.cli import main
from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.ensemble import Limits, methods, mixture, scores, study_fit
from hms_ray.ensemble.pools import _base
from hms_ray.ensemble.pools import linear as linear_pool
from hms_ray.ensemble.result import EnsembleResult
from hms_ray.oof_import import import_foreign
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable

REAL = Path(os.environ.get("HMS_RAY_REAL", Path(__file__).parents[2].parent / "shared" / "real")) / "oof"


def fit_study(folder, *arguments, **options):
    """Fit the ensemble of a study; return what its file holds."""
    return ensemble.fit_study(folder, *arguments, **options).model_dump(mode="json")


def _summary(content):
    """The lines that `hms-ray ensemble` prints."""
    return cli._summary(EnsembleResult.model_validate(content))


@pytest.fixture(scope="module")
def fitted(make_study, tmp_path_factory):
    """A study of two spaces whose members were chosen on fold 1 among more, and what its fit returned."""
    spaces = {"n_members": 5, "n_tried": 4, "spaces": ("cnn", "wave"), "selected_on": (1,)}
    folder = make_study(tmp_path_factory.mktemp("study"), **spaces)
    return folder, fit_study(folder)


@pytest.fixture(scope="module")
def linear(make_study, tmp_path_factory):
    """A study of four members and what the fit of the linear pool returned."""
    folder = make_study(tmp_path_factory.mktemp("linear"))
    return folder, fit_study(folder, pool="linear")


def tables_of(folder):
    return {trial: OofTable.read(folder.oof(trial)) for trial in folder.oof_ids()}


def row_of(result, method):
    [row] = [row for row in result["methods"] if row["method"] == method]
    return row


def test_the_file_holds_what_is_returned(fitted, linear):
    for folder, result in (fitted, linear):
        assert files.read_json(folder.ensemble) == result


def test_the_fitted_pool_over_its_members_gives_the_score_in_sample(fitted, linear):
    for folder, result in (fitted, linear):
        tables = tables_of(folder)
        members = [tables[member["trial"]] for member in result["members"]]
        pool, first = _base.from_dict(result["fitted"]), members[0]
        pooled = pool.predict(np.stack([table.probs for table in members], axis=1))
        rows = first.rows(10)
        assert first.task.score(first.targets[rows], pooled[rows]) == pytest.approx(
            result["score_in_sample"], rel=1e-12
        )
        assert pool.weights.tolist() == pytest.approx([member["weight"] for member in result["members"]])
        assert all(member["weight"] > 0 for member in result["members"])


def test_members_without_weight_are_no_part_of_the_fitted_pool(make_study, tmp_path):
    folder = make_study(tmp_path)
    replace(OofTable.read(folder.oof("cnn-0000")), trial="same").write(folder.oof("same"))
    result = fit_study(folder, pool="linear")
    assert "same" not in [member["trial"] for member in result["members"]]
    assert len(result["fitted"]["weights"]) == len(result["members"]) < result["candidates"] == 5


def test_the_written_predictions_cover_all_units_and_give_the_cross_fitted_score(fitted):
    folder, result = fitted
    table = OofTable.read(folder.ensemble_oof)
    assert len(table.unit_ids) == 120
    assert (table.trial, table.space, table.selected_on) == ("ensemble", "ensemble", (1,))
    rows, task = table.rows(10), table.task
    assert task.score(table.targets[rows], table.probs[rows]) == pytest.approx(result["score_cross_fitted"], rel=1e-12)
    assert set(result["score_cross_fitted_by_fold"]) == {"0", "1", "2"}
    for fold, score in result["score_cross_fitted_by_fold"].items():
        its = rows & (table.folds == int(fold))
        assert task.score(table.targets[its], table.probs[its]) == pytest.approx(score, rel=1e-12)


def test_the_weights_of_the_linear_pool_are_its_recipe(linear):
    folder, result = linear
    tables = list(tables_of(folder).values())
    rows, targets, task = tables[0].rows(10), tables[0].targets, tables[0].task
    weights = {member["trial"]: member["weight"] for member in result["members"]}
    blend = sum(weights.get(table.trial, 0) * table.probs for table in tables)
    assert sum(weights.values()) == pytest.approx(1)
    assert result["score_in_sample"] == pytest.approx(task.score(targets[rows], blend[rows]), rel=1e-12)
    assert max(result["duality_gap"], result["gap_by_fold"]) < 1e-9


def test_a_fold_is_predicted_with_weights_of_the_other_folds(linear):
    folder, _ = linear
    tables = list(tables_of(folder).values())
    probs, first = np.stack([table.probs for table in tables], axis=1), tables[0]
    others = (first.folds != 2) & (first.votes >= 10)
    expected = linear_pool.fit(probs[others], first.targets[others]).predict(probs[first.folds == 2])
    np.testing.assert_allclose(OofTable.read(folder.ensemble_oof).probs[first.folds == 2], expected, atol=1e-12)


def test_scores_stand_beside_their_population_and_their_baselines(fitted):
    folder, result = fitted
    tables = list(tables_of(folder).values())
    rows, targets, task = tables[0].rows(10), tables[0].targets, tables[0].task
    singles = [task.score(targets[rows], table.probs[rows]) for table in tables]
    mean = np.mean([table.probs[rows] for table in tables], axis=0)
    assert result["baselines"]["best_single"] == pytest.approx(min(singles))
    assert result["baselines"]["best_single_trial"] == tables[int(np.argmin(singles))].trial
    assert result["baselines"]["mean"] == pytest.approx(task.score(targets[rows], mean))
    assert result["population"] == {"units": 60, "groups": 60, "min_votes": 10}
    assert (result["candidates"], result["pool"], result["notes"], result["limits"]) == (5, "auto", [], None)
    assert result["folds_fingerprint"] == "folds"
    assert result["score_in_sample"] <= result["score_cross_fitted"] + 1e-12 < result["baselines"]["prior"]


def test_the_table_has_a_row_for_each_method_ours_first(fitted, linear):
    (_, every), (_, one_space) = fitted, linear
    assert [row["method"] for row in every["methods"]] == methods.names(), "the members' families are their spaces"
    ours = [row["method"] for row in one_space["methods"]]
    assert (ours[0], set(ours)) == ("linear", set(methods.names()) - {"two_level"})
    assert every["interval"] == every["methods"][0]["score_cross_fitted"]
    assert every["interval"]["value"] == every["score_cross_fitted"]
    assert (every["duality_gap"], every["gap_by_fold"]) == tuple(every["methods"][0][k] for k in ("gap", "gap_by_fold"))


def test_each_member_is_described_by_what_is_lost_without_it_and_who_errs_alike(fitted):
    folder, result = fitted
    tables = tables_of(folder)
    rows = next(iter(tables.values())).rows(10)
    errors = {name: (table.probs - table.targets)[rows].ravel() for name, table in tables.items()}
    used = [member["trial"] for member in result["members"]]
    whole = row_of(result, "linear")["score_cross_fitted"]["value"]
    assert len(used) > 1
    for member in result["members"]:
        alike = {other: np.corrcoef(errors[other], errors[member["trial"]])[0, 1] for other in used}
        del alike[member["trial"]]
        assert member["most_alike"] == max(alike, key=alike.get)
        assert member["error_correlation"] == pytest.approx(max(alike.values()))
        assert member["gain"] == pytest.approx(member["without"] - whole)
        assert member["space"] == tables[member["trial"]].space


def test_without_the_best_member_the_linear_pool_is_as_if_it_had_never_been(linear, make_study, tmp_path):
    _, result = linear
    best = result["baselines"]["best_single_trial"]
    folder = make_study(tmp_path)
    folder.oof(best).unlink()
    [without] = [member["without"] for member in result["members"] if member["trial"] == best]
    assert without == pytest.approx(fit_study(folder, pool="linear")["score_cross_fitted"], abs=1e-6)


def test_the_choice_of_configurations_is_corrected_for(fitted):
    _, result = fitted
    selection = result["selection"]
    assert (selection["configurations"], selection["kept"], selection["folds"]) == (9, 5, [1])
    expected = result["score_cross_fitted"] + selection["share"] * max(selection["optimism"], 0)
    assert selection["share"] == pytest.approx(1 / 3)
    assert result["score_selection_corrected"] == pytest.approx(expected, rel=1e-14)


def test_where_nothing_was_chosen_nothing_is_corrected(linear):
    _, result = linear
    assert (result["selection"], result["score_selection_corrected"], result["outside_selection"]) == (None, None, None)


def test_folds_that_chose_nothing_are_scored_apart(fitted):
    folder, result = fitted
    outside, table = result["outside_selection"], OofTable.read(folder.ensemble_oof)
    rows, task = table.rows(10) & (table.folds != 1), table.task
    assert (outside["folds"], outside["units"], outside["groups"]) == ([0, 2], 40, 40)
    assert outside["score_cross_fitted"] == pytest.approx(task.score(table.targets[rows], table.probs[rows]))
    singles = [task.score(one.targets[rows], one.probs[rows]) for one in tables_of(folder).values()]
    assert outside["best_single"] == pytest.approx(min(singles))


def test_nothing_is_set_apart_where_every_fold_chose(make_study, tmp_path):
    folder = make_study(tmp_path, selected_on=(0, 1, 2))
    assert fit_study(folder, pool="linear")["outside_selection"] is None


def test_metrics_are_those_of_the_written_predictions_on_the_scored_rows(fitted):
    folder, result = fitted
    table = OofTable.read(folder.ensemble_oof)
    rows = table.rows(10)
    expected = table.task.metrics(table.targets[rows], table.probs[rows]).to_dict()
    metrics = {name: value for name, value in result["metrics"].items() if name in expected}
    assert metrics == expected
    assert metrics["units"] == result["population"]["units"] == np.sum(metrics["confusion"])


def test_the_score_stands_at_several_thresholds_of_votes_each_with_its_population(make_study, tmp_path):
    votes = np.tile([2, 4, 9, 12, 12, 12], 20)
    folder = make_study(tmp_path, votes=votes)
    result = fit_study(folder, pool="linear")
    table, task = OofTable.read(folder.ensemble_oof), OofTable.read(folder.ensemble_oof).task
    best = OofTable.read(folder.oof(result["baselines"]["best_single_trial"]))
    found = result["metrics"]["score_by_min_votes"]
    assert [row["min_votes"] for row in found] == [1, 3, 5, 10], "8 keeps the units of 5, nobody has 15"
    for row in found:
        rows = votes >= row["min_votes"]
        assert (row["units"], row["groups"]) == (rows.sum(), len(set(table.group_ids[rows])))
        assert row["ensemble"] == pytest.approx(task.score(table.targets[rows], table.probs[rows]), rel=1e-12)
        assert row["best_single"] == pytest.approx(task.score(best.targets[rows], best.probs[rows]), rel=1e-12)
    assert found[-1]["ensemble"] == pytest.approx(result["score_cross_fitted"], rel=1e-12)
    assert found[-1]["prior"] == pytest.approx(result["baselines"]["prior"], rel=1e-12)


@pytest.mark.parametrize(
    ("votes", "own", "expected"),
    [([2, 4, 9, 12], 10, [1, 3, 5, 10]), ([1, 1, 1], 1, [1]), ([3, 30], 7, [1, 7]), ([2, 25], 22, [1, 22])],
)
def test_thresholds_change_the_population_and_hold_the_studys_own(votes, own, expected):
    assert scores.vote_thresholds(np.array(votes), own) == expected


def test_min_votes_of_the_call_wins_over_the_study(linear, make_study, tmp_path):
    result = fit_study(make_study(tmp_path), min_votes=1, pool="linear")
    assert result["population"] == {"units": 120, "groups": 60, "min_votes": 1}
    assert linear[1]["population"]["min_votes"] == 10


def test_the_fit_is_the_same_again(linear, make_study, tmp_path):
    assert fit_study(make_study(tmp_path), pool="linear") == linear[1]


def test_limits_are_kept_and_kept_in_mind(make_study, tmp_path):
    folder = make_study(tmp_path, n_members=5, spaces=("cnn", "wave"))
    result = fit_study(folder, limits=Limits(members=2, per_family=1))
    assert result["limits"]["members"] == 2
    assert len({member["space"] for member in result["members"]}) == len(result["members"]) <= 2
    assert all(row["members"] <= 2 for row in result["methods"])


def test_a_fold_with_all_scored_units_is_averaged_and_noted(make_study, tmp_path):
    votes = np.where(np.arange(120) // 2 % 3 == 1, 12, 2)
    result = fit_study(make_study(tmp_path, votes=votes), pool="linear")
    assert [note.split(":")[0] for note in result["notes"]] == ["fold 1"]
    assert result["score_cross_fitted_by_fold"]["0"] is None
    assert result["score_cross_fitted_by_fold"]["1"] == pytest.approx(result["baselines"]["mean"])


def test_weights_without_a_certificate_are_noted(make_study, tmp_path, monkeypatch):
    monkeypatch.setattr(mixture, "MAX_ITERATIONS", 0)
    result = fit_study(make_study(tmp_path), pool="linear")
    assert result["duality_gap"] > 1e-9
    assert result["notes"][0].startswith("weights are not certified: the duality gap is ")


def test_a_member_that_knows_the_targets_is_noted_and_can_be_written_down(make_study, tmp_path):
    folder = make_study(tmp_path, n_units=240)
    table = OofTable.read(folder.oof("cnn-0001"))
    replace(table, probs=table.targets).write(folder.oof("cnn-0001"))
    result = fit_study(folder, pool="linear")
    assert [note.split(":")[0] for note in result["notes"]] == ["cnn-0001 may have seen its targets"]
    named = result["notes"][0].split("such as ")[1].split(", ")
    assert set(named) <= set(table.unit_ids[table.rows(10)])


def test_one_member_is_an_ensemble(make_study, tmp_path):
    result = fit_study(make_study(tmp_path, n_members=1))
    [member] = result["members"]
    assert (member["most_alike"], member["error_correlation"], member["gain"]) == (None, None, None)


def test_an_unknown_pool_is_refused_first(tmp_path):
    with pytest.raises(ConfigError, match=r"no pool named 'autoo'.* Did you mean 'auto'"):
        fit_study(StudyFolder(tmp_path / "none"), pool="autoo")


def test_limits_that_cannot_be_are_refused(make_study, tmp_path):
    folder = make_study(tmp_path)
    with pytest.raises(ConfigError, match="tolerance must be 0 or more nats, but got -1"):
        fit_study(folder, limits=Limits(tolerance=-1))
    assert not folder.ensemble.exists()


def test_a_study_without_tables_says_what_to_run(make_study, tmp_path):
    with pytest.raises(ConfigError, match=r"holds no out-of-fold tables.*hms-ray search.*--oof"):
        fit_study(make_study(tmp_path, n_members=0))


def test_tables_of_other_folds_are_refused(make_study, tmp_path):
    folder = make_study(tmp_path)
    study = folder.read_study()
    files.write_json(folder.study, {**study, "folds": {**study["folds"], "fingerprint": "others"}})
    with pytest.raises(ConfigError, match="are not of this study: their folds are not the study's"):
        fit_study(folder)


def test_tables_that_do_not_fit_or_are_broken_are_refused(make_study, tmp_path):
    folder = make_study(tmp_path)
    table = OofTable.read(folder.oof("cnn-0002"))
    replace(table, votes=table.votes + 1).write(folder.oof("cnn-0002"))
    with pytest.raises(DataError, match="'cnn-0002' has other votes for 120 units, the first is 'u000'"):
        fit_study(folder)
    folder.oof("cnn-0002").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"cnn-0002\.parquet: truncated parquet"):
        fit_study(folder)


def test_one_fold_and_an_empty_population_are_refused(make_study, tmp_path):
    with pytest.raises(ConfigError, match="2 folds or more"):
        fit_study(make_study(tmp_path / "one", folds=np.zeros(120, int)))
    with pytest.raises(ConfigError, match="largest vote count present is 12"):
        fit_study(make_study(tmp_path / "few"), min_votes=13)


def test_the_command_says_each_score_beside_its_population(make_study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])  # the command line sets its own
    folder = make_study(tmp_path, n_members=3, n_tried=3, selected_on=(1,))
    limits = ["--max-members", "2", "--max-per-space", "2", "--tolerance", "1e-5"]
    assert main(["ensemble", "--study", str(folder.root), "--pool", "linear", *limits]) == 0
    said, result = capsys.readouterr().out, files.read_json(folder.ensemble)
    assert result["limits"] == asdict(Limits(members=2, per_family=2, tolerance=1e-5))
    added = result["score_selection_corrected"] - result["score_cross_fitted"]
    low, high = (result["interval"][key] + added for key in ("low", "high"))
    for sentence in (
        "60 units with >= 10 votes of 60 patients",
        f"ensemble, cross-fitted  {result['score_cross_fitted']:.5f} ({result['interval']['low']:.5f} ",
        f"selection-corrected     {result['score_selection_corrected']:.5f} ({low:.5f} {high:.5f})",
        "the estimated optimism of picking 3 of 6 configurations on fold 1",
        f"ensemble, in sample     {result['score_in_sample']:.5f}  optimistic",
        f"best single             {result['baselines']['best_single']:.5f}  cnn-000",
        f"members with weight     {len(result['members'])} of 3",
        "no configuration was chosen on 40 units of folds 0, 2: there, cross-fitted ",
    ):
        assert sentence in said
    lines = [line.split()[0] for line in said.splitlines() if line]
    assert [name for name in lines if name in methods.names()] == [row["method"] for row in result["methods"]]


def test_few_patients_are_told_without_intervals(make_study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    groups = np.array([f"p{i // 2 % 3}" for i in range(120)])
    folder = make_study(tmp_path, group_ids=groups)
    assert main(["ensemble", "--study", str(folder.root), "--pool", "linear"]) == 0
    result = files.read_json(folder.ensemble)
    assert (result["interval"]["low"], result["interval"]["high"]) == (None, None)
    assert f"ensemble, cross-fitted  {result['score_cross_fitted']:.5f}\n" in capsys.readouterr().out


@pytest.mark.skipif(not REAL.is_dir(), reason="no real out-of-fold files; HMS_RAY_REAL names their folder")
def test_the_real_models_give_the_known_optimum(tmp_path):
    folder = StudyFolder(tmp_path / "real")
    import_foreign(sorted(REAL.glob("*.parquet")), folder, min_votes=10)
    result, every = fit_study(folder), fit_study(folder, min_votes=1)
    for found, in_sample, cross_fitted, ours in ((result, 0.21354, 0.21445, 0.2136), (every, 0.47088, 0.47322, 0.4658)):
        row = row_of(found, "linear")
        assert row["score_in_sample"] == pytest.approx(in_sample, abs=6e-6)
        assert row["score_cross_fitted"]["value"] == pytest.approx(cross_fitted, abs=6e-6)
        assert found["score_cross_fitted"] <= ours
        gaps = [row[key] for row in found["methods"] for key in ("gap", "gap_by_fold") if row[key] is not None]
        assert len(gaps) >= 8 and max(gaps) < 1e-9
        assert found["score_selection_corrected"] is None
    assert result["baselines"]["best_single"] == pytest.approx(0.23495, abs=6e-6)
    assert result["baselines"]["mean"] == pytest.approx(0.23415, abs=6e-6)


def with_rules(folder, *rules):
    """Give the tables, in the order of trials, those rules; returns the trials."""
    trials = folder.oof_ids()
    for trial, rule in zip(trials, rules, strict=True):
        replace(OofTable.read(folder.oof(trial)), epoch_rule=rule).write(folder.oof(trial))
    return trials


def test_best_epochs_of_any_candidate_are_marked(make_study, tmp_path, caplog):
    folder = make_study(tmp_path)
    trials = with_rules(folder, "cross_fitted", "best", "last", "best")
    with caplog.at_level(logging.WARNING):
        result = fit_study(folder, pool="linear")
    assert result["optimistic_epochs"] == [trials[1], trials[3]]
    [note] = [note for note in result["notes"] if "epochs" in note]
    assert note.startswith("the epochs of 2 of 4 candidates were chosen on the rows that they are scored on")
    assert note in caplog.messages
    assert OofTable.read(folder.ensemble_oof).epoch_rule == "best"
    said = list(_summary(result))
    marked = [line for line in said if "optimistic: best epochs, chosen on the rows scored" in line]
    heads = ["ensemble, cross-fitted", "mean of all", "pool         in sample"]
    best = result["baselines"]["best_single_trial"]
    assert [line[:22].strip() for line in marked if not line.startswith("best single")] == heads
    assert any(line.startswith("best single") for line in marked) == (best in result["optimistic_epochs"])


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (("cross_fitted",) * 4, "cross_fitted"),
        (("last",) * 4, "last"),
        (("given",) * 4, "given"),
        (("last", "cross_fitted", "last", "last"), "cross_fitted"),
        (("given", "cross_fitted", "last", "last"), "given"),
    ],
)
def test_other_epochs_are_not_marked(make_study, tmp_path, rules, expected):
    folder = make_study(tmp_path)
    with_rules(folder, *rules)
    result = fit_study(folder, pool="linear")
    assert result["optimistic_epochs"] == []
    assert not any("epochs" in note for note in result["notes"])
    assert not any("best epochs" in line for line in _summary(result))
    assert OofTable.read(folder.ensemble_oof).epoch_rule == expected


@pytest.fixture(scope="module")
def sounds(make_study, tmp_path_factory):
    """A study of labels with a plain baseline that is worse than any member, and what its fit returned."""
    folder = make_study(tmp_path_factory.mktemp("sounds"), kind="multilabel", plain=3.0)
    study = folder.read_study()
    files.write_json(folder.study, study | {"data": study["data"] | {"baseline": "logistic regression on two numbers"}})
    return folder, fit_study(folder, pool="linear")


def test_a_plain_baseline_is_scored_beside_the_ensemble_and_never_joins_it(sounds):
    folder, result = sounds
    plain, rows = OofTable.read(folder.baseline), slice(None)
    score = plain.task.score(plain.targets[rows], plain.probs[rows])
    assert result["baselines"]["plain"] == pytest.approx(score, rel=1e-12)
    assert result["baselines"]["plain_is"] == "logistic regression on two numbers"
    difference = result["baselines"]["differences"]["plain"]
    assert difference["value"] == pytest.approx(score - result["score_cross_fitted"], rel=1e-9)
    assert difference["low"] > 0
    assert result["candidates"] == 4 and "plain" not in {member["trial"] for member in result["members"]}
    expected = plain.task.metrics(plain.targets, plain.probs).to_dict()
    assert {name: result["metrics_of_plain"][name] for name in expected} == expected
    assert set(result["metrics_of_plain"]["thresholds"]) == {"0", "1", "2"}


def test_the_macro_auroc_has_an_interval_by_patient_and_so_has_its_distance_to_the_plain_ones(sounds):
    _, result = sounds
    mine, theirs, gain = (
        result["metrics"]["macro_auroc_interval"],
        result["metrics_of_plain"]["macro_auroc_interval"],
        result["metrics"]["macro_auroc_gain"],
    )
    assert mine["value"] == pytest.approx(result["metrics"]["macro_auroc"], rel=1e-12)
    assert theirs["value"] == pytest.approx(result["metrics_of_plain"]["macro_auroc"], rel=1e-12)
    assert gain["value"] == pytest.approx(mine["value"] - theirs["value"]) and gain["low"] > 0
    for estimate in (mine, theirs, gain):
        assert estimate["low"] < estimate["value"] < estimate["high"]


def test_the_plain_baseline_changes_no_other_figure(sounds, make_study, tmp_path):
    folder = make_study(tmp_path, kind="multilabel")
    without, result = fit_study(folder, pool="linear"), sounds[1]
    assert without["baselines"]["plain"] is without["baselines"]["plain_is"] is without["metrics_of_plain"] is None
    assert without["baselines"]["differences"].pop("plain") is None and without["metrics"]["macro_auroc_gain"] is None
    for name in set(without) - {"baselines", "metrics", "metrics_of_plain"}:
        assert without[name] == result[name]
    for name in set(without["metrics"]) - {"macro_auroc_gain"}:
        assert without["metrics"][name] == result["metrics"][name]
    for name, difference in without["baselines"]["differences"].items():
        assert difference == pytest.approx(result["baselines"]["differences"][name], rel=1e-9)


def test_a_plain_baseline_of_other_data_is_refused(make_study, tmp_path):
    folder = make_study(tmp_path, kind="multilabel", plain=1.0)
    table = OofTable.read(folder.baseline)
    replace(table, data_fingerprint="older", folds=(table.folds + 1) % 3).write(folder.baseline)
    with pytest.raises(DataError, match=r"(?s)'plain' was made from other data.*'plain' has other folds .*seed"):
        fit_study(folder)
    assert not folder.ensemble.exists()


def test_votes_may_have_a_plain_baseline_and_no_thresholds(make_study, tmp_path):
    result = fit_study(make_study(tmp_path, plain=2.0), pool="linear")
    assert result["baselines"]["plain"] > result["score_cross_fitted"]
    assert result["baselines"]["plain_is"] == "a plain model"
    for metrics in (result["metrics"], result["metrics_of_plain"]):
        assert (metrics["thresholds"], metrics["thresholded"], metrics["macro_auroc_interval"]) == (None, None, None)


def test_the_command_says_the_auroc_and_the_plain_baseline_where_there_are_such(sounds, fitted):
    result, said = sounds[1], list(_summary(sounds[1]))
    mine, theirs = result["metrics"]["macro_auroc_interval"], result["metrics_of_plain"]["macro_auroc_interval"]
    assert said[0] == "120 units of 60 patients"
    ours, others = (f"{its['value']:.5f} ({its['low']:.5f} {its['high']:.5f})" for its in (mine, theirs))
    for line in (
        f"plain baseline          {result['baselines']['plain']:.5f}  logistic regression on two numbers",
        f"macro AUROC             {ours}  of the ensemble, cross-fitted",
        f"macro AUROC, plain      {others}  of the plain baseline",
    ):
        assert line in said
    assert not any("plain baseline" in line or "AUROC" in line for line in _summary(fitted[1]))


def misled(folder):
    """Give every member predictions that are surest where they are wrong: no pool of evidence has a use for them."""
    for trial in folder.oof_ids():
        table = OofTable.read(folder.oof(trial))
        least = np.arange(3) == table.targets.argmin(-1)[:, None]
        wrong = 1 - table.targets if table.task.asks_each_class else np.where(least, 0.98, 0.01)
        replace(table, probs=np.clip(wrong, 0.01, 0.99)).write(folder.oof(trial))
    return folder


@pytest.mark.parametrize("kind", ["votes", "multilabel"])
@pytest.mark.parametrize("pool", ["log_linear", "two_level"])
def test_a_pool_in_which_no_member_has_weight_is_its_bias_and_says_so(make_study, tmp_path, pool, kind):
    folder = misled(make_study(tmp_path, kind=kind, spaces=("cnn", "wave")))
    result = fit_study(folder, pool=pool)
    assert result["members"] == []
    [note] = [note for note in result["notes"] if note.startswith(f"no member has weight in the {pool} pool")]
    assert "it predicts the same for every unit (a 0." in note
    table = OofTable.read(folder.ensemble_oof)
    task, nobody = table.task, np.zeros((len(table.probs), 0, 3))
    constant = task.from_outcomes(_base.from_dict(result["fitted"]).predict(task.outcomes(nobody)))
    task.check_probs(constant, "the pool without members")
    scored = table.rows(result["population"]["min_votes"])
    assert task.score(table.targets[scored], constant[scored]) == pytest.approx(result["score_in_sample"])


@pytest.mark.parametrize("pool", [*methods.names()])
def test_every_pool_takes_members_that_tell_nothing(make_study, tmp_path, pool):
    folder = make_study(tmp_path, n_members=3, spaces=("cnn", "wave"))
    for trial in folder.oof_ids():
        table = OofTable.read(folder.oof(trial))
        replace(table, probs=np.full_like(table.probs, 1 / 3)).write(folder.oof(trial))
    result = fit_study(folder, pool=pool)
    assert np.isfinite([result["score_in_sample"], result["score_cross_fitted"]]).all()
    assert OofTable.read(folder.ensemble_oof).probs.shape == (120, 3)


def test_a_study_that_cannot_be_written_is_refused_before_anything_is_fitted(make_study, tmp_path, capsys, monkeypatch):
    folder = make_study(tmp_path)
    monkeypatch.setattr(study_fit, "Fits", lambda *_: pytest.fail("something was fitted"))
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # root may write anywhere
    assert main(["ensemble", "--study", str(folder.root)]) == 2
    assert capsys.readouterr().err == f"hms-ray ensemble: loading ...\nerror: {folder.root}: Permission denied\n"


def test_an_optimism_below_0_is_chance_and_corrects_nothing(make_study, tmp_path, monkeypatch):
    monkeypatch.setattr(study_fit.choice, "optimism_of_choice", lambda *_: -0.01)
    result = fit_study(make_study(tmp_path, n_members=3, n_tried=3, selected_on=(1,)), pool="linear")
    assert result["selection"]["optimism"] == -0.01
    assert result["score_selection_corrected"] == pytest.approx(result["score_cross_fitted"], rel=1e-14)
    _, corrected, said, *_ = _summary(result)
    assert corrected.startswith(f"selection-corrected     {result['score_cross_fitted']:.5f} ")
    picking = "picking 3 of 6 configurations on fold 1"
    assert said.strip() == f"adds nothing: the estimated optimism of {picking} is not above 0"


@pytest.mark.parametrize("n_groups", [2, 4, 5])
def test_no_interval_leaves_what_scores_can_be(make_study, tmp_path, n_groups):
    folder, worst = make_study(tmp_path, n_units=24, folds=np.arange(24) % n_groups % 3), -np.log(1e-15)
    for n, trial in enumerate(folder.oof_ids()):
        table = OofTable.read(folder.oof(trial))
        sure = np.where(np.arange(24)[:, None] % 5 == n, np.eye(3)[table.targets.argmin(-1)], table.targets)
        groups = np.array([f"p{i % n_groups}" for i in range(24)])
        replace(table, group_ids=groups, probs=sure).write(folder.oof(trial))
    result = fit_study(folder)
    scores = [result["interval"], *(row["score_cross_fitted"] for row in result["methods"])]
    differences = result["baselines"]["differences"]
    assert differences.pop("plain") is None
    apart = [*differences.values(), *(row["difference"] for row in result["methods"])]
    for least, found in ((0, scores), (-worst, apart)):
        for estimate in found:
            assert (estimate["low"] is None) == (result["population"]["groups"] < 4)
            if estimate["low"] is not None:
                assert least <= estimate["low"] <= estimate["value"] <= estimate["high"] <= worst


def test_a_study_of_one_table_speaks_of_no_choice(make_study, tmp_path):
    said = list(_summary(fit_study(make_study(tmp_path, n_members=1))))
    assert any(line.startswith("the only table          0.") for line in said)
    assert not any("hindsight" in line or line.startswith("mean of all") for line in said)
