"""Votes: their ranges, the class shift between panels, and what an ideal rater makes of a scene."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray.simulate import panel, scene

CLEAR = {"seizure": "seizure", "lpd": "periodic", "gpd": "periodic", "lrda": "rhythmic", "grda": "rhythmic"}


def _clear(label: str) -> scene.Scene:
    """A scene nobody could mistake."""
    drawn = scene.draw(np.random.default_rng(0), label)
    lateral, sharp = float(label in ("lpd", "lrda")), float(label in ("lpd", "gpd"))
    evolution = 0.95 if label == "seizure" else 0.0
    return replace(drawn, visibility=20.0, laterality=lateral, sharpness=sharp, evolution=evolution)


def _votes(name: str, count: int) -> np.ndarray:
    """Votes (count, K) on scenes drawn from the panel's own population."""
    rng = np.random.default_rng(0)
    labels = rng.choice(scene.CLASSES, count, p=panel.POPULATION[name])
    return np.stack([panel.vote(rng, name, panel.truth(scene.draw(rng, str(label)))) for label in labels])


@pytest.fixture(scope="module")
def votes() -> dict[str, np.ndarray]:
    return {name: _votes(name, 1500) for name in panel.POPULATION}


@pytest.mark.parametrize("label", CLEAR)
def test_a_clear_pattern_gets_its_name(label: str) -> None:
    ideal = panel.truth(_clear(label))
    assert ideal.sum() == pytest.approx(1)
    assert ideal.argmax() == scene.CLASSES.index(label)
    assert ideal.max() > 0.75


def test_what_is_not_seen_is_other() -> None:
    lpd = _clear("lpd")
    shares = [panel.truth(replace(lpd, visibility=v))[-1] for v in (0.0, 0.3, 0.8, 2.0, 6.0)]
    assert (np.diff(shares) < 0).all()
    assert shares[0] > 0.85
    assert panel.truth(lpd, presence=0.0)[-1] == pytest.approx(shares[0])


def test_half_lateralised_discharges_split_the_raters() -> None:
    lpd, gpd = (panel.truth(replace(_clear("lpd"), laterality=0.46))[k] for k in (1, 2))
    assert lpd == pytest.approx(gpd, abs=0.05)


@pytest.mark.parametrize("name", panel.POPULATION)
def test_the_number_of_votes_is_the_panels(votes: dict[str, np.ndarray], name: str) -> None:
    counts = votes[name].sum(1)
    assert (counts.min(), counts.max()) == panel.VOTES[name]


def test_the_panels_see_different_populations(votes: dict[str, np.ndarray]) -> None:
    shares = {name: (v / v.sum(1, keepdims=True)).mean(0) for name, v in votes.items()}
    assert shares["wide"][0] > 0.3
    assert shares["expert"][0] < 0.08
    assert shares["expert"][-1] == pytest.approx(0.46, abs=0.06)


def test_the_prior_is_as_hard_to_beat_as_on_the_real_experts(votes: dict[str, np.ndarray]) -> None:
    targets = votes["expert"] / votes["expert"].sum(1, keepdims=True)
    logs = np.log(np.where(targets > 0, targets / targets.mean(0), 1))
    assert (targets * logs).sum(1).mean() == pytest.approx(0.85, abs=0.12)


def test_experts_stay_near_the_truth_and_the_wide_panel_calls_seizures() -> None:
    rng, ideal = np.random.default_rng(1), panel.truth(_clear("lpd"))
    share = {n: np.mean([(v := panel.vote(rng, n, ideal)) / v.sum() for _ in range(2000)], axis=0) for n in panel.VOTES}
    np.testing.assert_allclose(share["expert"], ideal, atol=0.02)
    assert share["wide"][0] > ideal[0] + 0.15
    assert share["few"][-1] > ideal[-1] + 0.05
