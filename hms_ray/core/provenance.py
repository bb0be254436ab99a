"""Fingerprints of the source files that determine the numbers of a study."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from hms_ray.core import files

TRAINING = (
    *("core/seeds.py", "core/files.py", "core/recordings.py", "core/specs.py", "tasks", "datasets", "study/folds.py"),
    *("store", "encoders", "features", "augment", "models", "study/epoch_selection.py", "training"),
)
DECIDING = (
    *TRAINING,
    "ensemble/mixture.py",
    "ensemble/terms.py",
    "ensemble/pools/linear.py",
    *("search/optuna", "search/pruning", "search/queue.py", "search/space/ranges.py", "study/trial_store.py"),
)
PACKAGE = Path(__file__).parents[1]


@cache
def files_of_code(names: tuple[str, ...] = DECIDING) -> dict[str, str]:
    """Return the fingerprint of each such file by its path inside the package.

    Raises:
        FileNotFoundError: a file was moved, and the list here was not changed.
    """
    paths = [path for name in names for path in sorted((PACKAGE / name).rglob("*.py")) or [PACKAGE / name]]
    return {str(path.relative_to(PACKAGE)): files.fingerprint(path.read_bytes()) for path in paths}


def fingerprint() -> str:
    """Return the fingerprint of the code that trains a fold; a checkpoint of other code is not resumed."""
    return files.fingerprint(files_of_code(TRAINING))


def differing(known: Mapping[str, str]) -> list[str]:
    """Return the files that were changed or removed since; new files do not count, because they were not used."""
    return [path for path, mark in known.items() if files_of_code().get(path) != mark]
