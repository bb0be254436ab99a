"""Out-of-fold files of other pipelines: joined whatever their order, refused by file and row where they cannot be."""

import numpy as np
import pandas as pd
import pytest

from hms_ray.cli import main
from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.ensemble import fit_study
from hms_ray.oof_import import import_foreign
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, deal_folds

CLASSES = ["seizure", "lpd", "gpd", "lrda", "grda", "other"]
N = 30


@pytest.fixture
def study(foreign):
    return foreign.study


def test_rows_are_joined_on_their_ids(foreign, study):
    import_foreign(foreign.sound(), study)
    assert study.oof_ids() == ["one", "two"]
    for name in ("one", "two"):
        table = OofTable.read(study.oof(name))
        foreign.expect(name)
        votes = foreign.labels()
        votes = votes.set_index(votes["eeg_id"].astype(str) + "-" + votes["eeg_sub_id"].astype(str)).loc[table.unit_ids]
        counts = votes[[f"{c}_vote" for c in CLASSES]].to_numpy()
        np.testing.assert_array_equal(table.votes, counts.sum(1))
        np.testing.assert_allclose(table.targets, counts / counts.sum(1, keepdims=True))
        np.testing.assert_array_equal(table.folds, votes["fold"])
        np.testing.assert_array_equal(table.group_ids, votes["patient_id"].astype(str))
        assert (table.trial, table.space, table.selected_on) == (name, "foreign", ())


def test_the_study_says_what_it_is(foreign, study):
    import_foreign(foreign.sound(), study, min_votes=3)
    content = study.read_study()
    assert content["task"] == {"kind": "votes", "classes": CLASSES}
    assert (content["data"]["units"], content["data"]["groups"]) == (N, 15)
    assert (content["folds"]["k"], content["folds"]["seed"], content["score"]) == (3, None, {"min_votes": 3})
    assert content["spaces"] == {}
    folds = files.read_table(study.folds)
    assert list(folds.columns) == ["unit_id", "group_id", "fold"]
    assert len(folds) == N


def test_an_imported_study_can_be_combined_at_another_min_votes(foreign, study):
    import_foreign(foreign.sound(), study, min_votes=5)
    assert fit_study(study).population.min_votes == 5
    assert fit_study(study, min_votes=1).population.units == N


def test_importing_again_changes_nothing_whatever_the_order_or_min_votes(foreign, study):
    paths = foreign.sound()
    import_foreign(paths, study, min_votes=3)
    before = {path: path.read_bytes() for path in study.root.rglob("*") if path.is_file()}
    import_foreign(paths[::-1], study, min_votes=7)
    assert {path: path.read_bytes() for path in study.root.rglob("*") if path.is_file()} == before


def test_parquet_is_read_like_csv(foreign, tmp_path, study):
    frames = {"labels": foreign.labels(), "one": foreign.predictions("one")}
    for name, frame in frames.items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
    import_foreign([tmp_path / "labels.parquet", tmp_path / "one.parquet"], study)
    other = StudyFolder(tmp_path / "other")
    import_foreign(foreign.save(**frames), other)
    first, second = OofTable.read(study.oof("one")), OofTable.read(other.oof("one"))
    assert (first.data_fingerprint, first.folds_fingerprint) == (second.data_fingerprint, second.folds_fingerprint)
    np.testing.assert_allclose(first.probs, second.probs)


def test_classes_come_in_the_hms_order_or_else_in_that_of_the_labels(foreign, tmp_path, study):
    import_foreign(foreign.save(labels=foreign.labels(CLASSES[::-1]), one=foreign.predictions("one")), study)
    assert OofTable.read(study.oof("one")).task.classes == tuple(CLASSES)
    own = ["wheeze", "crackle"]
    other = StudyFolder(tmp_path / "other")
    import_foreign(foreign.save(labels=foreign.labels(own), one=foreign.predictions("one", own[::-1])), other)
    assert OofTable.read(other.oof("one")).task.classes == tuple(own)


