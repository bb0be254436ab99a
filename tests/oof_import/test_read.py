"""CSV, parquet and npy say the same; an array without names takes its ids from the file beside it, never from order."""

import numpy as np
import pandas as pd
import pytest

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.oof_import import import_foreign

CLASSES = ["seizure", "lpd", "gpd", "lrda", "grda", "other"]


def records(frame):
    return frame.to_records(index=False)


def shuffled(frame):
    return frame.sample(frac=1, random_state=3, ignore_index=True)


def save_array(foreign, ids=None, suffix=".csv", dtype=np.float64):
    """Write one.npy, a plain array, and its ids as a table beside it."""
    frame = shuffled(foreign.predictions("one"))
    np.save(foreign.root / "one.npy", frame[CLASSES].to_numpy(dtype=dtype))
    ids = frame[["eeg_id", "eeg_sub_id"]] if ids is None else ids(frame)
    beside = foreign.root / f"one.ids{suffix}"
    if suffix == ".csv":
        ids.to_csv(beside, index=False)
    elif suffix == ".parquet":
        ids.to_parquet(beside)
    else:
        np.save(beside, records(ids) if isinstance(ids, pd.DataFrame) else ids)
    return foreign.root / "one.npy"


@pytest.mark.parametrize("order", ["=", ">"])
def test_a_structured_array_is_a_table(foreign, order):
    array = np.asarray(records(shuffled(foreign.predictions("one"))))
    fields = [(name, array.dtype[name].newbyteorder(order)) for name in array.dtype.names]
    np.save(foreign.root / "one.npy", array.astype(fields))
    foreign.read(foreign.root / "one.npy")
    foreign.expect("one")


def test_labels_and_text_ids_may_be_structured_arrays(foreign):
    ids = foreign.labels()["eeg_id"].astype(str) + "/" + foreign.labels()["eeg_sub_id"].astype(str)
    for name, frame in (("labels", foreign.labels()), ("one", foreign.predictions("one"))):
        frame = frame.drop(columns=["eeg_id", "eeg_sub_id"])
        fields = [("unit_id", "S12"), *((c, frame[c].dtype) for c in frame)]
        rows = [(unit.encode(), *row) for unit, row in zip(ids, frame.itertuples(index=False), strict=True)]
        np.save(foreign.root / f"{name}.npy", np.array(rows, dtype=fields))
    import_foreign([foreign.root / "labels.npy", foreign.root / "one.npy"], foreign.study)
    assert sorted(foreign.table("one").unit_ids) == sorted(ids)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_a_plain_array_is_joined_by_the_ids_beside_it(foreign, suffix):
    foreign.read(save_array(foreign, suffix=suffix))
    foreign.expect("one")


def test_float32_and_a_pattern_that_matches_the_ids_as_well(foreign):
    path = save_array(foreign, dtype=np.float32, suffix=".npy")
    foreign.read(*sorted(foreign.root.glob("*.npy")))
    assert [p.name for p in sorted(foreign.root.glob("*.npy"))] == ["one.ids.npy", path.name]
    assert foreign.study.oof_ids() == ["one"]
    foreign.expect("one")


@pytest.mark.parametrize("name", ["unit_id", "recording_id"])
def test_an_array_of_ids_is_the_unit_id_or_the_labels_only_one(foreign, name):
    path = save_array(foreign, lambda f: (f["eeg_id"] * 10 + f["eeg_sub_id"]).to_numpy(), ".npy")
    labels = foreign.labels()
    labels = labels.assign(**{name: labels["eeg_id"] * 10 + labels["eeg_sub_id"]})
    labels = labels.drop(columns=["eeg_id", "eeg_sub_id"])
    import_foreign([*foreign.save(labels=labels), path], foreign.study)
    row = foreign.predictions("one").set_index(labels[name].astype(str)).loc[foreign.table("one").unit_ids, CLASSES]
    np.testing.assert_allclose(foreign.table("one").probs, row)


def test_what_lies_beside_an_array_is_checked_too(foreign):
    path = save_array(foreign, lambda f: f[["eeg_id", "eeg_sub_id"]].assign(fold=9))
    with pytest.raises(DataError, match=r"one.npy: 30 rows in another fold than in .*labels.csv"):
        foreign.read(path)


def test_the_index_that_pandas_keeps_in_parquet_is_a_column(foreign):
    foreign.predictions("one").set_index(["eeg_id", "eeg_sub_id"]).to_parquet(foreign.root / "one.parquet")
    foreign.predictions("two").sample(frac=1, random_state=0).to_parquet(foreign.root / "two.parquet")
    foreign.read(foreign.root / "one.parquet", foreign.root / "two.parquet")
    foreign.expect("one")
    foreign.expect("two")


def test_a_byte_order_mark_and_capital_endings_pass(foreign):
    foreign.predictions("one").to_csv(foreign.root / "one.CSV", index=False, encoding="utf-8-sig")
    foreign.read(foreign.root / "one.CSV")
    foreign.expect("one")


