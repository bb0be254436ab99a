"""Sound files as the recordings of one kind: one channel at its rate, whatever the file has."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from hms_ray.errors import DataError
from hms_ray.recordings import RecordingKind


def read(path: Path, kind: RecordingKind) -> np.ndarray:
    """Return a file as (1, steps) float32, 1 is full scale: several channels averaged, another rate resampled.

    Raises:
        DataError: the file is missing or broken.
    """
    try:
        sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)  # (steps, channels)
    except soundfile.LibsndfileError as error:
        raise _broken(path, error) from error
    mono = np.nan_to_num(sound.mean(1), nan=np.nan, posinf=np.nan, neginf=np.nan)
    return resampled(mono, rate_hz, kind.rate_hz)[None].astype(np.float32)


def steps(path: Path, kind: RecordingKind) -> int:
    """Return how long a file is at the kind's rate, from its header alone; errors as in `read`."""
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise _broken(path, error) from error
    share = _share(info.samplerate, kind.rate_hz)
    return -(-info.frames * share.numerator // share.denominator)


def resampled(sound: np.ndarray, rate_hz: float, to_hz: float) -> np.ndarray:
    """Return sound (steps,) at another rate by a polyphase filter: no frequency above either Nyquist's folds back."""
    share = _share(rate_hz, to_hz)
    return sound if share == 1 else resample_poly(sound, share.numerator, share.denominator)


def _share(rate_hz: float, to_hz: float) -> Fraction:
    return Fraction(round(to_hz), round(rate_hz))


def _broken(path: Path, error: Exception) -> DataError:
    if not path.is_file():
        return DataError(f"{path}: no such file")
    return DataError(f"{path}: not a readable sound file ({' '.join(str(error).split())})")