def test_shares_take_their_number_from_the_votes_column_and_are_one_vote_without(foreign, tmp_path, study):
    labels = foreign.labels().astype(dict.fromkeys([f"{c}_vote" for c in CLASSES], float))
    counts = labels.filter(like="_vote")
    labels[counts.columns] = counts.div(counts.sum(axis=1), axis=0)
    import_foreign(foreign.sound(labels.assign(votes=17)), study)
    assert OofTable.read(study.oof("one")).votes.tolist() == [17] * N
    other = StudyFolder(tmp_path / "other")
    import_foreign(foreign.sound(labels), other)
    assert OofTable.read(other.oof("one")).votes.tolist() == [1] * N


def test_without_folds_patients_are_dealt_as_fit_does(foreign, study):
    [note] = import_foreign(foreign.sound(foreign.labels().drop(columns="fold")), study)
    table = OofTable.read(study.oof("one"))
    np.testing.assert_array_equal(table.folds, deal_folds(table.group_ids))
    assert len(np.unique(table.folds)) == 5
    assert (pd.Series(table.folds).groupby(table.group_ids).nunique() == 1).all(), "no patient in two folds"
    assert note == "labels.csv has no folds: its rows were dealt to 5 folds by patient_id"
    assert study.read_study()["data"]["notes"] == [note]
    assert note in fit_study(study).notes
    before = study.folds.read_bytes()
    import_foreign(foreign.sound(foreign.labels().drop(columns="fold").iloc[::-1]), study)
    assert study.folds.read_bytes() == before, "the order of rows changes nothing"


def test_without_folds_and_patients_the_note_says_what_may_be(foreign, study):
    [note] = import_foreign(foreign.sound(foreign.labels().drop(columns=["fold", "patient_id"])), study)
    assert note.endswith("by row, since it has no patient_id either: rows of one patient may be in several")


def test_labels_without_folds_take_those_that_predictions_carry(foreign, study):
    labels, folds = foreign.labels(), foreign.labels()["fold"]
    paths = foreign.save(
        labels=labels.drop(columns="fold"),
        one=foreign.predictions("one"),
        two=foreign.predictions("two").assign(fold=folds),
    )
    assert import_foreign(paths, study) == ["labels.csv has no folds: two.csv's count"]
    other = StudyFolder(study.root.parent / "other")
    import_foreign(foreign.sound(), other)
    np.testing.assert_array_equal(OofTable.read(study.oof("one")).folds, OofTable.read(other.oof("one")).folds)
    foreign.replace("labels", labels.drop(columns="fold"))
    foreign.replace("two", foreign.predictions("two").assign(fold=folds).iloc[2:])
    with pytest.raises(DataError, match=r"labels.csv: 2 rows without a fold: only .*two.csv has a fold column"):
        import_foreign(paths, StudyFolder(study.root.parent / "third"))


def test_a_second_import_says_what_the_study_keeps(foreign, study, caplog):
    caplog.set_level("INFO")
    import_foreign(foreign.sound(), study)
    assert caplog.messages == []
    paths = foreign.save(labels=foreign.labels(), two=foreign.predictions("other"), three=foreign.predictions("three"))
    import_foreign(paths, study, min_votes=7)
    assert caplog.messages == [
        f"{study.root}: added three; replaced two; kept from before one",
        f"{study.root}: the study's population stays units with >= 1 votes; --min-votes is for this ensemble only",
    ]
    caplog.clear()
    import_foreign(paths, study)
    assert caplog.messages == [f"{study.root}: unchanged two, three; kept from before one"]


def test_without_patients_each_unit_is_its_own_group(foreign, study):
    import_foreign(foreign.sound(foreign.labels().drop(columns="patient_id")), study)
    table = OofTable.read(study.oof("one"))
    assert table.group_ids.tolist() == table.unit_ids.tolist()


