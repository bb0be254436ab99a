"""What happens in one recording, as numbers: the panel's votes and the waves are both made from these."""

from dataclasses import dataclass

import numpy as np

from hms_ray.simulate import background

CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")


@dataclass(frozen=True)
class Scene:
    """One recording's pattern and background.

    kind: "seizure", "periodic", "rhythmic", or "none"
    rate_hz: discharges or waves a second; a seizure has a course of its own
    focus, spread: where on the scalp, and how far it reaches, in head radii
    laterality: 1 is one side alone, 0 both sides alike
    sharpness: 1 is a spike, 0 a rounded wave
    evolution: how much it looks like a seizure, 0 to 1
    visibility: the pattern's amplitude over the background's; below about .7 it is hard to see
    """

    kind: str
    rate_hz: float
    focus: tuple[float, float]
    spread: float
    laterality: float
    sharpness: float
    evolution: float
    visibility: float
    background: background.Background


def draw(rng: np.random.Generator, label: str, quiet: bool = False, clear: bool = False) -> Scene:
    """Draw a scene that is meant as `label`; how clearly it shows is drawn too, unless it has to be `clear`."""
    under = background.draw(rng, quiet)
    lateral = label in ("lpd", "lrda", "seizure") or (label == "other" and rng.random() < 0.5)
    kind = _kind(rng, label)
    rate_hz = _rate_hz(rng, kind)
    return Scene(
        kind=kind,
        rate_hz=rate_hz,
        focus=_focus(rng, lateral),
        spread=float(rng.uniform(0.3, 0.5) if lateral else rng.uniform(0.5, 0.8)),
        laterality=float(rng.uniform(0.62, 1.0) if lateral else rng.uniform(0.0, 0.3)),
        sharpness=float(rng.uniform(0.6, 1.0) if kind in ("periodic", "seizure") else rng.uniform(0.0, 0.35)),
        evolution=_evolution(rng, kind, rate_hz),
        visibility=max(_visibility(rng, label, kind), 3.0 if clear else 0.0),
        background=under,
    )


def _kind(rng: np.random.Generator, label: str) -> str:
    """A recording of "other" may hold a pattern too, but hardly visible."""
    known = {"seizure": "seizure", "lpd": "periodic", "gpd": "periodic", "lrda": "rhythmic", "grda": "rhythmic"}
    return known.get(label) or str(rng.choice(["none", "periodic", "rhythmic"], p=[0.7, 0.15, 0.15]))


def _rate_hz(rng: np.random.Generator, kind: str) -> float:
    low, high, usual = {"periodic": (0.5, 2.5, 1.0), "rhythmic": (0.7, 3.8, 1.7)}.get(kind, (1.0, 3.0, 2.0))
    return float(np.clip(rng.lognormal(np.log(usual), 0.35), low, high))


def _focus(rng: np.random.Generator, lateral: bool) -> tuple[float, float]:
    side = rng.choice([-1, 1])
    if lateral:
        return float(side * rng.uniform(0.45, 0.9)), float(rng.uniform(-0.55, 0.65))
    return float(side * rng.uniform(0.2, 0.4)), float(rng.uniform(0.3, 0.8))  # frontally predominant


def _evolution(rng: np.random.Generator, kind: str, rate_hz: float) -> float:
    """Fast discharges are on the way to a seizure, and raters say so."""
    if kind == "seizure":
        return float(rng.uniform(0.7, 1.0))
    return float(0.35 * np.clip(rate_hz - 1.3, 0, 1) * rng.random()) if kind == "periodic" else 0.02


def _visibility(rng: np.random.Generator, label: str, kind: str) -> float:
    if kind == "none":
        return 0.0
    if label == "other":
        return float(rng.uniform(0.05, 0.4))
    usual = 5.0 if kind == "rhythmic" else 3.0  # slow waves are large, and the background is slow as well
    return float(rng.lognormal(np.log(usual), 0.5))
