"""The folder of heart sounds: layout, tables, names, determinism, what can be learnt from it, and refusals."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import wavfile
from scipy.signal import stft
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hms_ray.core.errors import ConfigError
from hms_ray.simulate import heart_folder, simulate_hearts

DISEASES = ["AS", "AR", "MR", "MS"]
LABELS = [*DISEASES, "N"]
RECORDINGS = [f"recording_{k}" for k in range(1, 9)]
VIEWS = [f"{posture}_{position}" for posture in ("sup", "sit") for position in ("Mit", "Tri", "Pul", "Aor")]
SUBJECTS, SECONDS = 8, 2.5


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 8 subjects from seed 0."""
    out = tmp_path_factory.mktemp("hearts") / "bmd"
    simulate_hearts(out, SUBJECTS, seed=0, seconds=SECONDS)
    return out


@pytest.fixture(scope="module")
def train(hearts: Path) -> pd.DataFrame:
    return pd.read_csv(hearts / "train.csv")


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_layout_holds_what_the_tables_name_and_nothing_else(hearts: Path, train: pd.DataFrame) -> None:
    test = pd.read_csv(hearts / "test.csv")
    expected = {"train.csv", "test.csv", "additional_metadata.csv"}
    for part, table in (("train", train), ("test", test)):
        expected |= {f"{part}/{name}.wav" for name in table[RECORDINGS].to_numpy().ravel()}
    assert set(_bytes(hearts)) == expected
    assert len(expected) == 3 + 8 * (SUBJECTS + 2)


def test_train_csv_is_as_the_real_one(train: pd.DataFrame) -> None:
    assert train.columns.tolist() == ["patient_id", *LABELS, *RECORDINGS]
    assert train["patient_id"].tolist() == [f"patient_{k:03d}" for k in range(1, SUBJECTS + 1)]
    assert train[LABELS].isin([0, 1]).all(axis=None)
    assert (train["N"] == 1 - train[DISEASES].max(axis=1)).all()  # never with a disease, never without any


def test_names_tell_disease_subject_posture_and_position(train: pd.DataFrame) -> None:
    for number, row in enumerate(train.to_dict("records"), start=1):
        found = [name for name in LABELS if row[name]]
        prefix = found[0] if len(found) == 1 else "MD"
        assert [row[key] for key in RECORDINGS] == [f"{prefix}_{number:03d}_{view}" for view in VIEWS]


def test_the_test_part_gives_no_label_away(hearts: Path, train: pd.DataFrame) -> None:
    test = pd.read_csv(hearts / "test.csv")
    assert test.columns.tolist() == ["patient_id", *RECORDINGS]
    assert test["patient_id"].tolist() == ["patient_009", "patient_010"]
    for number, names in zip((9, 10), test[RECORDINGS].to_numpy().tolist(), strict=True):
        assert names == [f"T_{number:03d}_{view}" for view in VIEWS]


def test_the_metadata_are_of_everyone(hearts: Path, train: pd.DataFrame) -> None:
    table = pd.read_csv(hearts / "additional_metadata.csv")
    test = pd.read_csv(hearts / "test.csv")
    assert table.columns.tolist() == ["patient_id", "Age", "Gender", "Smoker", "Lives"]
    assert table["patient_id"].tolist() == [*train["patient_id"], *test["patient_id"]]
    assert table["Age"].dtype == np.int64
    assert table["Age"].between(10, 85).all()
    for column, values in (("Gender", ["M", "F"]), ("Smoker", [0, 1]), ("Lives", ["U", "R"])):
        assert table[column].isin(values).all()


def test_recordings_are_4_khz_mono_16_bit(hearts: Path) -> None:
    lengths = []
    for path in hearts.rglob("*.wav"):
        rate_hz, sound = wavfile.read(path)
        assert (rate_hz, sound.ndim, sound.dtype) == (4000, 1, np.int16)
        assert np.abs(sound).max() > 500
        lengths.append(len(sound))
    assert max(lengths) == np.median(lengths) == SECONDS * 4000
    assert min(lengths) >= 0.75 * SECONDS * 4000


@pytest.mark.parametrize("count", [8, 9, 12, 20, 40, 108, 300])
def test_every_label_occurs_in_about_the_real_share(count: int) -> None:
    drawn = heart_folder.combinations(np.random.default_rng(count), count)
    assert len(drawn) == count
    shares = {name: np.mean([name in diseases for diseases in drawn]) for name in DISEASES}
    shares["N"] = np.mean([not diseases for diseases in drawn])
    real = {"AS": 37, "AR": 42, "MR": 38, "MS": 38, "N": 21}
    for name, share in shares.items():
        assert share > 0
        assert share == pytest.approx(real[name] / 108, abs=0.02 if count > 100 else 0.15)


def test_the_healthy_are_younger() -> None:
    def mean_age(diseases: tuple[str, ...]) -> float:
        rng = np.random.default_rng(0)
        return float(np.mean([heart_folder._demographics(rng, diseases)["Age"] for _ in range(300)]))

    assert mean_age(("MR",)) - mean_age(()) > 5