def at(frame, row, column, value):
    frame = frame.astype({column: object})
    frame.loc[row, column] = value
    return frame


BAD_PREDICTIONS = {
    "twice": (lambda f: pd.concat([f, f.iloc[[3]]]), r"2 rows that share their eeg_id-eeg_sub_id: rows 3, 30"),
    "missing": (lambda f: f.drop(index=4), r"missing 1 rows.*labels.csv: 4294958002-0"),
    "extra": (lambda f: at(f, 5, "eeg_id", 7), r"1 rows whose eeg_id-eeg_sub_id .*labels.csv does not have: row 5"),
    "sum": (lambda f: f.assign(other=f["other"] + 1), r"must sum to 1 in each row; 30 do not, the first is row 0"),
    "negative": (lambda f: at(f, 6, "lpd", -0.2), r"must not be negative in each row; 1 do not, the first is row 6"),
    "text": (lambda f: at(f, 7, "gpd", "n/k"), r"1 rows where seizure, .* are not all numbers: row 7"),
    "class": (lambda f: f.drop(columns="gpd"), r"missing column gpd; it has eeg_id"),
    "no id": (lambda f: f.drop(columns=["eeg_id", "eeg_sub_id"]), r"no id column to join on; .*eeg_id, eeg_sub_id"),
    "fold": (lambda f: f.assign(fold=(np.arange(N) // 2 + (np.arange(N) == 8)) % 3), r"in another fold .*: row 8"),
}


@pytest.mark.parametrize("name", BAD_PREDICTIONS)
def test_bad_predictions_are_refused_by_file_and_row(foreign, study, name):
    spoil, sentence = BAD_PREDICTIONS[name]
    paths = foreign.sound()
    spoil(foreign.predictions("two")).to_csv(paths[2], index=False)
    with pytest.raises(DataError, match=rf"two.csv: .*{sentence}"):
        import_foreign(paths, study)
    assert not study.root.exists()


BAD_LABELS = {
    "split": (lambda f: at(f, 2, "fold", 2), r"folds split 1 patient_ids over several folds: 1"),
    "no vote": (lambda f: f.assign(**{f"{c}_vote": 0 for c in CLASSES}), r"30 rows without any vote"),
    "shares": (lambda f: f.assign(lpd_vote=0.4), r"targets must sum to 1"),
    "fold": (lambda f: at(f, 9, "fold", 1.5), r"1 rows whose fold is not a whole number >= 0: row 9"),
    "patient": (lambda f: at(f, 1, "patient_id", None), r"1 rows without patient_id: row 1"),
    "too many": (lambda f: at(f, 3, "lpd_vote", 1e300), r"1 rows with votes that cannot be: row 3"),
    "votes": (lambda f: f.assign(votes=0), r"30 rows whose votes is not a whole number >= 1"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_labels_are_refused_by_file_and_row(foreign, study, name):
    spoil, sentence = BAD_LABELS[name]
    paths = foreign.sound()
    spoil(foreign.labels()).to_csv(paths[0], index=False)
    with pytest.raises(DataError, match=rf"labels.csv: .*{sentence}"):
        import_foreign(paths, study)
    assert not study.root.exists()


def test_exactly_one_file_holds_the_labels(foreign, tmp_path, study):
    paths = foreign.sound()
    with pytest.raises(ConfigError, match=r"exactly one file .* found: none of .*one.csv"):
        import_foreign(paths[1:], study)
    foreign.labels().to_csv(tmp_path / "again.csv", index=False)
    with pytest.raises(ConfigError, match=r"exactly one file .* found: .*labels.csv, .*again.csv"):
        import_foreign([*paths, tmp_path / "again.csv"], study)


def test_files_that_are_absent_or_alike_are_refused(foreign, tmp_path, study):
    paths = foreign.sound()
    (tmp_path / "more").mkdir()
    namesake = tmp_path / "more" / "one.csv"
    foreign.predictions("one").to_csv(namesake, index=False)
    with pytest.raises(ConfigError, match="matched none"):
        import_foreign([], study)
    with pytest.raises(ConfigError, match="no file with predictions"):
        import_foreign(paths[:1], study)
    with pytest.raises(ConfigError, match=r"would both be the member 'one'"):
        import_foreign([*paths, namesake], study)
    with pytest.raises(DataError, match=r"gone.csv: no such file"):
        import_foreign([*paths, tmp_path / "gone.csv"], study)
    with pytest.raises(DataError, match=r"notes.txt: out-of-fold files end in"):
        import_foreign([*paths, tmp_path / "notes.txt"], study)


@pytest.mark.parametrize("content", [b"", b"PAR1\xff\xfe\x00", b'a,b\n"1,2\n3,4,5\n', b"eeg_id,seizure\n"])
def test_unreadable_csv_is_refused(foreign, tmp_path, study, content):
    (tmp_path / "broken.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"broken.csv: "):
        import_foreign([*foreign.sound(), tmp_path / "broken.csv"], study)


def test_a_study_of_other_labels_is_left_alone(foreign, study):
    import_foreign(foreign.sound(), study)
    other = foreign.labels().assign(fold=lambda f: (f["fold"] + 1) % 3)
    with pytest.raises(ConfigError, match=r"its units are dealt to other folds"):
        import_foreign(foreign.sound(other), study)


def command(*argv):
    return main(["ensemble", *(str(word) for word in argv)])


def test_the_command_takes_named_columns_ids_and_labels_and_prints_what_it_left_out(foreign, study, capsys):
    letters = dict(zip(CLASSES, "abcdef", strict=True))
    one, labels = foreign.save(
        one=foreign.predictions("one").rename(columns=letters).iloc[3:].assign(fold_id=1),
        labels=foreign.labels().assign(fold_id=2),
    )
    options = ["--columns", ",".join(f"{name}={letter}" for name, letter in letters.items()), "--allow-missing"]
    options += ["--ids", "eeg_id, eeg_sub_id", "--labels", labels]
    assert command("--study", study.root, "--oof", one, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    left_out = "scored on the 27 of 30 rows of labels.csv that every file has; one.csv lacks 3"
    assert f"note: {left_out}" in lines
    assert lines[0].startswith("27 units of ")
    assert command("--study", study.root) == 0  # the study keeps what was left out, and every later ensemble says it
    assert files.read_json(study.ensemble)["notes"][0] == left_out
    foreign.expect("one")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "one.csv: missing 3 rows"),
        (["--allow-missing", "--columns", "seizure"], "--columns must be class=column,class=column,..., but holds"),
        (["--allow-missing", "--columns", ""], "--columns must be class=column,class=column,..., but holds ''"),
        (["--allow-missing", "--columns", "seizure=a"], "left out: lpd, gpd"),
        (["--allow-missing", "--ids", "eeg_id"], "would distinguish them"),
        (["--allow-missing", "--labels", "gone.csv"], "gone.csv: no such file"),
    ],
)
def test_mistakes_on_the_command_line_end_with_2_and_nothing_is_written(foreign, study, capsys, options, sentence):
    paths = foreign.save(labels=foreign.labels(), one=foreign.predictions("one").iloc[3:])
    assert command("--study", study.root, "--oof", *paths, *options) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [_, said] = printed.err.splitlines()
    assert said.startswith("error: ") and sentence in said and "Traceback" not in printed.err
    assert not study.root.exists()


@pytest.mark.parametrize(
    "options", [["--labels", "x"], ["--columns", "a=b"], ["--columns", ""], ["--ids", "x"], ["--allow-missing"]]
)
def test_options_about_files_need_files(study, capsys, options):
    assert command("--study", study.root, *options) == 2
    assert "say how to read the files of --oof; give --oof" in capsys.readouterr().err
