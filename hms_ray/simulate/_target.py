"""The folder that a simulation is written into: train.csv comes last, so that what has none is not whole."""

from pathlib import Path


def faults(out: Path, recordings: str) -> list[str]:
    """Say why a folder cannot be written into; recordings: the folder in it that is written first."""
    if not out.exists():
        return []
    if not out.is_dir():
        return [f"{out} is a file, not a folder"]
    if not any(out.iterdir()):
        return []
    if (out / recordings).is_dir() and not (out / "train.csv").exists():
        return [f"{out} holds a simulation that was interrupted (it has no train.csv): delete it, then run again"]
    return [f"{out} is not empty: name a new folder"]
