"""One seed, many streams; the same name gives the same numbers everywhere, for ever."""

import subprocess
import sys

import numpy as np
import pytest

from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError


def test_a_stream_repeats() -> None:
    a, b = (seeds.stream(7, "trial", 3, "augment").random(5) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_streams_of_other_names_or_seeds_differ() -> None:
    drawn = {
        seeds.derive(seed, *path)
        for seed in (0, 1, seeds.MAX_SEED)
        for path in [(), ("a",), ("b",), ("a", 0), ("a", 1), (0, "a")]
    }
    assert len(drawn) == 18


def test_a_known_value_holds_in_another_process_and_hash_seed() -> None:
    code = "from hms_ray.core import seeds; print(seeds.derive(0, 'trial', 3))"
    here = seeds.derive(0, "trial", 3)
    there = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "5", "PYTHONPATH": ":".join(sys.path)}, capture_output=True
    )
    assert int(there.stdout) == here == 1418770916


def test_derived_seeds_are_seeds_again_and_spread_evenly() -> None:
    drawn = np.array([seeds.derive(0, n) for n in range(4000)])
    assert drawn.min() >= 0 and drawn.max() <= seeds.MAX_SEED
    counts = np.histogram(drawn, 16, (0, 2**32))[0]
    assert ((counts - 250) ** 2 / 250).sum() < 37.7  # chi-squared, 15 degrees of freedom, p = .001


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_the_ends_of_the_range_are_seeds(seed: int) -> None:
    assert seeds.check_seed(seed) == seed


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40, 1.0, "0", None, True, float("nan")])
def test_anything_else_is_refused_with_the_range(seed: object) -> None:
    with pytest.raises(ConfigError, match="whole number from 0 to 4294967295"):
        seeds.derive(seed, "trial")
