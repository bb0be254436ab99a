"""`hms-ray prepare`: read the data once and keep the features of a space."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hms_ray.crossval import prepare_feature
from hms_ray.search.space import Space
from hms_ray.search.study import load_dataset, variants


def prepare(spaces: Sequence[Space], root: Path) -> list[Path]:
    """Prepare the features of every base run and of each choice of a feature; return the stores' folders."""
    stores = {}
    for space in spaces:
        dataset = load_dataset(root, space.run)
        for run in variants(space):
            stores[prepare_feature(dataset, run)] = None
    return list(stores)


if __name__ == "__main__":
    from hms_ray.cli import main

    sys.exit(main(["prepare", *sys.argv[1:]]))
