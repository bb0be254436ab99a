"""How good recordings are, on recordings whose answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.recordings import EEG, SPECTROGRAM, RecordingKind
from hms_ray.datasets import Windows
from hms_ray.datasets.hms import HmsDataset
from hms_ray.features._feature import FeatureRef
from hms_ray.store.quality import MEASURES, QualityParams, measure, of_examples, trust

TINY = RecordingKind("eeg", ("a", "b", "c", "d"), rate_hz=2.0, window_s=5.0, outlier=100.0)  # 10 steps
WAVE = np.tile(np.arange(10.0, dtype=np.float32), (4, 1))


def _measured(recording: np.ndarray, kind: RecordingKind = TINY) -> dict[str, float]:
    found = measure(kind, "1", recording)
    return {name: found[name] for name in MEASURES}


def _with(row: slice | int, columns: slice | int, value: float) -> np.ndarray:
    recording = WAVE.copy()
    recording[row, columns] = value
    return recording


NONE = {"nan": 0, "flat": 0, "outliers": 0, "missing": 0}
KNOWN = {
    "good": (WAVE, {}),
    "a run of one channel": (_with(1, slice(2, 6), np.nan), {"nan": 0.1}),
    "all channels together": (_with(slice(None), slice(2, 6), np.nan), {"nan": 0.4, "missing": 0.4}),
    "a channel holds nothing": (_with(1, slice(None), np.nan), {"nan": 0.25, "flat": 0.25}),
    "a channel never changes": (_with(1, slice(None), 7), {"flat": 0.25}),
    "one value and gaps": (_with(1, slice(1, None), np.nan), {"nan": 0.225, "flat": 0.25}),
    "beyond the limit": (_with(1, slice(0, 3), -100.5), {"outliers": 0.075}),
    "at the limit": (_with(1, slice(0, 3), 100), {}),
    "infinite": (_with(1, slice(0, 2), np.inf), {"nan": 0.05, "outliers": 0.05}),
    "too short": (WAVE[:, :4], {"missing": 0.6}),
    "longer than a window": (np.tile(WAVE, 3), {}),
    "without any value": (np.full((4, 10), np.nan, np.float32), {"nan": 1, "flat": 1, "missing": 1}),
    "without any step": (WAVE[:, :0], {"nan": 1, "flat": 1, "missing": 1}),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("recording", "expected"), KNOWN.values(), ids=KNOWN)
def test_measures_are_shares(recording: np.ndarray, expected: dict[str, float]) -> None:
    assert _measured(recording) == pytest.approx(NONE | expected)


def test_a_measure_names_its_recording_and_how_long_it_is() -> None:
    found = measure(TINY, "4294950000", WAVE[:, :7])
    assert (found["kind"], found["name"], found["seconds"]) == ("eeg", "4294950000", 3.5)


def test_the_limits_are_those_of_the_recordings_own_unit() -> None:
    eeg = np.tile(np.arange(10_000, dtype=np.float32) % 7, (20, 1))
    eeg[0, :100] = 33_403
    assert _measured(eeg, EEG) == pytest.approx(NONE | {"outliers": 100 / 200_000})
    power = np.tile(np.arange(300, dtype=np.float32), (400, 1))
    power[0, 7] = 206_415
    assert _measured(power, SPECTROGRAM) == pytest.approx(NONE | {"outliers": 1 / 120_000})


def _windows(*names: str) -> Windows:
    zero = np.zeros(len(names))
    return Windows(np.array(names), zero, np.arange(len(names) + 1), zero, zero)


def _table(*rows: tuple[Any, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["kind", "name", *MEASURES])


def test_an_example_is_as_good_as_the_worst_of_its_recordings() -> None:
    table = _table(
        ("spectrogram", "7", 0.1, 0.5, 0.0, 0.0),
        ("eeg", "2", 0.3, 0.0, 0.2, 0.0),
        ("eeg", "1", 0.0, 0.6, 0.0, 0.1),
        ("eeg", "3", 1.0, 1.0, 1.0, 1.0),  # of no example
    )
    units = of_examples(table, {"eeg": _windows("1", "2", "1"), "spectrogram": _windows("7", "7", "7")})
    expected = [[0.1, 0.6, 0.0, 0.1], [0.3, 0.5, 0.2, 0.0], [0.1, 0.6, 0.0, 0.1]]
    np.testing.assert_array_equal(units[list(MEASURES)], expected)


def test_recordings_that_a_run_does_not_read_do_not_count() -> None:
    units = of_examples(_table(("eeg", "1", 0.1, 0.2, 0.3, 0.4)), {"eeg": _windows("1"), "spectrogram": _windows("7")})
    np.testing.assert_array_equal(units, [[0.1, 0.2, 0.3, 0.4]])


UNITS = pd.DataFrame(
    [[0.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0], [0.0, 0.2, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]], columns=list(MEASURES)
)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [1, 1, 1, 1]),
        ({"nan": 0.3}, [1, 1, 1, 0]),
        ({"nan": 0.2}, [1, 0, 1, 0]),
        ({"nan": 0.2, "flat": 0.1, "weight": 0.25}, [1, 0.25, 0.25, 0.25]),
        ({"missing": 0.5}, [1, 1, 1, 0]),
        ({"outliers": 0.0}, [1, 1, 1, 0]),
    ],
)
def test_units_beyond_a_limit_weigh_less_or_nothing(params: dict[str, float], expected: list[float]) -> None:
    np.testing.assert_array_equal(trust(UNITS, QualityParams(**params)), expected)


@pytest.mark.parametrize("fault", [{"nan": 1.5}, {"flat": -0.1}, {"weight": 1.0}, {"noise": 1}])
def test_limits_that_make_no_sense_are_refused(fault: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"quality\.{next(iter(fault))}"):
        parse(QualityParams, fault, "quality")


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_preparing_writes_a_row_for_each_recording_read(
    dataset: HmsDataset, prepare: Any, compute: str, cache: Path
) -> None:
    from hms_ray.features import panels, raw_eeg

    both = FeatureRef("panels", panels.Params())
    stores = [*prepare(dataset, compute=compute), *prepare(dataset, FeatureRef("raw_eeg", raw_eeg.Params()))]
    assert [files.read_table(store.path / "quality.parquet").shape[0] for store in stores] == [6, 12]
    tables = [files.read_table(store.path / "quality.parquet") for store in prepare(dataset, both, compute=compute)]
    table = pd.concat(tables)
    assert table["name"].is_unique and table["kind"].value_counts().to_dict() == {"eeg": 12, "spectrogram": 6}
    table = table.set_index("name")
    assert table.loc["4294950000", "nan"] == pytest.approx(1000 / 13200 / 20)  # five seconds of C3
    assert table.loc["4294949990", "flat"] == pytest.approx(1 / 20)  # O2
    assert table.loc["2147483000", "missing"] == pytest.approx(10 / 320)
    assert (table.loc[table["kind"] == "eeg", "seconds"] == 66).all()
