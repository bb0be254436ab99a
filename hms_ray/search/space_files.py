"""Where the files of spaces lie; imports nothing heavy, so that a list of them is quick."""

from importlib import resources
from pathlib import Path


def known() -> dict[str, Path]:
    """Return the file of each space that has a name: in ./search_spaces, or carried by the installed package."""
    return {path.stem: path for folder in reversed(folders()) for path in sorted(folder.glob("*.yaml"))}


def folders() -> list[Path]:
    """Return where names are looked up, the first wins."""
    package = Path(str(resources.files("hms_ray")))
    return [Path("search_spaces"), package.parent / "search_spaces", package / "search_spaces"]
