"""Where the files of spaces lie; imports nothing heavy, so that a list of them is quick."""

from importlib import resources
from pathlib import Path

from hms_ray import registry
from hms_ray.core import hints
from hms_ray.core.errors import ConfigError


def known() -> dict[str, Path]:
    """Return the file of each space that has a name: in ./search_spaces, or carried by this or another package."""
    own = {path.stem: path for folder in reversed(folders()) for path in sorted(folder.glob("*.yaml"))}
    return registry.space_files() | own


def folders() -> list[Path]:
    """Return where names are looked up, the first wins."""
    package = Path(str(resources.files("hms_ray")))
    return [Path("search_spaces"), package.parent / "search_spaces", package / "search_spaces"]


def find(name: str) -> Path:
    """Return the file of a space: a path, a name in ./search_spaces, or one that an installed package carries.

    Raises:
        ConfigError: there is none, the message lists the known names; or two packages carry one of that name.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            hint = hints.hint(Path(name).stem, known())
            raise ConfigError(f"--space {name}: no such file{hint}")
        return Path(name)
    if "/" in name and Path(f"{name}.yaml").is_file():
        raise ConfigError(f"--space {name}: a file needs its ending: {name}.yaml")
    spaces = known()
    local, *installed = folders()
    if not (local / f"{name}.yaml").is_file():
        own = ["hms_ray itself"] if any((folder / f"{name}.yaml").is_file() for folder in installed) else []
        if len(where := own + registry.places("spaces", name)) > 1:
            raise ConfigError(f"two spaces are named {name!r}: {' and '.join(where)}; uninstall one")
        if where and not own and (name not in spaces or not spaces[name].is_file()):
            raise ConfigError(f"space {name} of {where[0]}: there is no {name}.yaml in the folder of that package")
    if name not in spaces:
        raise ConfigError(hints.unknown("space", name, sorted(spaces)))
    return spaces[name]


def dataset(path: Path) -> str | None:
    """Return the data set that a space names, of a union that of its first space; None where it cannot be told yet.

    The file is not checked here: whatever is wrong with it is told when it is loaded.
    """
    from hms_ray.core.plain_yaml import load_yaml

    content: object = load_yaml(path)
    spaces = _at(content, "spaces")
    if isinstance(spaces, list) and spaces and isinstance(spaces[0], str) and spaces[0] in known():
        content = load_yaml(known()[spaces[0]])
    name = _at(_at(_at(content, "base"), "data"), "name")
    return name if isinstance(name, str) else None


def _at(content: object, key: str) -> object:
    return content.get(key) if isinstance(content, dict) else None
