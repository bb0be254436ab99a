"""`hms-ray prepare`: read the data once and keep what the runs of a space read."""

from collections.abc import Sequence
from pathlib import Path

from hms_ray.core import files
from hms_ray.search.open_study import load_dataset, variants
from hms_ray.search.space.space import Space
from hms_ray.store.workers import Workers
from hms_ray.training.inputs import prepare_runs
from hms_ray.training.run_config import RunConfig


def prepare(spaces: Sequence[Space], root: Path, workers: Workers | None = None) -> list[Path]:
    """Prepare what every base run reads, and each choice of a feature; return the stores' folders."""
    by_data: dict[str, list[RunConfig]] = {}
    for space in spaces:
        by_data.setdefault(files.fingerprint(space.run.data.dump()), []).extend(variants(space))
    stores = {}
    for runs in by_data.values():  # spaces of the same rows read each recording once
        for made in prepare_runs(load_dataset(root, runs[0]), runs, workers):
            stores |= dict.fromkeys(store.path for store in made)
    return list(stores)
