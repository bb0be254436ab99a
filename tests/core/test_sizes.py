"""Bytes in words: never 0.0 of a unit."""

import pytest

from hms_ray.core.sizes import in_words


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_940, "999.9 kB"),
        (999_960, "1.0 MB"),
        (3_440_000, "3.4 MB"),
        (12 * 10**9, "12.0 GB"),
        (7 * 10**15, "7000.0 TB"),
    ],
)
def test_a_size_is_in_a_unit_that_shows_it(count, expected):
    assert in_words(count) == expected