def test_the_same_seed_gives_the_same_bytes(hearts: Path, tmp_path: Path) -> None:
    simulate_hearts(tmp_path / "again", SUBJECTS, seed=0, seconds=SECONDS)
    assert _bytes(tmp_path / "again") == _bytes(hearts)


def test_recordings_do_not_depend_on_their_order(hearts: Path, train: pd.DataFrame, tmp_path: Path) -> None:
    row = train.iloc[4]
    subject = heart_folder.Subject("train", 5, tuple(name for name in DISEASES if row[name]))
    heart_folder.write_recording(tmp_path, 0, subject, 6, SECONDS)
    name = f"train/{row['recording_7']}.wav"
    assert _bytes(tmp_path) == {name: (hearts / name).read_bytes()}


def test_another_seed_gives_other_recordings_and_progress_counts_them(hearts: Path, tmp_path: Path) -> None:
    told = []
    simulate_hearts(tmp_path, SUBJECTS, 1, lambda done, total: told.append((done, total)), SECONDS)
    assert told == [(k + 1, 80) for k in range(80)]
    wavs = [{content for name, content in _bytes(root).items() if name.endswith("wav")} for root in (hearts, tmp_path)]
    assert [len(contents) for contents in wavs] == [80, 80]
    assert not wavs[0] & wavs[1]


def test_labels_can_be_told_from_the_power_of_bands_but_not_surely(tmp_path: Path) -> None:
    simulate_hearts(tmp_path, 48, seed=0, seconds=4.0)
    table = pd.read_csv(tmp_path / "train.csv")
    names = table[RECORDINGS].to_numpy().ravel()
    features = np.stack([_band_powers(tmp_path / "train" / f"{name}.wav") for name in names])
    features = features.reshape(48, 2, 4, -1).mean(1).reshape(48, -1)  # both postures, four positions each
    losses = np.array([_held_out_loss(features, table[name].to_numpy()) for name in DISEASES])  # (K, model and prior)
    assert (losses[:, 0] < losses[:, 1]).all()
    assert 0.1 < losses[:, 0].mean() < losses[:, 1].mean() - 0.05


def _band_powers(path: Path) -> np.ndarray:
    """Return how loud four bands are at four quantiles of time, in logarithms, against the loudest of the lowest."""
    rate_hz, sound = wavfile.read(path)
    hz, _, spectrum = stft(sound.astype(float), rate_hz, nperseg=128)
    edges = ((30, 130), (130, 250), (250, 400), (400, 650))
    power = np.stack([(np.abs(spectrum[(hz >= low) & (hz < high)]) ** 2).sum(0) for low, high in edges])
    quantiles = np.log(np.quantile(power, [0.15, 0.5, 0.8, 0.97], axis=1) + 1e-3)
    return (quantiles - quantiles[-1, 0]).ravel()


def _held_out_loss(features: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Return the log loss of a logistic regression on subjects that it has not seen, and that of the prior."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.02))
    probs = cross_val_predict(model, features, target, cv=KFold(5), method="predict_proba")[:, 1]
    return log_loss(target, probs), log_loss(target, np.full(len(target), target.mean()))


def test_what_was_interrupted_never_looks_complete(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_hearts(tmp_path / "bmd", SUBJECTS, progress=interrupt, seconds=SECONDS)
    assert len(list((tmp_path / "bmd/train").iterdir())) == 3
    assert not list((tmp_path / "bmd").glob("*.csv"))
    with pytest.raises(ConfigError, match=r"interrupted .*no train\.csv.*delete it, then run again"):
        simulate_hearts(tmp_path / "bmd", SUBJECTS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"subjects": 7}, "subjects must be at least 8, so that every label occurs, but got 7"),
        ({"subjects": 12.0}, "subjects must be a whole number, but got 12.0"),
        ({"subjects": True}, "subjects must be a whole number, but got True"),
        ({"seconds": 1.9}, "seconds must be a number of at least 2, but got 1.9"),
        ({"seconds": float("nan")}, "seconds must be a number of at least 2, but got nan"),
        ({"seconds": float("inf")}, "seconds must be a number of at least 2, but got inf"),
        ({"seconds": "20"}, "seconds must be a number of at least 2, but got '20'"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, but got -1"),
        ({"seed": 1.5}, "seed must be a whole number from 0 to 4294967295, but got 1.5"),
    ],
)
def test_arguments_that_cannot_be_are_refused(tmp_path: Path, arguments: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        simulate_hearts(tmp_path / "bmd", **arguments)
    assert not (tmp_path / "bmd").exists()


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot simulate: 2 faults\n.*subjects must.*\n.*seconds must"):
        simulate_hearts(tmp_path, 3, seconds=0.0)


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty: name a new folder"):
        simulate_hearts(tmp_path)
    with pytest.raises(ConfigError, match=r"notes\.txt is a file, not a folder"):
        simulate_hearts(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
