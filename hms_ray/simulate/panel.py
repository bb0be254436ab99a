"""Simulated raters: panels of few, biased raters ("few", "wide"), and an expert panel of many careful raters.

All rate the same scene. The ideal answer depends on its visible properties: with a pattern near the background's
amplitude the votes are split with "other", with a half lateralised one between LPD and GPD, and so on.
"""

import numpy as np

from hms_ray.simulate.scene import CLASSES, Scene

# Shares of intended classes: few votes went to recordings picked for suspected seizures, many votes to a general sample
POPULATION = {
    "few": (0.04, 0.20, 0.16, 0.04, 0.06, 0.50),
    "wide": (0.46, 0.13, 0.06, 0.09, 0.07, 0.19),
    "expert": (0.05, 0.17, 0.12, 0.12, 0.12, 0.42),
}
SHARES = {"few": 0.22, "wide": 0.36, "expert": 0.42}  # of recordings; the real ones are .28, .43, .30
VOTES = {"few": (1, 2), "wide": (3, 7), "expert": (10, 20)}
_COUNT_SHARES = {"few": (0.62, 0.38), "wide": (0.74, 0.09, 0.13, 0.03, 0.01), "expert": (1 / 11,) * 11}

# Rows: the ideal answer; columns: the answer of a rater of that panel. The wide panel was asked to look for
# seizures, sees delta where there is none, and confuses one side with both; panels of one or two prefer "other"
_BIAS = {
    "few": np.array(
        [
            [0.60, 0.08, 0.06, 0.02, 0.04, 0.20],
            [0.03, 0.56, 0.16, 0.03, 0.02, 0.20],
            [0.03, 0.16, 0.53, 0.02, 0.06, 0.20],
            [0.04, 0.14, 0.04, 0.40, 0.16, 0.22],
            [0.03, 0.04, 0.12, 0.13, 0.46, 0.22],
            [0.04, 0.05, 0.05, 0.03, 0.05, 0.78],
        ]
    ),
    "wide": np.array(
        [
            [0.80, 0.05, 0.02, 0.03, 0.05, 0.05],
            [0.24, 0.50, 0.12, 0.03, 0.03, 0.08],
            [0.16, 0.12, 0.50, 0.02, 0.13, 0.07],
            [0.17, 0.10, 0.02, 0.38, 0.27, 0.06],
            [0.12, 0.02, 0.10, 0.08, 0.61, 0.07],
            [0.18, 0.05, 0.03, 0.05, 0.16, 0.53],
        ]
    ),
    "expert": np.eye(len(CLASSES)),
}
_AGREEMENT = {"few": 1.2, "wide": 0.8, "expert": 10.0}  # Dirichlet concentration; raters of a low one agree
_SLIPS = np.array([0.10, 0.22, 0.14, 0.14, 0.20, 0.20])  # distribution of the experts' errors


def truth(scene: Scene, presence: float = 1.0) -> np.ndarray:
    """Return the answers of ideal raters, shares (K,) that sum to 1.

    presence: the pattern's amplitude in the labelled 10 s, as a multiple of the scene's visibility
    """
    seen = _logistic((np.log(scene.visibility * presence + 1e-6) - np.log(0.8)) / 0.6)
    sharp = _logistic((scene.sharpness - 0.48) / 0.08)
    lateral = _logistic((scene.laterality - 0.46) / 0.1)
    calm = 1 - scene.evolution
    pattern = [scene.evolution, calm * sharp * lateral, calm * sharp * (1 - lateral)]
    pattern += [calm * (1 - sharp) * lateral, calm * (1 - sharp) * (1 - lateral), 0.0]
    other = np.eye(len(CLASSES))[-1]
    return 0.82 * (seen * np.array(pattern) + (1 - seen) * other) + 0.18 * _SLIPS


def vote(rng: np.random.Generator, panel: str, ideal: np.ndarray) -> np.ndarray:
    """Return the vote counts (K,) of one period by the panel "few", "wide" or "expert"."""
    low, high = VOTES[panel]
    count = rng.choice(np.arange(low, high + 1), p=_COUNT_SHARES[panel])
    return rng.multinomial(count, rng.dirichlet(_AGREEMENT[panel] * (ideal @ _BIAS[panel])))


def _logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(x, -60, 60))))
