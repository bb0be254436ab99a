"""Sound files as the recordings of one kind: one channel at its rate, whatever the file has."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from hms_ray.core.errors import DataError
from hms_ray.core.recordings import RecordingKind

RATES_HZ = (100, 1_000_000)


def read(path: Path, kind: RecordingKind) -> np.ndarray:
    """Return a file as (1, steps) float32, 1 is full scale: several channels averaged, another rate resampled.

    Raises:
        DataError: the file is missing or broken.
    """
    _check(path)
    try:
        sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)  # (steps, channels)
    except soundfile.LibsndfileError as error:
        raise _broken(path, error) from error
    _check_rate(path, rate_hz)
    mono = np.nan_to_num(sound.mean(1), nan=np.nan, posinf=np.nan, neginf=np.nan)
    return resampled(mono, rate_hz, kind.rate_hz)[None].astype(np.float32)


def steps(path: Path, kind: RecordingKind) -> int:
    """Return how long a file is at the kind's rate, from its header alone; errors as in `read`."""
    _check(path)
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise _broken(path, error) from error
    _check_rate(path, info.samplerate)
    share = _share(info.samplerate, kind.rate_hz)
    return -(-info.frames * share.numerator // share.denominator)


def resampled(sound: np.ndarray, rate_hz: float, to_hz: float) -> np.ndarray:
    """Return sound (steps,) at another rate by a polyphase filter: no frequency above either Nyquist's folds back."""
    share = _share(rate_hz, to_hz)
    return sound if share == 1 else resample_poly(sound, share.numerator, share.denominator)


def _share(rate_hz: float, to_hz: float) -> Fraction:
    return Fraction(round(to_hz), round(rate_hz))


def _check(path: Path) -> None:
    """Raise DataError unless the file begins as a WAV does: of other bytes a decoder of MP3 would make some sound."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with open(path, "rb") as file:
        head = file.read(4)
    if head not in (b"RIFF", b"RIFX", b"RF64"):
        raise DataError(f"{path}: not a WAV file: it begins with {head!r}, not b'RIFF'")


def _check_rate(path: Path, rate_hz: int) -> None:
    low, high = RATES_HZ
    if not low <= rate_hz <= high:
        raise DataError(f"{path}: its header says {rate_hz} Hz; a sound has from {low} to {high:,} Hz")


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a readable sound file ({' '.join(str(error).split())})")
