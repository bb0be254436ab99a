"""Which code made a study: a fingerprint of each source file that decides about numbers."""

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
        FileNotFoundError: a file was moved and its name here was not; its changes would go unnoticed.
    """
    paths = [path for name in names for path in sorted((PACKAGE / name).rglob("*.py")) or [PACKAGE / name]]
    return {str(path.relative_to(PACKAGE)): files.fingerprint(path.read_bytes()) for path in paths}


def fingerprint() -> str:
    """Return one fingerprint of what trains a fold; a checkpoint of other code is not continued."""
    return files.fingerprint(files_of_code(TRAINING))


def differing(known: Mapping[str, str]) -> list[str]:
    """Return the files that were changed or removed since; new ones are no difference, as they were not used."""
    return [path for path, mark in known.items() if files_of_code().get(path) != mark]
