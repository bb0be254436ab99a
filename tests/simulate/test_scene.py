"""Scenes stay inside what the terminology allows."""

import numpy as np
import pytest

from hms_ray.simulate import scene


@pytest.mark.parametrize("label", scene.CLASSES)
def test_a_scene_fits_its_label(label: str) -> None:
    for seed in range(40):
        drawn = scene.draw(np.random.default_rng(seed), label)
        if drawn.kind == "periodic":
            assert 0.5 <= drawn.rate_hz <= 2.5
        if drawn.kind == "rhythmic":
            assert 0.5 <= drawn.rate_hz <= 4
        if label in ("lpd", "lrda"):
            assert drawn.laterality > 0.5
            assert abs(drawn.focus[0]) > 0.4
        if label in ("gpd", "grda"):
            assert drawn.laterality < 0.5
        if label == "other":
            assert drawn.visibility <= 0.4


def test_some_patterns_are_barely_visible_and_some_clear() -> None:
    seen = np.array([scene.draw(np.random.default_rng(s), "lpd").visibility for s in range(200)])
    assert (seen < 0.8).any()
    assert (seen > 4).any()


def test_both_sides_occur() -> None:
    sides = {np.sign(scene.draw(np.random.default_rng(s), "lrda").focus[0]) for s in range(20)}
    assert sides == {-1, 1}


def test_a_scene_that_has_to_be_clear_is() -> None:
    assert min(scene.draw(np.random.default_rng(s), "grda", clear=True).visibility for s in range(50)) >= 3
