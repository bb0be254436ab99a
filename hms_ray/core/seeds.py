"""Named random streams from one seed: a new stream does not change the numbers of the others."""

import hashlib

import numpy as np

from hms_ray.core.errors import ConfigError

MAX_SEED = 2**32 - 1


def check_seed(seed: int) -> int:
    """Return the seed if it is a whole number in 0 ... 2^32 - 1; libraries silently truncate larger ones."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed must be a whole number from 0 to {MAX_SEED}, but got {seed!r}")
    return seed


def derive(seed: int, *path: str | int) -> int:
    """Return a 32-bit seed for the stream named by `path`, e.g. derive(0, "trial", 3, "fold", 1, "augment")."""
    words = "/".join(map(str, (check_seed(seed), *path)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=4).digest(), "little")


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """Return the NumPy generator of the stream named by `path`."""
    return np.random.default_rng(derive(seed, *path))
