"""One seed fans out to named random streams, so that adding a consumer never shifts another's numbers."""

import hashlib

import numpy as np

from hms_ray.core.errors import ConfigError

MAX_SEED = 2**32 - 1


def check_seed(seed: int) -> int:
    """Return the seed if it is a whole number in 0 ... 2^32 - 1; beyond that, libraries wrap or truncate silently."""
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