BAD_ARRAYS = {
    "no ids": (np.full((30, 6), 1 / 6), r"no ids, and rows are never joined on their order; .* x.ids.csv, .*x.ids.npy"),
    "flat": (np.ones(30), r"must hold numbers \(N rows, K classes\), but is float64 of shape \(30,\)"),
    "text": (np.full((30, 6), "a"), r"must hold numbers .* but is <U1"),
    "objects": (np.array([[1, "a"]], dtype=object), r"it holds Python objects, a pickle, .* is not loaded"),
    "object fields": (np.array([(1, {})], [("eeg_id", int), ("a", object)]), r"it holds Python objects"),
    "a vector a row": (np.zeros(3, [("eeg_id", int), ("p", float, 6)]), r"field 'p' must hold one number or text"),
    "2-D records": (np.zeros((3, 2), [("eeg_id", int)]), r"a structured array must be 1-D, .* shape \(3, 2\)"),
    "one name": (np.zeros(3, [("eeg_id", int), ("EEG_ID ", int)]), r"two columns of one name, .* 'eeg_id', 'EEG_ID '"),
    "empty": (np.zeros(0, [("eeg_id", int)]), r"it has no rows"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_cannot_be_read_are_refused(foreign, name):
    array, sentence = BAD_ARRAYS[name]
    np.save(foreign.root / "x.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"x.npy: .*{sentence}"):
        foreign.read(foreign.root / "x.npy")
    assert not foreign.study.root.exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda content: content[:-8], "broken npy"),
        (lambda content: content[:20], "broken npy"),
        (lambda content: content.replace(b"}", b"("), "broken npy"),
        (lambda content: b"", "not an npy file: it begins with b''"),
        (lambda content: b"PK\x03\x04" + content, r"not an npy file: it begins with b'PK"),
    ],
)
def test_a_broken_npy_is_refused(foreign, spoil, sentence):
    path = save_array(foreign)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=rf"one.npy: {sentence}"):
        foreign.read(path)


def test_counts_of_rows_and_classes_must_match(foreign):
    path = save_array(foreign, lambda f: f[["eeg_id", "eeg_sub_id"]].iloc[:29])
    with pytest.raises(DataError, match=r"one.npy: it has 30 rows, but its ids in .*one.ids.csv are 29"):
        foreign.read(path)
    save_array(foreign)
    np.save(path, np.full((30, 5), 0.2))
    with pytest.raises(DataError, match=r"one.npy: it has 5 columns, but there are 6 classes: seizure, lpd"):
        foreign.read(path)


def test_ids_in_two_files_or_of_no_certain_name_are_refused(foreign):
    path = save_array(foreign, lambda f: f["eeg_id"].to_numpy(), ".npy")
    with pytest.raises(DataError, match=r"one.npy: .* can stand for one id column, but .* has eeg_id, eeg_sub_id"):
        foreign.read(path)
    save_array(foreign)
    with pytest.raises(DataError, match=r"one.npy: its ids lie in several files: .*one.ids.csv, .*one.ids.npy"):
        foreign.read(path)


@pytest.mark.parametrize(("part", "broken"), [(b"note", b"\xff" * 4), (b"written", b"\xff" * 7), (b'{"', b'"{')])
def test_parquet_with_broken_text_or_notes_is_refused(foreign, part, broken):
    path = foreign.root / "one.parquet"
    foreign.predictions("one").assign(note="written").to_parquet(path, compression=None)
    path.write_bytes(path.read_bytes().replace(part, broken))
    with pytest.raises(DataError, match=r"one.parquet: broken parquet"):
        foreign.read(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("eeg_id,seizure,seizure\n1,2,3\n", "two columns of one name, case and blanks aside: 'seizure', 'seizure'"),
        ("eeg_id,Seizure, seizure\n1,2,3\n", "two columns of one name, .* 'Seizure', ' seizure'"),
        ("eeg_id,seizure\n1,2,3\n", "rows have more cells than its header"),
    ],
)
def test_a_csv_whose_columns_are_not_certain_is_refused(foreign, content, sentence):
    (foreign.root / "x.csv").write_text(content)
    with pytest.raises(DataError, match=rf"x.csv: .*{sentence}"):
        foreign.read(foreign.root / "x.csv")


def test_faults_of_all_files_are_said_at_once(foreign):
    (foreign.root / "x.csv").write_text("")
    foreign.replace("one", foreign.predictions("one").assign(other=2, fold=-1))
    foreign.replace("bad name", foreign.predictions("two").drop(columns="gpd"))
    paths = [foreign.root / f"{name}.csv" for name in ("x", "one", "bad name", "gone")]
    with pytest.raises(DataError) as error:
        foreign.read(*paths)
    lines = str(error.value).splitlines()
    assert lines[0] == "out-of-fold files: 6 faults"
    said = ["x.csv: not a readable", "gone.csv: no such", "'bad name' cannot name", "must sum to 1"]
    said += ["whose fold is not a whole", "missing column gpd"]
    assert [s for s, line in zip(said, lines[1:], strict=True) if s not in line] == []
    assert not foreign.study.root.exists()


def test_faults_of_options_alone_are_a_config_error(foreign):
    for name in ("a b", "c d"):
        foreign.replace(name, foreign.predictions(name))
    with pytest.raises(ConfigError, match="2 faults"):
        foreign.read(foreign.root / "a b.csv", foreign.root / "c d.csv")
