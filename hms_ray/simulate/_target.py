"""Check the folder that a simulation is written to. train.csv is written last: without it, a folder is incomplete."""

from pathlib import Path


def faults(out: Path, recordings: str) -> list[str]:
    """Return why a folder cannot be written to; recordings: the folder in it that is written first."""
    if not out.exists():
        return []
    if not out.is_dir():
        return [f"{out} is a file, not a folder"]
    if not any(out.iterdir()):
        return []
    if (out / recordings).is_dir() and not (out / "train.csv").exists():
        return [f"{out} holds a simulation that was interrupted (it has no train.csv): delete it, then run again"]
    return [f"{out} is not empty: name a new folder"]
