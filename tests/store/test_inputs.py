"""What training reads: the same numbers whether prepared or computed, of the windows that it should see."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray import registry
from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.core.recordings import HEART_SOUND
from hms_ray.datasets import Dataset, bmd_hs, hms
from hms_ray.features import kaggle_spectrogram, panels
from hms_ray.features._feature import FeatureRef
from hms_ray.simulate import simulate_hearts
from hms_ray.store.inputs import Computed, Inputs, Prepared, open_inputs, read_quality
from hms_ray.store.prepare import InputParams
from hms_ray.store.share import StoreRef

CPU = torch.device("cpu")
UNPUBLISHED = {"speech_embedding": {"arch": "wav2vec2-tiny", "pretrained": False, "seconds": 2.0}}
Prepare = Callable[..., tuple[StoreRef, ...]]
Open = Callable[..., Inputs]


@pytest.fixture
def opened(prepare: Prepare) -> Open:
    """Prepare and open: opened(dataset, feature, **input)."""

    def open_it(dataset: hms.HmsDataset, feature: FeatureRef, **params: str) -> Inputs:
        stores = prepare(dataset, feature, **params)
        return open_inputs(stores, feature, InputParams(**params), dataset.windows, dataset.examples)

    return open_it


def _by_default(name: str) -> FeatureRef:
    return FeatureRef(name, registry.load("features", name).Params(**UNPUBLISHED.get(name, {})))


@pytest.fixture(scope="module")
def recorded(make_hms_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Dataset]:
    """The function that gives a small dataset with recordings of those kinds."""
    eegs, hearts = (tmp_path_factory.mktemp(name) / "folder" for name in ("hms", "bmd_hs"))
    make_hms_folder(eegs, patients=2)
    simulate_hearts(hearts, 8, 3, seconds=2.0)

    def give(kinds: tuple[str, ...]) -> Dataset:
        if HEART_SOUND.name in kinds:
            return bmd_hs.load(hearts, bmd_hs.Params())
        return hms.load(eegs, hms.Params(rows="eeg"))

    return give


def _batch(inputs: Inputs, rows: list[int] | None = None, seed: int | None = None) -> torch.Tensor:
    rng = None if seed is None else np.random.default_rng(seed)
    return inputs.batch(np.arange(len(inputs)) if rows is None else np.array(rows), CPU, rng)


def test_a_batch_is_the_rows_asked_for(dataset: hms.HmsDataset, small: FeatureRef, opened: Open, cache: Path) -> None:
    inputs = opened(dataset, small)
    assert isinstance(inputs, Prepared) and len(inputs) == 12 and inputs.nbytes == 12 * 7500 * 2
    kept = np.load(next(cache.rglob("x.npy")))
    batch = _batch(inputs, [7, 0, 7])
    np.testing.assert_array_equal(batch, kept[[7, 0, 7]].astype(np.float32))
    assert batch.dtype == torch.float32 and batch.shape[1:] == inputs.spec.shape
    assert torch.equal(_batch(inputs, [7, 0, 7], seed=1), batch), "one window is prepared, and chance has no say"


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_images_are_channels_last(dataset: hms.HmsDataset, opened: Open, compute: str) -> None:
    feature = FeatureRef("kaggle_spectrogram", kaggle_spectrogram.Params(pool=4, arrange="channels"))
    batch = _batch(opened(dataset, feature, compute=compute))
    assert batch.shape[1] == 4 and batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", registry.names("features"))
def test_the_same_code_gives_the_same_numbers_in_both_places(
    name: str, recorded: Callable[..., Dataset], opened: Open
) -> None:
    feature, rows = _by_default(name), [0, 1, 2, 3]
    dataset = recorded(feature.spec.kinds)
    prepared, computed = (
        _batch(opened(dataset, feature, compute=compute, dtype="float32"), rows) for compute in ("prepared", "batch")
    )
    assert prepared.shape == (4, *registry.load("features", name).spec(feature.params).shape)
    assert prepared.std() > 0.05 and not torch.equal(prepared[0], prepared[-1])
    torch.testing.assert_close(computed, prepared, rtol=1e-4, atol=1e-4)


def test_windows_beyond_the_files_end_are_padded(
    make_hms_folder: Callable[..., Path], tmp_path: Path, opened: Open
) -> None:
    folder = make_hms_folder(tmp_path / "hms", patients=1, rows=200)
    table = pd.read_csv(folder / "train.csv")
    table["eeg_label_offset_seconds"] += 30.0
    table.to_csv(folder / "train.csv", index=False)
    dataset = hms.load(folder, hms.Params(rows="eeg"))
    kept = opened(dataset, _by_default("panels"), compute="batch", dtype="float32").kept
    for kind, steps in (("eeg", 13_200 - 7_700), ("spectrogram", 200 - 4)):  # patient 0's first EEG, offset 8.5 s
        windows = kept[kind].batch(np.array([1, 0]), dataset.windows[kind].middle_s[[1, 0]], CPU)
        assert windows.dtype == torch.float32
        assert windows[0, :, steps:].isnan().all() and not windows[0, 0, 10:steps].isnan().any()
        for window, i in zip(windows, (1, 0), strict=True):
            np.testing.assert_array_equal(window, dataset.window(kind, i))


def _told(opened: Open, folder: Path, rows: str, monkeypatch: pytest.MonkeyPatch) -> tuple[hms.HmsDataset, Inputs]:
    """Open windows of recordings that tell the time; an example is the start of its EEG's and its spectrogram's."""
    dataset = hms.load(folder, hms.Params(rows=rows))
    inputs = opened(dataset, _by_default("panels"), compute="batch", window="random", dtype="float32")
    _compute(monkeypatch, panels, lambda x: torch.stack([x["eeg"][:, 0, 0], x["spectrogram"][:, 0, 0]], 1))
    return dataset, inputs


def _compute(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, compute: Callable[[dict[str, torch.Tensor]], torch.Tensor]
) -> None:
    monkeypatch.setattr(module, "compute", lambda batch, params: compute(batch))


@pytest.mark.parametrize("rows", ["period", "eeg", "label"])
def test_random_windows_are_the_units_own_and_of_one_moment_in_all_kinds(
    rows: str, timed_folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, inputs = _told(opened, timed_folder, rows, monkeypatch)
    drawn = torch.stack([_batch(inputs, seed=seed) for seed in range(100)]).numpy()  # (epochs, units, 2)
    own = {
        "period": {"0-0": [(0, 16)], "9-0": [(0, 6)], "9-2": [(12, 12)], "9-3": [(16, 16)]},
        "label": {"0-0": [(0, 16)], "9-0": [(0, 6), (16, 16)], "9-2": [(12, 12)]},
        "eeg": {"0": [(0, 16)], "9": [(0, 16)]},
    }[rows]
    for i, unit in enumerate(dataset.units["unit_id"]):
        runs = own[unit[9:]]
        starts, first = drawn[:, i, 0], 24 * (unit[9] == "9")  # the second EEG begins 24 s into the spectrogram
        inside = [(starts >= low - 0.006) & (starts <= high + 0.006) for low, high in runs]
        assert np.any(inside, axis=0).all() and all(run.any() for run in inside), unit
        assert (np.ptp(starts) > 4) == any(low < high for low, high in runs), "it is not always the same"
        apart = starts + first - drawn[:, i, 1]
        assert apart.min() > -0.006 and apart.max() < 2.006, "a step of a spectrogram is 2 s"


def test_epochs_differ_and_a_seed_repeats_them(
    timed_folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, inputs = _told(opened, timed_folder, "eeg", monkeypatch)
    rng = np.random.default_rng(0)
    first, second = (inputs.batch(np.arange(4), CPU, rng) for _ in range(2))
    assert (first[:, 0] != second[:, 0]).all()
    assert torch.equal(_batch(inputs, seed=0), first)
    middle = torch.from_numpy(dataset.windows["eeg"].middle_s).float()
    torch.testing.assert_close(_batch(inputs)[:, 0], middle, rtol=0, atol=0.006)


def test_middle_windows_ask_no_chance(dataset: hms.HmsDataset, opened: Open) -> None:
    inputs = opened(dataset, _by_default("raw_eeg"), compute="batch")
    assert isinstance(inputs, Computed) and inputs.nbytes == 12 * 20 * 13_200 * 2
    assert torch.equal(_batch(inputs, [3, 1], seed=5), _batch(inputs, [3, 1]))


def test_a_row_is_the_same_in_any_batch(dataset: hms.HmsDataset, small: FeatureRef, opened: Open) -> None:
    inputs = opened(dataset, small, compute="batch")
    torch.testing.assert_close(_batch(inputs, [5, 2, 5]), _batch(inputs)[[5, 2, 5]])


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_opening_maps_the_file_once(dataset: hms.HmsDataset, small: FeatureRef, prepare: Prepare, compute: str) -> None:
    stores, params = prepare(dataset, small, compute=compute), InputParams(compute=compute)
    one, two = (open_inputs(stores, small, params, dataset.windows, dataset.examples) for _ in range(2))
    values = [x.x if compute == "prepared" else x.kept["spectrogram"].values for x in (one, two)]
    assert values[0].data_ptr() == values[1].data_ptr()
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(stores[0].path / "x.npy")) == 1


def test_an_array_larger_than_memory_is_opened_at_once(
    dataset: hms.HmsDataset, small: FeatureRef, prepare: Prepare
) -> None:
    (store,) = prepare(dataset, small)
    rows = 1 << 28  # of 15 kB each: 4 TB, without content
    np.lib.format.open_memmap(store.path / "x.npy", mode="w+", dtype="float16", shape=(rows, 1, 100, 75))
    manifest = files.read_json(store.path / "manifest.json")
    manifest["files"]["x.npy"] = (store.path / "x.npy").stat().st_size
    files.write_json(store.path / "manifest.json", manifest)
    inputs = open_inputs([store], small, InputParams(), dataset.windows, dataset.examples)
    assert len(inputs) == rows and not _batch(inputs, [0, rows - 1]).any()


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_writing_to_a_batch_or_to_the_values_does_not_change_the_file(
    dataset: hms.HmsDataset, prepare: Prepare, opened: Open, compute: str
) -> None:
    feature = _by_default("raw_eeg")
    (store,) = prepare(dataset, feature, compute=compute)
    before = (store.path / "x.npy").read_bytes()
    inputs = opened(dataset, feature, compute=compute)
    first = _batch(inputs)
    _batch(inputs).fill_(7)
    assert torch.equal(_batch(inputs), first)
    (inputs.x if compute == "prepared" else inputs.kept["eeg"].values).fill_(7)
    assert (store.path / "x.npy").read_bytes() == before


def test_the_values_can_lie_on_the_device(dataset: hms.HmsDataset, small: FeatureRef, opened: Open) -> None:
    for compute in ("prepared", "batch"):
        inputs = opened(dataset, small, compute=compute)
        assert torch.equal(_batch(inputs.to(CPU)), _batch(inputs))


def test_stores_that_are_not_here_are_said(dataset: hms.HmsDataset, small: FeatureRef) -> None:
    with pytest.raises(DataError, match="no prepared data here"):
        open_inputs([StoreRef.of("nowhere")], small, InputParams(), dataset.windows, dataset.examples)


def test_the_quality_of_all_stores_is_one_table(dataset: hms.HmsDataset, prepare: Prepare) -> None:
    table = read_quality(prepare(dataset, _by_default("panels"), compute="batch"))
    assert len(table) == 18 and table.index.is_unique and set(table["kind"]) == {"eeg", "spectrogram"}
