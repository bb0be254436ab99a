"""A rendered scene: sides, spread, presence, and artefacts where they belong."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray.simulate import recording, scene, spectrogram
from hms_ray.simulate._scalp import CHANNELS, SFREQ

SECONDS, LABELLED = 300, (140.0, 160.0)


def _scene(label: str, **changes: object) -> scene.Scene:
    calm = replace(
        scene.draw(np.random.default_rng(0), "other").background, alpha_uv=0.0, asymmetry=0.0, suppression=0.0
    )
    return replace(scene.draw(np.random.default_rng(0), label), background=calm, visibility=4.0, **changes)


def _render(drawn: scene.Scene, seed: int = 0, **options: object) -> recording.Recording:
    return recording.render(np.random.default_rng(seed), drawn, SECONDS, LABELLED, **options)


def _sides(drawn: scene.Scene) -> float:
    """Return log power of the left over the right in the labelled seconds, 1 to 8 Hz."""
    power = spectrogram.compute(_render(drawn).signal)[70:80].reshape(10, 4, 100)[:, :, 3:38]
    left, right = power[:, [0, 2]].mean(), power[:, [1, 3]].mean()
    return float(np.log(left / right))


@pytest.mark.parametrize("label", ["lpd", "lrda"])
def test_a_lateralised_pattern_is_on_its_side(label: str) -> None:
    left = _sides(_scene(label, focus=(-0.7, 0.1), laterality=1.0))
    right = _sides(_scene(label, focus=(0.7, 0.1), laterality=1.0))
    assert left > 1
    assert right < -1


@pytest.mark.parametrize("label", ["gpd", "grda"])
def test_a_generalised_pattern_is_on_both(label: str) -> None:
    assert abs(_sides(_scene(label, laterality=0.0))) < 0.4


def test_visibility_is_the_ratio_to_the_background() -> None:
    faint, strong = (_render(replace(_scene("lpd"), visibility=v)) for v in (0.01, 8.0))
    faint, strong = (spectrogram.compute(r.signal)[70:80].reshape(10, 4, 100).mean((0, 2)) for r in (faint, strong))
    assert strong.max() > 10 * faint.max()


def test_an_onset_lies_where_it_was_asked_for() -> None:
    played = _render(_scene("gpd"), onset_s=150.0)
    assert played.presence_at(100, 145) == 0
    assert played.presence_at(155, 160) > 0.5


def test_the_pattern_shows_in_the_labelled_seconds() -> None:
    for label in ("seizure", "lpd", "gpd", "lrda", "grda"):
        assert _render(_scene(label), seed=3).presence_at(*LABELLED) > 0.4


def test_a_cut_starts_at_its_time_and_is_rounded() -> None:
    played = _render(_scene("lpd"))
    cut = played.eeg(100.5, 50)
    first = int(101.5 * SFREQ)
    assert cut.shape == (50, len(CHANNELS) + 1)
    np.testing.assert_allclose(cut[:, :-1].T, played.signal[:, first : first + 50], atol=0.0051)
    np.testing.assert_allclose(cut * 100, np.round(cut * 100), atol=0.01)


def test_traps_change_the_signal() -> None:
    drawn = _scene("lpd")
    flat = _render(drawn, traps=frozenset({"flat"})).signal
    assert (flat == 0).all(1).sum() == 1
    plain, spoilt = _render(drawn).signal, _render(drawn, traps=frozenset({"outlier"})).signal
    labelled = slice(119 * SFREQ, 183 * SFREQ)
    assert np.abs(spoilt[:, labelled]).max() > np.abs(plain[:, labelled]).max() + 400


def test_rendering_is_a_function_of_its_stream() -> None:
    drawn = _scene("seizure")
    one, two, other = _render(drawn, seed=5), _render(drawn, seed=5), _render(drawn, seed=6)
    np.testing.assert_array_equal(one.signal, two.signal)
    assert not np.array_equal(one.signal, other.signal)
