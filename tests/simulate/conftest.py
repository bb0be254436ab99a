"""One small simulated folder that the tests here read."""

from pathlib import Path

import pytest

from hms_ray.simulate import simulate

EEGS, PATIENTS = 12, 6


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 EEGs of 6 patients from seed 0."""
    out = tmp_path_factory.mktemp("simulated") / "hms"
    simulate(out, EEGS, PATIENTS, seed=0)
    return out
