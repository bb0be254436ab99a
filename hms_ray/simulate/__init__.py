"""Simulate realistic recordings in the layout of the competition, from a seed."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError, raise_all
from hms_ray.simulate import _target, folder, plan
from hms_ray.simulate.heart_folder import simulate_hearts

__all__ = ["simulate", "simulate_hearts"]

MIN_PATIENTS = 6  # one more than the five folds by patient


def simulate(
    out: Path,
    eegs: int = 240,
    patients: int = 60,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `eegs` labelled EEGs of `patients` patients, and a tenth as many without labels, into the folder `out`.

    The same arguments give the same bytes, with the same versions of the libraries on the same kind of processor.

    progress: called with (recordings written, recordings in all)

    Raises:
        ConfigError: the numbers do not fit together, or `out` is not empty; nothing has been written.
    """
    out = Path(out)
    seeds.check_seed(seed)
    raise_all(
        [*_number_faults(eegs, patients), *_target.faults(out, "train_spectrograms")], ConfigError, "cannot simulate"
    )
    train = plan.labelled(seed, eegs, patients)
    test = plan.unlabelled(seed, max(1, round(eegs / 10)), {planned.patient_id for planned in train})
    jobs = [("train", i, planned) for i, planned in enumerate(train)]
    jobs += [("test", i, planned) for i, planned in enumerate(test)]
    rows: dict[str, list[pd.DataFrame]] = {"train": [], "test": []}
    for done, (part, index, planned) in enumerate(jobs, start=1):
        rows[part].append(folder.write_recording(out, part, seed, index, planned))
        if progress is not None:
            progress(done, len(jobs))
    folder.write_tables(out, seed, rows["train"], rows["test"])


def _number_faults(eegs: int, patients: int) -> list[str]:
    faults = [
        f"{name} must be a whole number, but got {value!r}"
        for name, value in (("eegs", eegs), ("patients", patients))
        if isinstance(value, bool) or not isinstance(value, int)
    ]
    if not faults and patients < MIN_PATIENTS:
        faults.append(f"patients must be at least {MIN_PATIENTS}, to fill five folds, but got {patients}")
    if not faults and eegs < patients:
        faults.append(f"eegs must be at least as many as patients, but got {eegs} eegs for {patients} patients")
    return faults
