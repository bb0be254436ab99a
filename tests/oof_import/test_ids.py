"""Files are joined on the ids that they share or that are named, and these must tell the labels' rows apart."""

import numpy as np
import pytest

from hms_ray.core.errors import DataError
from hms_ray.oof_import import import_foreign


def test_id_alone_is_an_id(foreign):
    def numbered(frame):
        return frame.drop(columns=["eeg_id", "eeg_sub_id"]).assign(ID=np.arange(len(frame)))

    paths = foreign.save(labels=numbered(foreign.labels()), one=numbered(foreign.predictions("one")))
    import_foreign(paths, foreign.study)
    assert sorted(foreign.table("one").unit_ids, key=int) == [str(i) for i in range(30)]


def test_ids_are_recognised_whatever_their_case(foreign):
    one = foreign.predictions("one").rename(columns={"eeg_id": "EEG_ID", "eeg_sub_id": " Eeg_Sub_Id"})
    foreign.read(*foreign.save(one=one))
    foreign.expect("one")


def test_ids_may_be_named(foreign):
    rows = {"spectrogram_id": np.arange(30), "row_id": np.arange(30)}
    labels = foreign.labels().assign(**rows)
    paths = foreign.save(labels=labels, one=foreign.predictions("one").assign(spectrogram_id=7, row_id=rows["row_id"]))
    import_foreign(paths, foreign.study, ids=["EEG_id", "eeg_sub_id"])
    foreign.expect("one")


def test_named_ids_must_be_in_every_file(foreign):
    with pytest.raises(DataError) as error:
        import_foreign(foreign.sound(), foreign.study, ids=["eeg_id", "window"])
    for name in ("labels", "one", "two"):
        assert f"{name}.csv: missing column window; it has eeg_id" in str(error.value)


def test_ids_that_name_several_rows_are_refused_with_what_would_not(foreign):
    paths = foreign.sound(foreign.labels().assign(label_id=np.arange(30)))
    foreign.replace("two", foreign.predictions("two").drop(columns="eeg_sub_id"))
    with pytest.raises(DataError) as error:
        import_foreign(paths, foreign.study)
    text = str(error.value)
    assert "labels.csv: 30 rows that share their eeg_id, all that the files are joined on: rows 0, 1, 2" in text
    assert "; eeg_id-eeg_sub_id or label_id would distinguish them: " in text
    assert text.endswith("two.csv lacks eeg_sub_id")


def test_named_ids_that_name_several_rows_are_refused_with_those_to_name(foreign):
    with pytest.raises(DataError, match=r"eeg_id-eeg_sub_id would distinguish them: --ids eeg_id,eeg_sub_id$"):
        import_foreign(foreign.sound(), foreign.study, ids=["eeg_id"])


def test_rows_of_the_labels_that_come_twice_are_named(foreign):
    labels = foreign.labels()
    labels.loc[5, "eeg_sub_id"] = 0
    paths = foreign.sound()
    foreign.replace("labels", labels)
    with pytest.raises(DataError, match=r"labels.csv: 2 rows that share their eeg_id-eeg_sub_id: rows 4, 5"):
        import_foreign(paths, foreign.study)


def test_files_that_share_no_id_are_named_with_what_they_have(foreign):
    one = foreign.predictions("one").drop(columns="eeg_sub_id")
    two = foreign.predictions("two").drop(columns="eeg_id")
    with pytest.raises(DataError, match=r"no id column .* every file: .*one.csv has eeg_id; .*two.csv has eeg_sub_id"):
        foreign.read(*foreign.save(one=one, two=two))


@pytest.mark.parametrize("value", [np.inf, 2.0**53])
def test_ids_that_a_float_cannot_keep_are_refused(foreign, value):
    one = foreign.predictions("one").astype({"eeg_id": float})
    one.loc[3, "eeg_id"] = value
    one.to_parquet(foreign.root / "one.parquet")
    with pytest.raises(DataError, match=r"one.parquet: 1 rows whose eeg_id is too large for the float .*: row 3"):
        foreign.read(foreign.root / "one.parquet")
