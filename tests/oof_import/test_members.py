"""Rows that some file lacks: refused, or on demand left out everywhere and counted."""

import numpy as np
import pandas as pd
import pytest

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.oof_import import import_foreign
from hms_ray.study.folder import StudyFolder

CLASSES = ["seizure", "lpd", "gpd", "lrda", "grda", "other"]


@pytest.fixture
def holes(foreign):
    """File one lacks rows 0, 1 and 2, file two 2 and 3, and has two of its own; three is whole."""
    two = pd.concat([foreign.predictions("two"), foreign.predictions("two").iloc[:2].assign(eeg_id=[7, 8])])
    frames = {"one": foreign.predictions("one").drop(index=[0, 1, 2]), "two": two.reset_index().drop(index=[2, 3])}
    return foreign.save(labels=foreign.labels(), **frames, three=foreign.predictions("three"))


def test_missing_and_extra_rows_are_refused_and_the_way_out_is_said(foreign, holes):
    with pytest.raises(DataError) as error:
        import_foreign(holes, foreign.study)
    text = str(error.value)
    assert "out-of-fold files: 3 faults" in text
    assert "one.csv: missing 3 rows, for eeg_id-eeg_sub_id of " in text
    assert "two.csv: 2 rows whose eeg_id-eeg_sub_id " in text
    assert "two.csv: missing 2 rows" in text
    assert text.count("; --allow-missing would score the 26 rows that every file has") == 3
    assert not foreign.study.root.exists()


def test_the_common_rows_are_kept_and_counted(foreign, holes):
    said = import_foreign(holes, foreign.study, allow_missing=True)
    counts = "scored on the 26 of 30 rows of labels.csv that every file has"
    assert said == [f"{counts}; one.csv lacks 3, two.csv lacks 2", "ignored 2 rows of two.csv that labels.csv lacks"]
    kept = foreign.labels().drop(index=[0, 1, 2, 3])
    units = kept["eeg_id"].astype(str) + "-" + kept["eeg_sub_id"].astype(str)
    for name in ("one", "two", "three"):
        foreign.expect(name)
        table = foreign.table(name)
        assert sorted(table.unit_ids) == sorted(units)
        counts = kept.set_axis(units).loc[table.unit_ids].filter(like="_vote").to_numpy()
        np.testing.assert_allclose(table.targets, counts / counts.sum(1, keepdims=True))
    assert foreign.study.read_study()["data"]["units"] == 26


def test_many_are_counted_with_a_comma_and_the_first_are_named(foreign):
    n = 2000
    ids = pd.DataFrame({"unit_id": np.arange(n)})
    labels = ids.assign(fold=np.arange(n) % 3, a_vote=1, b_vote=0)
    frames = {f"m{i}": ids.assign(a=0.5, b=0.5).drop(index=range(i * 200)) for i in range(1, 8)}
    [note] = import_foreign(foreign.save(labels=labels, **frames), foreign.study, allow_missing=True)
    assert note.startswith("scored on the 600 of 2,000 rows of labels.csv that every file has; m1.csv lacks 200, m2")
    assert note.endswith("m5.csv lacks 1,000 ... (7 in all)")


def test_the_rows_kept_are_another_study(foreign, holes):
    import_foreign(foreign.sound(), foreign.study)
    whole = foreign.study.study.read_bytes()
    foreign.replace("two", foreign.predictions("two").iloc[2:])
    with pytest.raises(ConfigError, match=r"its data has \d+ units of \d+ patients"):
        import_foreign(holes, foreign.study, allow_missing=True)
    assert foreign.study.study.read_bytes() == whole
    assert foreign.study.oof_ids() == ["one", "two"]


def test_the_rows_kept_make_the_study_that_a_file_of_only_these_makes(foreign, holes, tmp_path):
    import_foreign(holes, foreign.study, allow_missing=True)
    few = foreign.save(few=foreign.labels().drop(index=[0, 1, 2, 3]), three=foreign.predictions("three").iloc[4:])
    other = StudyFolder(tmp_path / "other")
    assert import_foreign(few, other) == []
    keys = ("data", "folds")
    ours, theirs = ([s.read_study()[k]["fingerprint"] for k in keys] for s in (foreign.study, other))
    assert ours == theirs


def test_where_nothing_is_missing_nothing_is_said_and_nothing_differs(foreign, tmp_path):
    assert import_foreign(foreign.sound(), foreign.study) == []
    other = StudyFolder(tmp_path / "other")
    assert import_foreign(foreign.sound(), other, allow_missing=True) == []
    assert other.oof("one").read_bytes() == foreign.study.oof("one").read_bytes()
    assert other.folds.read_bytes() == foreign.study.folds.read_bytes()


@pytest.mark.parametrize("allow_missing", [False, True])
def test_nothing_in_common_is_refused_always(foreign, allow_missing):
    one, two = foreign.predictions("one").iloc[:15], foreign.predictions("two").iloc[15:]
    with pytest.raises(DataError, match=r"no row .*is in every file"):
        foreign.read(*foreign.save(one=one, two=two), allow_missing=allow_missing)
    assert not foreign.study.root.exists()


def test_files_of_other_data_are_shown_with_an_id_of_each(foreign):
    foreign.replace("one", foreign.predictions("one").assign(eeg_id=7, eeg_sub_id=range(30)))
    with pytest.raises(DataError, match=r"the first id is '4294958000-0'.*one.csv has 0, its first id is '7-0'"):
        foreign.read(foreign.root / "one.csv", allow_missing=True)


REFUSED_ALWAYS = {
    "twice": (lambda f: pd.concat([f, f.iloc[[3]]]), r"2 rows that share their eeg_id-eeg_sub_id"),
    "sum": (lambda f: f.assign(other=f["other"] + 1), r"must sum to 1"),
    "nan": (lambda f: f.assign(lpd=f["lpd"].where(f.index != 6)), r"are not all numbers: row 6"),
    "fold": (lambda f: f.assign(fold=9), r"in another fold"),
    "fold text": (lambda f: f.assign(fold="a"), r"where fold are not all numbers"),
    "targets": (lambda f: f.assign(**{f"{c}_vote": 1 for c in CLASSES}), r"with other targets"),
}


@pytest.mark.parametrize("name", REFUSED_ALWAYS)
def test_missing_rows_may_be_allowed_but_nothing_else(foreign, holes, name):
    spoil, sentence = REFUSED_ALWAYS[name]
    foreign.replace("three", spoil(foreign.predictions("three")))
    with pytest.raises(DataError, match=rf"three.csv: .*{sentence}"):
        import_foreign(holes, foreign.study, allow_missing=True)
    assert not foreign.study.root.exists()


def test_a_population_that_the_kept_rows_lack_is_refused(foreign):
    labels = foreign.labels()
    few = foreign.predictions("one")[labels.filter(like="_vote").sum(axis=1) < 10]
    with pytest.raises(ConfigError, match=r"min_votes=12 .* the largest vote count present is 9"):
        foreign.read(*foreign.save(one=few), allow_missing=True, min_votes=12)
    assert not foreign.study.root.exists()


def test_the_way_out_is_not_counted_where_a_file_could_not_be_read(foreign, holes):
    (foreign.root / "broken.csv").write_text("")
    with pytest.raises(DataError, match=r"--allow-missing would score the rows that every file has"):
        import_foreign([*holes, foreign.root / "broken.csv"], foreign.study)
