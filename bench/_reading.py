"""Windows read from stores beside windows read from the competition's files."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench import _notebook
from bench._place import Place
from bench._words import mb, per_second, ratio
from hms_ray.datasets import Dataset
from hms_ray.store.inputs import Inputs

IMAGES = ("image as kept", "image in float32", "EEG window in float32")  # against files of EEGs
SPECTROGRAMS = ("spectrogram as kept", "spectrogram in float32")  # against files of spectrograms
GOALS = dict.fromkeys(("image as kept", "spectrogram as kept"), "at least 100")


@dataclass(frozen=True)
class _Stores:
    """What is prepared: the EEG's image, the EEGs themselves, and the spectrogram's image."""

    image: Inputs
    eeg: Inputs
    spectrogram: Inputs

    def readers(self) -> dict[str, Callable[[np.ndarray], torch.Tensor]]:
        """Return the ways to read the windows of some units."""
        image, spectrogram, kept, cpu = self.image, self.spectrogram, self.eeg.kept["eeg"], torch.device("cpu")
        return {
            "image as kept": lambda rows: image.x.index_select(0, torch.from_numpy(rows)),
            "image in float32": lambda rows: image.batch(rows, cpu),
            "EEG window in float32": lambda rows: kept.batch(rows, kept.windows.middle_s[rows], cpu),
            "spectrogram as kept": lambda rows: spectrogram.x.index_select(0, torch.from_numpy(rows)),
            "spectrogram in float32": lambda rows: spectrogram.batch(rows, cpu),
        }

    def sizes(self) -> str:
        """Return the words for how large they are."""
        return (
            f"{mb(self.image.nbytes)} (image), {mb(self.eeg.kept['eeg'].values.nbytes)} (EEG) and "
            f"{mb(self.spectrogram.nbytes)} (spectrogram), float16"
        )


def reading(place: Place) -> Iterator[str]:
    """Compare reading what is prepared with reading files, warm, all units in random order."""
    dataset = place.dataset()
    stores = _Stores(
        place.inputs(dataset, "eeg_spectrogram"),
        place.inputs(dataset, "eeg_spectrogram", "batch"),
        place.inputs(dataset, "kaggle_spectrogram"),
    )
    order = np.random.default_rng(0).permutation(len(dataset.units))
    batches = np.array_split(order, -(-len(order) // place.options.batch))
    rates = place.rates(_of_files(dataset, order) | _of_stores(stores, batches, place.options.passes))
    yield (
        f"  {len(order)} windows in random order, files and stores in the page cache; prepared ones {len(batches[0])} "
        f"at a time, from stores of {stores.sizes()}"
    )
    yield f"  {per_second(rates, 'windows')}"
    yield from _ratios(rates)


def _of_files(dataset: Dataset, order: np.ndarray) -> dict[str, Callable[[], int]]:
    """Return the ways to read a file for each window; each says how many there were."""

    def files(kind: str, read: Callable[[Path, float], np.ndarray]) -> Callable[[], int]:
        windows = dataset.windows[kind]
        return lambda: sum(len(read(dataset.path(kind, windows.names[i]), windows.middle_s[i])) > 0 for i in order)

    return {
        "EEG by pandas": files("eeg", _notebook.read_eeg),
        "EEG by pyarrow": files("eeg", _notebook.read_eeg_columns),
        "spectrogram by pandas": files("spectrogram", _notebook.read_spectrogram),
    }


def _of_stores(stores: _Stores, batches: list[np.ndarray], passes: int) -> dict[str, Callable[[], int]]:
    """Return the ways to read all batches so many times; each says how many windows there were."""

    def whole(read: Callable[[np.ndarray], torch.Tensor]) -> Callable[[], int]:
        return lambda: sum(len(read(rows)) for _ in range(passes) for rows in batches)

    return {name: whole(read) for name, read in stores.readers().items()}


def _ratios(rates: Mapping[str, float]) -> Iterator[str]:
    for store in IMAGES:
        name = f"pd.read_parquet of the EEG / {store}"
        yield ratio(name, rates[store] / rates["EEG by pandas"], GOALS.get(store))
        yield ratio(f"pyarrow, 19 columns of the EEG / {store}", rates[store] / rates["EEG by pyarrow"])
    for store in SPECTROGRAMS:
        name = f"pd.read_parquet of the spectrogram / {store}"
        yield ratio(name, rates[store] / rates["spectrogram by pandas"], GOALS.get(store))
