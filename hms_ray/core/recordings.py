"""Kinds of recordings, which datasets read and features are computed from."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RecordingKind:
    """A kind of recordings: names of channels, sampling rate, and length of the window around a label.

    outlier: larger absolute values, in the recording's unit, count as outliers
    """

    name: str
    channels: tuple[str, ...]
    rate_hz: float
    window_s: float
    outlier: float

    @property
    def steps(self) -> int:
        """The number of steps of one window."""
        return round(self.window_s * self.rate_hz)


# Electrodes of the 10-20 system in the order of the competition's files, in microvolts.
LEFT, MIDLINE = ("Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1"), ("Fz", "Cz", "Pz")
RIGHT = ("Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2")
EEG = RecordingKind("eeg", (*LEFT, *MIDLINE, *RIGHT, "EKG"), 200.0, 50.0, outlier=1024.0)

# Power of four regions at 0.59 ... 19.92 Hz; halves are rounded up in the names: 3.125 Hz is LL_3.13.
PANELS = ("LL", "LP", "RL", "RP")
BINS_HZ = tuple(int(k * 20000 / 1024 + 0.5) / 100 for k in range(3, 103))
SPECTROGRAM = RecordingKind(
    "spectrogram", tuple(f"{panel}_{hz}" for panel in PANELS for hz in BINS_HZ), 0.5, 600.0, outlier=math.exp(8)
)

# Sound of a stethoscope, 1 is full scale; published recordings reach it, because each was scaled to its peak.
HEART_SOUND = RecordingKind("heart_sound", ("sound",), 4000.0, 20.0, outlier=1.0)

KINDS = {kind.name: kind for kind in (EEG, SPECTROGRAM, HEART_SOUND)}
