"""BMD-HS: subjects, their recordings and what is known of them; what is wrong with a folder is said at once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.core.recordings import HEART_SOUND
from hms_ray.datasets import bmd_hs
from hms_ray.features import heart_bands
from hms_ray.features._feature import FeatureRef
from hms_ray.simulate import simulate_hearts
from hms_ray.store.prepare import InputParams, _stores, check

KIND = HEART_SOUND.name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hearts") / "folder"
    simulate_hearts(folder, 12, 3, seconds=2.0)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "hearts"))


def _load(folder: Path, **params: str) -> bmd_hs.BmdHsDataset:
    return bmd_hs.load(folder, bmd_hs.Params(**params))


def _change(folder: Path, change: Callable[[pd.DataFrame], object], table: str = "train.csv") -> None:
    rows = pd.read_csv(folder / table, dtype=str)
    change(rows)
    rows.to_csv(folder / table, index=False)


def _wav(folder: Path, dataset: bmd_hs.BmdHsDataset, example: int = 0) -> Path:
    return dataset.path(KIND, dataset.windows[KIND].names[example])


def test_a_subject_is_a_unit_and_a_recording_an_example(whole: Path) -> None:
    found, table = _load(whole), pd.read_csv(whole / "train.csv")
    assert len(found.units) == 12 and len(found.examples) == 96 and found.left_out == ()
    assert found.units["unit_id"].tolist() == found.units["group_id"].tolist() == table["patient_id"].tolist()
    assert (found.units["votes"] == 1).all() and np.bincount(found.examples.unit).tolist() == [8] * 12
    assert found.task.classes == ("AS", "AR", "MR", "MS", "N")
    np.testing.assert_array_equal(found.targets, table[list(found.task.classes)])
    assert found.windows[KIND].names[8:16].tolist() == table.loc[1, bmd_hs.RECORDINGS].tolist()


def test_disease_or_none_is_the_other_question(whole: Path) -> None:
    found = _load(whole, labels="binary")
    assert found.task.classes == ("disease",)
    np.testing.assert_array_equal(found.targets[:, 0], 1 - pd.read_csv(whole / "train.csv")["N"])
    assert found.fingerprint != _load(whole).fingerprint
    assert found.units["stratum"].tolist() == _load(whole).units["stratum"].tolist(), "the same folds for both"


def test_what_is_known_of_a_subject_stands_beside_each_recording(whole: Path) -> None:
    covariates = _load(whole).examples.covariates
    person = pd.read_csv(whole / "additional_metadata.csv").set_index("patient_id").loc["patient_002"]
    row = covariates.iloc[8 + 5]  # sitting, at the tricuspid valve
    assert row["age"] == person["Age"] and row["male"] == (person["Gender"] == "M")
    assert row["smoker"] == person["Smoker"] and row["urban"] == (person["Lives"] == "U")
    assert row[["sitting", *bmd_hs.VALVES]].tolist() == [1, 0, 1, 0, 0]
    assert covariates.iloc[8][["sitting", *bmd_hs.VALVES]].tolist() == [0, 1, 0, 0, 0]


def test_what_is_not_known_of_a_subject_is_nan(folder: Path) -> None:
    _change(folder, lambda t: t.__setitem__("Age", ["", *t["Age"][1:]]), "additional_metadata.csv")
    assert _load(folder).examples.covariates["age"].isna().tolist() == [True] * 8 + [False] * 88


def test_a_recording_is_read_as_it_is(whole: Path) -> None:
    found = _load(whole)
    name = found.windows[KIND].names[0]
    sound, rate = soundfile.read(whole / "train" / f"{name}.wav", dtype="float32")
    assert rate == 4000 and found.steps(KIND, name) == len(sound)
    np.testing.assert_array_equal(found.read(KIND, name), sound[None])


@pytest.mark.parametrize("empty", ["missing", "no bytes", "no steps"])
def test_a_recording_that_holds_nothing_is_left_out_and_said(folder: Path, empty: str) -> None:
    whole, path = _load(folder), _wav(folder, _load(folder), 10)
    path.unlink()
    if empty == "no bytes":
        path.touch()
    if empty == "no steps":
        soundfile.write(path, np.zeros(0), 4000)
    found = _load(folder)
    assert len(found.units) == 12 and np.bincount(found.examples.unit).tolist() == [8, 7] + [8] * 10
    [left_out] = found.identity()["left_out"]
    assert left_out == {
        "unit_id": "patient_002",
        "name": path.stem,
        "cause": "missing" if empty == "missing" else "empty",
    }
    assert found.fingerprint != whole.fingerprint


def test_a_subject_without_any_recording_is_refused(folder: Path) -> None:
    found = _load(folder)
    for example in range(8):
        _wav(folder, found, example).unlink()
    with pytest.raises(DataError, match="patient_001 has no recording that holds anything"):
        _load(folder)


def test_a_recording_that_is_no_sound_is_refused(folder: Path) -> None:
    path = _wav(folder, _load(folder))
    path.write_text("not a sound")
    with pytest.raises(DataError, match=rf"{path.name}: not a WAV file"):
        _load(folder)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"AS": "2"}, r"row 2 \(patient_001\): AS must be 0 or 1, but is '2'"),
        ({"MS": ""}, r"row 2 \(patient_001\): MS must be 0 or 1, but is ''"),
        ({"AS": "1", "N": "1"}, r"row 2 \(patient_001\): N \(normal\) together with AS"),
        (dict.fromkeys(bmd_hs.LABELS, "0"), r"row 2 \(patient_001\): no label is 1"),
        ({"patient_id": "patient_002"}, "patient_002 stands in 2 rows; a subject has one"),
        ({"patient_id": ""}, "row 2: patient_id is missing"),
        (
            {"recording_1": "../../etc/passwd"},
            "row 2: recording_1 must be a file's name without .wav, but is '../../etc",
        ),
    ],
)
def test_a_row_that_cannot_be_is_named(folder: Path, change: dict[str, str], fault: str) -> None:
    change = ({"AS": "0", "AR": "0", "MR": "0", "MS": "0"} | change) if "N" in change and "AS" in change else change
    _change(folder, lambda t: [t.__setitem__(k, [v, *t[k][1:]]) for k, v in change.items()])
    with pytest.raises(DataError, match=fault):
        _load(folder)


def test_a_recording_of_two_subjects_is_refused(folder: Path) -> None:
    _change(folder, lambda t: t.__setitem__("recording_1", [t["recording_1"][1], *t["recording_1"][1:]]))
    with pytest.raises(DataError, match="is listed 2 times; a recording is of one subject"):
        _load(folder)


def test_all_faults_are_said_at_once(folder: Path) -> None:
    _change(folder, lambda t: t.__setitem__("AS", ["x", "y", *t["AS"][2:]]))
    with pytest.raises(DataError, match="2 faults"):
        _load(folder)


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("Gender", "X", r"row 2 \(patient_001\): Gender must be one of M, F, or empty, but is 'X'"),
        ("Age", "old", r"row 2 \(patient_001\): Age must be a number from 0 on, or empty, but is 'old'"),
        ("Age", "-3", "but is '-3'"),
        ("patient_id", "nobody", "patient_001 is missing"),
        ("patient_id", "patient_002", "patient_002 stands in several rows"),
    ],
)
def test_a_person_that_cannot_be_is_named(folder: Path, column: str, value: str, fault: str) -> None:
    _change(folder, lambda t: t.__setitem__(column, [value, *t[column][1:]]), "additional_metadata.csv")
    with pytest.raises(DataError, match=fault):
        _load(folder)


def test_a_folder_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train\.csv and no additional_metadata\.csv there"):
        _load(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*/nowhere; --data names the folder of BMD-HS"):
        _load(tmp_path / "nowhere")
    _change(folder, lambda t: t.pop("N"))
    with pytest.raises(DataError, match="missing column N"):
        _load(folder)


def test_what_tells_a_label_without_a_recording_is_kept_with_the_study(folder: Path) -> None:
    pd.read_csv(folder / "train.csv").sort_values("N").to_csv(folder / "train.csv", index=False)
    for params, name in (({}, "N"), ({"labels": "binary"}, "disease")):
        told = [(its["class"], its["by"], its["auroc"]) for its in _load(folder, **params).identity()["shortcuts"]]
        assert (name, "place in the table", 1.0) in told
    assert "shortcuts" not in bmd_hs.load_test(folder).identity()


def test_the_test_part_has_no_labels(whole: Path) -> None:
    found = bmd_hs.load_test(whole)
    assert found.targets is None and len(found.units) >= 2 and (found.root / "test").is_dir()
    assert found.read(KIND, found.windows[KIND].names[0]).shape[0] == 1


@pytest.mark.parametrize("classes", [5, 1])
def test_predictions_are_written_by_label(tmp_path: Path, classes: int) -> None:
    probs = np.linspace(0, 1, 2 * classes).reshape(2, classes)
    bmd_hs.write_submission(tmp_path / "out.csv", ["a", "b"], probs)
    table = pd.read_csv(tmp_path / "out.csv", index_col="patient_id")
    assert list(table.columns) == (bmd_hs.LABELS if classes == 5 else ["disease"]) and list(table.index) == ["a", "b"]
    np.testing.assert_allclose(table, probs)


def test_numbers_of_recordings_cannot_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a subject has eight"):
        bmd_hs.simulated(tmp_path / "x", 10, 0, lambda done, total: None, recordings=3)


def test_a_comma_too_many_shifts_no_column(folder: Path) -> None:
    text = (folder / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join([text[0], *(f"{line}," for line in text[1:])]))
    assert len(_load(folder).units) == 12


def test_to_predict_it_says_what_is_wanted(folder: Path) -> None:
    (folder / "test.csv").unlink()
    with pytest.raises(DataError, match=r"no test\.csv there; to predict, name new subjects in test\.csv"):
        bmd_hs.load_test(folder)


def test_labels_change_nothing_of_what_is_prepared(folder: Path) -> None:
    feature = FeatureRef("heart_bands", heart_bands.Params())
    marks = [next(iter(_stores(_load(folder, labels=of), feature, InputParams()))) for of in ("multilabel", "binary")]
    assert marks[0] == marks[1]
    _wav(folder, _load(folder)).unlink()
    assert next(iter(_stores(_load(folder), feature, InputParams()))) != marks[0]


def test_random_windows_are_refused_where_there_is_one(folder: Path) -> None:
    feature = FeatureRef("heart_bands", heart_bands.Params())
    with pytest.raises(ConfigError, match="random: dataset 'bmd_hs' has one window an example"):
        check(_load(folder), feature, InputParams(compute="batch", window="random"))
