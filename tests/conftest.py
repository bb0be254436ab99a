"""What every test shares: the repository's root, tiny competition folders, and no thread or network unasked for."""

import io
import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests of one core each, the same everywhere
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # pretrained weights are never fetched in a test

CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
FILE_ORDER = ("LL", "RL", "LP", "RP")  # of the panels' blocks in the competition's files
ELECTRODES = ("Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz", "Cz", "Pz")
ELECTRODES += ("Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2", "EKG")
EEG_ROWS = 13_200  # 66 s: the last window begins at 16 s
FIRST_EEG, FIRST_SPECTROGRAM = 4_294_950_000, 2_147_483_000  # real ids pass 2^31


# Tests that start Ray, each of which takes all cores.
STARTS_RAY = tuple(
    f"tests/{room}/test_{name}.py"
    for room, names in {
        "bench": ("store_copy",),
        "cluster": ("boxes",),
        "execution": ("collector", "placement", "prepare_tasks", "session"),
        "search": ("apart", "chaos", "driver", "interrupt", "later_nodes", "nodes"),
    }.items()
    for name in names
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that start Ray: they take longest, and wait now and then while others compute."""
    items.sort(key=lambda item: not item.nodeid.startswith(STARTS_RAY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker of pytest-xdist one file after the other, and all that starts Ray to one of them."""
    from xdist.scheduler import LoadFileScheduling

    class OneRay(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "ray" if nodeid.startswith(STARTS_RAY) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return OneRay(config, log)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def fenced_blocks() -> Callable[[Path, str], list[str]]:
    """The function that returns the fenced blocks of one language of a Markdown page: fenced_blocks(path, "bash")."""

    def blocks(page: Path, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

    return blocks


@pytest.fixture(scope="session")
def real_data(repository: Path) -> Path:
    """Real files of the competition, where this machine has them: $HMS_RAY_REAL, or ../shared/real."""
    path = Path(os.environ.get("HMS_RAY_REAL") or repository.parent / "shared" / "real")
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; HMS_RAY_REAL names it")
    return path


@pytest.fixture(scope="session")
def made_up_recordings() -> "Callable[..., dict[str, torch.Tensor]]":
    """The function that makes a batch of windows: made_up_recordings(kinds, rows, seed=0) -> (rows, channels, steps).

    The last row has gaps, and its first channel holds nothing.
    """
    return _made_up_recordings


@pytest.fixture(scope="session")
def make_hms_folder() -> Callable[..., Path]:
    """The function that writes a tiny competition folder: make_hms_folder(path, patients=6, rows=320, eegs=True)."""
    return write_hms_folder


@pytest.fixture(scope="session")
def hms_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny competition folder of 6 patients, shared by the tests that only read it."""
    return write_hms_folder(tmp_path_factory.mktemp("hms") / "folder")


def _made_up_recordings(kinds: Sequence[str], rows: int, seed: int = 0) -> "dict[str, torch.Tensor]":
    import torch  # after the environment is set

    from hms_ray.core import recordings

    rng, batch = np.random.default_rng(seed), {}
    for name in kinds:
        kind = recordings.KINDS[name]
        noise = rng.standard_normal((rows, len(kind.channels), kind.steps))
        values = np.exp(noise) if name == "spectrogram" else np.cumsum(noise, -1) * 3 + 20 * noise
        values[-1, :, kind.steps // 4 : kind.steps // 3] = np.nan
        values[-1, 0] = np.nan
        batch[name] = torch.from_numpy(values.astype(np.float32))
    return batch


def write_hms_folder(path: Path, patients: int = 6, rows: int = 320, seed: int = 0, eegs: bool = True) -> Path:
    """Write the tables and recordings of so many patients, as the competition lays them out; return `path`.

    A patient has one spectrogram of `rows` rows and two EEGs of four windows: the first with 12 votes throughout, the
    second with 5 or 2 that change to another class and back. So: 8 rows, 2 EEGs, 3 labels and 4 periods a patient.
    A patient's main class shows as power around 2 Hz to 16 Hz, so that a model can learn it. Patient 0's spectrogram
    begins with empty rows, patient 1's has zeros; `time` is int16 or int64 by turns. Of the first EEGs, patient 0's
    lacks five seconds of C3, and patient 1's O2 is flat. EEG files depend on the patient alone; `eegs` may leave them
    out.
    """
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    table = pd.concat([_patient_rows(p) for p in range(patients)], ignore_index=True)
    table.to_csv(path / "train.csv", index=False)
    for part in ("train", "test"):
        (path / f"{part}_spectrograms").mkdir()
    for p in range(patients):
        power = _power(rng, rows, p % len(CLASSES))
        power[: 10 * (p == 0)] = np.nan
        power[20 : 20 + 10 * (p == 1)] = 0
        file = path / "train_spectrograms" / f"{FIRST_SPECTROGRAM + 300 * p}.parquet"
        write_spectrogram(file, power, np.int16 if p % 2 else np.int64)
    write_spectrogram(path / "test_spectrograms" / "853520.parquet", _power(rng, 300, 0), np.int64)
    if eegs:
        _write_eegs(path, patients)
    test = pd.DataFrame({"spectrogram_id": [853520], "eeg_id": [3911565283], "patient_id": [6885]})
    test.to_csv(path / "test.csv", index=False)
    sample = test[["eeg_id"]].assign(**{f"{name}_vote": 1 / len(CLASSES) for name in CLASSES})
    sample.to_csv(path / "sample_submission.csv", index=False)
    return path


def write_spectrogram(path: Path, power: np.ndarray, time_dtype: type = np.int64) -> None:
    """Write power (rows, panels in the file's order x 100 frequencies) under the competition's column names."""
    hz = [f"{np.floor(k * 20000 / 1024 + 0.5) / 100:g}" for k in range(3, 103)]
    names = [f"{panel}_{f}" for panel in FILE_ORDER for f in hz]
    time = np.arange(1, 2 * len(power), 2, dtype=time_dtype)
    pq.write_table(pa.table([time, *np.ascontiguousarray(power.T, np.float32)], ["time", *names]), path)


def _write_eegs(path: Path, patients: int) -> None:
    for part in ("train", "test"):
        (path / f"{part}_eegs").mkdir()
    for p in range(patients):
        for e in range(2):
            (path / "train_eegs" / f"{FIRST_EEG - 10 * p - e}.parquet").write_bytes(_eeg_file(p, e))
    (path / "test_eegs" / "3911565283.parquet").write_bytes(_eeg_file(0, 1))


@lru_cache
def _eeg_file(p: int, e: int) -> bytes:
    """Return an EEG file: whole microvolts, which compress, and a rhythm by class."""
    rng = np.random.default_rng([p, e])
    rhythm = 30 * np.sin(2 * np.pi * (2 + 2.5 * (p % len(CLASSES))) * np.arange(EEG_ROWS) / 200)
    values = np.round(rhythm + rng.normal(0, 10, (len(ELECTRODES), EEG_ROWS))).astype(np.float32)
    if (p, e) == (0, 0):
        values[ELECTRODES.index("C3"), 2000:3000] = np.nan
    if (p, e) == (1, 0):
        values[ELECTRODES.index("O2")] = 0
    file = io.BytesIO()
    pq.write_table(pa.table(list(values), ELECTRODES), file)
    return file.getvalue()


def _power(rng: np.random.Generator, rows: int, label: int) -> np.ndarray:
    power = rng.lognormal(0, 1, (rows, len(FILE_ORDER), 100))
    power[:, :, 10 + 15 * label : 20 + 15 * label] *= 20
    return power.reshape(rows, -1)


def _patient_rows(p: int) -> pd.DataFrame:
    main, other = p % len(CLASSES), (p + 1) % len(CLASSES)
    rows = []
    for e, total in enumerate((12, 5 if p % 2 else 2)):
        for w, offset in enumerate((0.0, 6.0, 12.0, 16.0)):
            counts = dict.fromkeys(CLASSES, 0)
            counts[CLASSES[other if e == 1 and w == 2 else main]] += total - e
            counts["other"] += e
            rows.append(
                {
                    "eeg_id": FIRST_EEG - 10 * p - e,
                    "eeg_sub_id": w,
                    "eeg_label_offset_seconds": offset,
                    "spectrogram_id": FIRST_SPECTROGRAM + 300 * p,
                    "spectrogram_sub_id": 4 * e + w,
                    "spectrogram_label_offset_seconds": 24 * e + offset,
                    "label_id": None,
                    "patient_id": 40000 + p,
                    "expert_consensus": CLASSES[main],
                    **{f"{name}_vote": count for name, count in counts.items()},
                }
            )
    return pd.DataFrame(rows)
