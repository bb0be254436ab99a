"""Sound files: whatever rate, channels and depth they have, they are read as one channel at the kind's rate."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from hms_ray.core.errors import DataError
from hms_ray.core.recordings import HEART_SOUND
from hms_ray.datasets import _sound

SECONDS = 3


def _tone(rate_hz: int, hz: float = 110.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(SECONDS * rate_hz) / rate_hz)


def _written(path: Path, sound: np.ndarray, rate_hz: int, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, sound, rate_hz, subtype)
    return path


@pytest.mark.parametrize("rate_hz", [2000, 4000, 8000, 44_100])
def test_another_rate_is_resampled(tmp_path: Path, rate_hz: int) -> None:
    path = _written(tmp_path / "a.wav", _tone(rate_hz), rate_hz)
    found = _sound.read(path, HEART_SOUND)
    assert found.shape == (1, 4000 * SECONDS) and found.dtype == np.float32
    assert _sound.steps(path, HEART_SOUND) == found.shape[1]
    inside = slice(400, -400)  # the filter rings at the ends
    np.testing.assert_allclose(found[0, inside], _tone(4000)[inside], atol=2e-3)


def test_what_the_lower_rate_cannot_hold_does_not_fold_back(tmp_path: Path) -> None:
    found = _sound.read(_written(tmp_path / "a.wav", _tone(16_000, hz=3000), 16_000), HEART_SOUND)
    assert np.abs(found[0, 400:-400]).max() < 0.005


def test_several_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.stack([_tone(4000), np.zeros(4000 * SECONDS)], 1)
    np.testing.assert_allclose(
        _sound.read(_written(tmp_path / "a.wav", stereo, 4000), HEART_SOUND)[0], _tone(4000) / 2, atol=1e-4
    )


@pytest.mark.parametrize(("subtype", "error"), [("PCM_U8", 8e-3), ("PCM_24", 1e-6), ("PCM_32", 1e-7), ("FLOAT", 1e-7)])
def test_any_depth_is_full_scale_1(tmp_path: Path, subtype: str, error: float) -> None:
    found = _sound.read(_written(tmp_path / "a.wav", _tone(4000), 4000, subtype), HEART_SOUND)
    np.testing.assert_allclose(found[0], _tone(4000), atol=error)


@pytest.mark.parametrize("look", [_sound.read, _sound.steps])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, look: object) -> None:
    with pytest.raises(DataError, match=r"a\.wav: no such file"):
        look(tmp_path / "a.wav", HEART_SOUND)
    (tmp_path / "a.wav").write_bytes(b"RIFF and nothing else")
    with pytest.raises(DataError, match=r"a\.wav: not a readable sound file"):
        look(tmp_path / "a.wav", HEART_SOUND)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfb\x90\x00" * 9000, b"ID3" + bytes(9000), b"fLaC" + bytes(90)],
    ids=["empty", "mp3", "id3", "flac"],
)
def test_what_does_not_begin_as_a_wav_is_not_decoded(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    for use in (_sound.read, _sound.steps):
        with pytest.raises(DataError, match=r"a\.wav: not a WAV file: it begins with .*, not b'RIFF'"):
            use(tmp_path / "a.wav", HEART_SOUND)


@pytest.mark.parametrize("rate_hz", [1, 99, 2_000_000_000])
def test_a_rate_that_no_sound_has_is_refused_before_anything_is_resampled(rate_hz: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100), rate_hz)
    for use in (_sound.read, _sound.steps):
        with pytest.raises(DataError, match=rf"a\.wav: its header says {rate_hz} Hz; a sound has from 100 to"):
            use(tmp_path / "a.wav", HEART_SOUND)
