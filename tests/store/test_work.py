"""What becomes of one recording: kept as it is, or the features of its units."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray import registry
from hms_ray.core.errors import DataError
from hms_ray.datasets import hms
from hms_ray.features import kaggle_spectrogram, panels, raw_eeg
from hms_ray.features._feature import FeatureRef
from hms_ray.store import _work
from hms_ray.store._work import Output, ReadOnce, as_type
from hms_ray.store._writer import Piece

FIRST, SECOND, SHARED = "4294950000", "4294949999", "2147483000"  # patient 0's EEGs, and the spectrogram of both


def _kept(dataset: hms.HmsDataset, kind: str, dtype: str, item: str) -> Piece:
    """The one piece of a recording that is kept as it is."""
    (piece,) = ReadOnce(dataset, kind, (Output((kind,), dtype),), {}, (frozenset([item]),))(item)
    return piece


def _computed(dataset: hms.HmsDataset, feature: FeatureRef, dtype: str, item: str, examples: np.ndarray) -> Piece:
    """The one piece of a feature of those examples."""
    kinds = feature.spec.kinds
    output = Output(kinds, dtype, feature)
    (piece,) = ReadOnce(dataset, kinds[0], (output,), {item: examples}, (frozenset([item]),))(item)
    return piece


def test_a_kept_recording_is_the_files_values(dataset: hms.HmsDataset) -> None:
    piece = _kept(dataset, "eeg", "float32", FIRST)
    assert piece.item == FIRST and piece.rows.dtype == np.float32
    np.testing.assert_array_equal(piece.rows.reshape(20, 13_200), dataset.read("eeg", FIRST))
    assert [(row["kind"], row["name"]) for row in piece.quality] == [("eeg", FIRST)]


def test_halves_keep_gaps_and_never_become_infinite() -> None:
    values = np.array([np.nan, 33_403.0, -11_014.0, 206_415.0, -np.inf, 0.0], dtype=np.float32)
    np.testing.assert_array_equal(as_type(values, "float16"), [np.nan, 33_408, -11_016, 65_504, -65_504, 0])
    whole = as_type(values, "float32")
    assert whole.dtype == np.float32 and np.isfinite(whole[1:]).all()
    np.testing.assert_array_equal(whole[:4], values[:4])


@pytest.mark.filterwarnings("error")
def test_a_recording_with_outliers_is_kept_in_halves(dataset: hms.HmsDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.full((400, 300), 206_415, np.float32)
    monkeypatch.setattr(hms.HmsDataset, "read", lambda self, kind, name: values)
    piece = _kept(dataset, "spectrogram", "float16", SHARED)
    assert (piece.rows == 65_504).all() and piece.quality[0]["outliers"] == 1


def test_a_spectrogram_serves_the_units_of_several_eegs(dataset: hms.HmsDataset, reads: list[str]) -> None:
    params = kaggle_spectrogram.Params(pool=4)
    mine = np.flatnonzero(dataset.windows["spectrogram"].names == SHARED)
    assert sorted(dataset.units["unit_id"].iloc[mine]) == [SECOND, FIRST]
    piece = _computed(dataset, FeatureRef("kaggle_spectrogram", params), "float32", SHARED, mine)
    assert reads == [SHARED] and piece.rows.shape == (2, 100 * 75)
    for i, row in zip(mine, piece.rows, strict=True):
        window = torch.from_numpy(dataset.window("spectrogram", int(i)))[None]
        expected = kaggle_spectrogram.compute({"spectrogram": window}, params)
        np.testing.assert_allclose(row, expected.flatten(), atol=1e-5)


def test_a_feature_of_both_kinds_reads_each_file_once(dataset: hms.HmsDataset, reads: list[str]) -> None:
    mine = np.flatnonzero(dataset.windows["spectrogram"].names == SHARED)
    piece = _computed(dataset, FeatureRef("panels", panels.Params()), "float16", SHARED, mine)
    assert sorted(reads) == sorted([FIRST, SECOND, SHARED])
    assert sorted((row["kind"], row["name"]) for row in piece.quality) == [
        ("eeg", SECOND),
        ("eeg", FIRST),
        ("spectrogram", SHARED),
    ]


def test_many_units_of_a_recording_are_computed_a_few_at_a_time(
    hms_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, params = hms.load(hms_folder, hms.Params(rows="period")), raw_eeg.Params()
    mine = np.flatnonzero(dataset.windows["eeg"].names == SECOND)
    assert len(mine) == 3
    together = _computed(dataset, FeatureRef("raw_eeg", params), "float32", SECOND, mine)
    sizes, compute = [], raw_eeg.compute
    monkeypatch.setattr(_work, "ROWS", 2)
    monkeypatch.setattr(
        raw_eeg, "compute", lambda batch, params: sizes.append(len(batch["eeg"])) or compute(batch, params)
    )
    apart = _computed(dataset, FeatureRef("raw_eeg", params), "float32", SECOND, mine)
    assert sizes == [2, 1]
    np.testing.assert_allclose(apart.rows, together.rows, atol=1e-4)


def test_a_window_beyond_the_end_is_named(make_hms_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_hms_folder(tmp_path / "hms", patients=1)
    table = pd.read_csv(folder / "train.csv")
    table["eeg_label_offset_seconds"] += 70.5
    table.to_csv(folder / "train.csv", index=False)
    dataset = hms.load(folder, hms.Params(rows="eeg"))
    with pytest.raises(DataError) as caught:
        _computed(dataset, FeatureRef("raw_eeg", raw_eeg.Params()), "float16", FIRST, np.array([1]))
    assert str(caught.value) == f"{dataset.path('eeg', FIRST)}: it has 66 s, but a label's offset is 79 s"


def test_it_travels_to_other_processes(dataset: hms.HmsDataset) -> None:
    work = ReadOnce(dataset, "eeg", (Output(("eeg",), "float16"),), {}, (frozenset([FIRST]),))
    (piece,) = pickle.loads(pickle.dumps(work))(FIRST)
    assert piece.rows.shape == (1, 20 * 13_200)


def test_one_reading_serves_every_store_that_lacks_the_item(dataset: hms.HmsDataset, reads: list[str]) -> None:
    mine = np.flatnonzero(dataset.windows["spectrogram"].names == SHARED)
    both, one = (
        FeatureRef(name, registry.load("features", name).Params()) for name in ("panels", "kaggle_spectrogram")
    )
    outputs = (
        Output(("spectrogram", "eeg"), "float16", both),
        Output(("spectrogram",), "float32", one),
        Output(("spectrogram",), "float16"),
        Output(("spectrogram",), "float32", one),
    )
    here, nothing = frozenset([SHARED]), frozenset()
    pieces = ReadOnce(dataset, "spectrogram", outputs, {SHARED: mine}, (here, here, here, nothing))(SHARED)
    assert sorted(reads) == sorted([FIRST, SECOND, SHARED]) and pieces[3] is None
    reads.clear()
    alone = (_computed(dataset, both, "float16", SHARED, mine), _computed(dataset, one, "float32", SHARED, mine))
    alone += (_kept(dataset, "spectrogram", "float16", SHARED),)
    assert [piece.hash for piece in pieces[:3]] == [piece.hash for piece in alone]
    assert [piece.quality for piece in pieces[:3]] == [piece.quality for piece in alone]
    ReadOnce(dataset, "spectrogram", outputs, {SHARED: mine}, (nothing, here, here, here))(SHARED)
    assert reads[-1:] == [SHARED] and FIRST not in reads[-1:], "no EEG for those that need none"
