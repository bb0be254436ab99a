"""What any model has to beat: logistic regression on a subject's averaged log-spectrum and a few numbers about it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import signal

from hms_ray.core.recordings import KINDS
from hms_ray.datasets._table import Dataset

DESCRIPTION = (
    "logistic regression (C = 0.003, not tuned) on the averaged log-spectrum (mean, deviation and 90th percentile of "
    "32 bands below 1 kHz; mean and maximum over recordings) and demographics"
)
C = 0.003
WINDOW, TOP_HZ, BANDS = 256, 1000.0, 32
SMALLEST = 1e-10  # of full scale squared: what a silent band has


def predict(dataset: Dataset, kind: str, numbers: Sequence[str], folds: np.ndarray) -> np.ndarray:
    """Predict each fold (N,) by what was fitted on the others: probabilities (N, K) of each label by itself.

    numbers: what is known of a unit beside its recordings
    """
    assert dataset.targets is not None, "only a labelled dataset has a baseline"
    x = np.concatenate([spectra(dataset, kind), _of_units(dataset, numbers)], axis=1)
    probs = np.empty_like(dataset.targets)
    for fold in np.unique(folds):
        held_out = folds == fold
        for k, label in enumerate(dataset.targets.T):
            probs[held_out, k] = _fitted(x[~held_out], label[~held_out], x[held_out])
    return probs


def spectra(dataset: Dataset, kind: str) -> np.ndarray:
    """Return each unit's (N, 2 x 3 x BANDS): mean and maximum over its recordings of what `spectrum` returns."""

    def of(name: str) -> np.ndarray:
        return spectrum(dataset.read(kind, name)[0], KINDS[kind].rate_hz)

    with ThreadPoolExecutor() as pool:
        found = np.stack(list(pool.map(of, dataset.windows[kind].names.tolist())))
    units, first = np.arange(len(dataset.units)), np.unique(dataset.examples.unit, return_index=True)[1]
    return np.concatenate([dataset.examples.mean(units, found), np.maximum.reduceat(found, first)], axis=1)


def spectrum(sound: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return mean, deviation and 90th percentile over time (3 x BANDS,) of the log power of sound (steps,) in bands."""
    sound = np.pad(np.nan_to_num(sound), (0, max(0, WINDOW - len(sound))))
    hz, _, power = signal.stft(sound, rate_hz, nperseg=WINDOW)
    logs = np.log(np.abs(power[hz < TOP_HZ]) ** 2 + SMALLEST)
    bands = np.stack([part.mean(0) for part in np.array_split(logs, BANDS)])  # (BANDS, T)
    return np.concatenate([bands.mean(1), bands.std(1), np.percentile(bands, 90, axis=1)])


def _of_units(dataset: Dataset, numbers: Sequence[str]) -> np.ndarray:
    first = np.unique(dataset.examples.unit, return_index=True)[1]
    return dataset.examples.beside(numbers)[first]


def _fitted(x: np.ndarray, label: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the probability of a label for each row of `new`; one that all or none have is no question."""
    from sklearn.impute import SimpleImputer  # slow to import, and no worker fits baselines
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if label.min() == label.max():
        return np.full(len(new), label[0])
    steps = SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=C, max_iter=10_000)
    return make_pipeline(*steps).fit(x, label).predict_proba(new)[:, 1]
