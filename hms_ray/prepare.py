"""`hms-ray prepare`: read the data once and keep what the runs of a space read."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hms_ray.crossval import prepare_inputs
from hms_ray.search.space import Space
from hms_ray.search.study import load_dataset, variants
from hms_ray.store.workers import Workers


def prepare(spaces: Sequence[Space], root: Path, workers: Workers | None = None) -> list[Path]:
    """Prepare what every base run reads, and each choice of a feature; return the stores' folders."""
    stores = {}
    for space in spaces:
        dataset = load_dataset(root, space.run)
        for run in variants(space):
            stores |= dict.fromkeys(store.path for store in prepare_inputs(dataset, run, workers))
    return list(stores)


if __name__ == "__main__":
    from hms_ray.cli import main

    sys.exit(main(["prepare", *sys.argv[1:]]))
