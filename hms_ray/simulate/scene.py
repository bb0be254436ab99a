"""The pattern and the background of one recording, as numbers: both the waves and the votes are drawn from them."""

from dataclasses import dataclass

import numpy as np

from hms_ray.simulate import background

CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
KINDS = {"seizure": "seizure", "lpd": "periodic", "gpd": "periodic", "lrda": "rhythmic", "grda": "rhythmic"}
RATES_HZ = {  # lowest, highest and median
    "periodic": (0.5, 2.5, 1.0),
    "rhythmic": (0.7, 3.8, 1.7),
    "seizure": (1.0, 3.0, 2.0),
    "none": (1.0, 3.0, 2.0),
}


@dataclass(frozen=True)
class Scene:
    """One recording's pattern and background.

    kind: "seizure", "periodic", "rhythmic", or "none"
    rate_hz: discharges or waves a second; a seizure follows a `patterns.Course` instead
    focus, spread: position on the scalp and width, in head radii
    laterality: 1 one side only, 0 both sides equally
    sharpness: 1 a spike, 0 a rounded wave
    evolution: similarity to a seizure, 0 to 1
    visibility: ratio of the pattern's amplitude to the background's; below about .7 it is hard to see
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
    """Draw a scene of the class `label`; quiet: a weak background; clear: a visibility of 3 or more.

    A scene of "other" may hold a pattern too, but a hardly visible one.
    """
    under = background.draw(rng, quiet)
    lateral = label in ("lpd", "lrda", "seizure") or (label == "other" and rng.random() < 0.5)
    kind = KINDS.get(label) or str(rng.choice(["none", "periodic", "rhythmic"], p=[0.7, 0.15, 0.15]))
    low_hz, high_hz, median_hz = RATES_HZ[kind]
    rate_hz = float(np.clip(rng.lognormal(np.log(median_hz), 0.35), low_hz, high_hz))
    side = rng.choice([-1, 1])
    xs, ys = ((0.45, 0.9), (-0.55, 0.65)) if lateral else ((0.2, 0.4), (0.3, 0.8))  # both sides: mostly frontal
    focus = float(side * rng.uniform(*xs)), float(rng.uniform(*ys))
    spread = rng.uniform(0.3, 0.5) if lateral else rng.uniform(0.5, 0.8)
    laterality = rng.uniform(0.62, 1.0) if lateral else rng.uniform(0.0, 0.3)
    sharpness = rng.uniform(0.6, 1.0) if kind in ("periodic", "seizure") else rng.uniform(0.0, 0.35)
    evolution, visibility = 0.02, 0.0
    if kind == "seizure":
        evolution = float(rng.uniform(0.7, 1.0))
    elif kind == "periodic":  # fast discharges may develop into a seizure, and some raters vote for one
        evolution = float(0.35 * np.clip(rate_hz - 1.3, 0, 1) * rng.random())
    if kind != "none" and label == "other":
        visibility = float(rng.uniform(0.05, 0.4))
    elif kind != "none":  # slow waves are large, and the background is slow as well
        visibility = float(rng.lognormal(np.log(5.0 if kind == "rhythmic" else 3.0), 0.5))
    visibility = max(visibility, 3.0 if clear else 0.0)
    return Scene(kind, rate_hz, focus, float(spread), float(laterality), float(sharpness), evolution, visibility, under)
