"""The house stands: imports go downward only, and the heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "hms_ray"
# Lowest floor first. A room may import rooms of lower floors; rooms of one floor only where no circle arises.
FLOORS = (
    ("core",),
    ("contracts",),
    ("registry",),
    ("tasks",),
    ("simulate", "augment", "encoders", "datasets"),
    ("features", "models"),
    ("store",),
    ("study",),
    ("training",),
    ("execution",),
    ("ensemble", "oof_import"),
    ("search",),
    ("inference", "report"),
    ("api", "catalogue"),
    ("cli", "__init__", "train", "predict", "prepare"),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
GROUND = {"core", "contracts", "registry"}
# Rooms that see less than their floor allows.
NARROW = {
    "simulate": GROUND,
    "study": GROUND | {"tasks"},
    "ensemble": GROUND | {"study", "tasks"},
    "oof_import": GROUND | {"study", "tasks"},
    "report": GROUND | {"study", "tasks", "store", "ensemble"},
}
# Library -> the only rooms that import it, and library -> rooms that never do.
ONLY_IN = {"ray": {"execution", "search"}, "transformers": {"encoders", "models"}}
NEVER_IN = {"torch": GROUND | {"simulate", "study", "oof_import", "ensemble", "report", "catalogue"}}

Import = tuple[str, bool]  # (dotted name, is it for the type checker only)


def breaches(root: Path) -> list[str]:
    """Return a sentence for each import below `root` (the package's folder) that breaks the house's rules."""
    found, edges = [], {}
    for path in sorted(root.rglob("*.py")):
        here = path.relative_to(root)
        room = here.with_suffix("").parts[0]
        if room == "__main__":
            continue
        if room not in LEVEL:
            found.append(f"{here}: unknown room {room!r}; give it a floor")
            continue
        for name, typing_only in _imports(path, root):
            library, _, rest = name.partition(".")
            if library != PACKAGE:
                found += [] if typing_only else _library_breaches(here, room, library)
            elif (target := rest.partition(".")[0]) not in ("", "__version__", room):
                edges.setdefault(room, set()).add(target)
                found += _floor_breaches(here, room, target)
    return found + [f"circle: {a} <-> {b}" for a, b in sorted(_circles(edges))]


def _floor_breaches(here: Path, room: str, target: str) -> Iterator[str]:
    if target not in LEVEL:
        yield f"{here}: imports unknown room {target!r}; give it a floor"
    elif LEVEL[target] > LEVEL[room]:
        yield f"{here}: {room} imports {target}, which is above it"
    elif target not in NARROW.get(room, LEVEL):
        yield f"{here}: {room} imports {target}; it may see only {', '.join(sorted(NARROW[room]))}"


def _library_breaches(here: Path, room: str, library: str) -> Iterator[str]:
    if room not in ONLY_IN.get(library, {room}):
        yield f"{here}: imports {library}, which belongs to {', '.join(sorted(ONLY_IN[library]))}"
    if room in NEVER_IN.get(library, ()):
        yield f"{here}: imports {library}, which {room} does without"


def _imports(path: Path, root: Path) -> Iterator[Import]:
    """Yield what a file imports, relative names made absolute; the block that runs it as a program is left out."""
    module = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {id(node) for block in tree.body if _tests(block, "TYPE_CHECKING") for node in ast.walk(block)}
    skipped = {id(node) for block in tree.body if _tests(block, "__name__") for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) not in skipped and path.name != "__main__.py":
            for name in _names(node, module):
                yield name, id(node) in typing_only


def _tests(block: ast.stmt, name: str) -> bool:
    """Say whether the statement is an `if` that asks for `name`."""
    return isinstance(block, ast.If) and name in ast.unparse(block.test)


def _names(node: ast.AST, module: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = ".".join([*module[: -node.level], *filter(None, [node.module])]) if node.level else node.module
    return [f"{base}.{alias.name}" for alias in node.names]


def _circles(edges: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Return the pairs of rooms that reach each other."""
    reach = {room: _reachable(room, edges) for room in edges}
    return {(a, b) for a in reach for b in reach if a < b and b in reach[a] and a in reach[b]}


def _reachable(room: str, edges: dict[str, set[str]]) -> set[str]:
    seen, todo = set(), [room]
    while todo:
        new = edges.get(todo.pop(), set()) - seen
        seen |= new
        todo += new
    return seen


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@cache
def _loaded_by(modules: tuple[str, ...]) -> set[str]:
    """Return the top-level libraries in memory after a fresh process imported these modules."""
    program = f"import sys, importlib\nfor m in {modules}: importlib.import_module(m)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def _modules(repository: Path, room: str) -> list[str]:
    folder = repository / PACKAGE / room
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    dotted = [".".join(path.relative_to(repository).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in dotted if not name.endswith(".__main__")]


def test_the_house_has_no_breach(repository: Path) -> None:
    found = breaches(repository / PACKAGE)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("tasks/votes.py", "from hms_ray import search", "tasks imports search, which is above it"),
        ("tasks/votes.py", "from hms_ray.search.driver import run", "tasks imports search, which is above it"),
        ("tasks/votes.py", "from ..search import driver", "tasks imports search, which is above it"),
        ("tasks/__init__.py", "from .. import search", "tasks imports search, which is above it"),
        ("tasks/votes.py", "def f():\n    import hms_ray.cli", "tasks imports cli, which is above it"),
        ("ensemble/greedy.py", "from hms_ray import store", "ensemble imports store; it may see only"),
        ("simulate/scalp.py", "from hms_ray import tasks", "simulate imports tasks; it may see only"),
        ("api.py", "from hms_ray.cli import main", "api imports cli, which is above it"),
        ("kitchen.py", "", "unknown room 'kitchen'; give it a floor"),
        ("cli.py", "from hms_ray import kitchen", "imports unknown room 'kitchen'"),
        ("training/loop.py", "import ray.tune", "imports ray, which belongs to execution, search"),
        ("features/store.py", "import transformers", "imports transformers, which belongs to encoders, models"),
        ("report/page.py", "from torch import nn", "imports torch, which report does without"),
        ("ensemble/greedy.py", "def f():\n    import torch", "imports torch, which ensemble does without"),
    ],
)
def test_a_breach_is_named(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    found = breaches(_tree(tmp_path, {file: text}))
    assert len(found) == 1
    assert found[0].startswith(file)
    assert sentence in found[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("search/driver.py", "import ray\nimport torch\nfrom hms_ray import execution, registry"),
        (
            "ensemble/blend.py",
            "from hms_ray.study.oof import OofTable\nfrom . import nested\nfrom .. import core",
        ),
        ("report/page.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("training/loop.py", "if __name__ == '__main__':\n    from hms_ray.cli import console"),
        ("search/__main__.py", "from hms_ray.cli import console"),
        ("search/__init__.py", "from hms_ray import __version__"),
    ],
)
def test_what_is_allowed_is_no_breach(tmp_path: Path, file: str, text: str) -> None:
    assert breaches(_tree(tmp_path, {file: text})) == []


def test_type_checking_does_not_excuse_a_floor(tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hms_ray.cli import main"
    assert breaches(_tree(tmp_path, {"tasks/votes.py": text})) == [
        "tasks/votes.py: tasks imports cli, which is above it"
    ]


def test_a_circle_on_one_floor_is_named(tmp_path: Path) -> None:
    files = {"augment/a.py": "from hms_ray import encoders", "encoders/b.py": "from hms_ray import datasets"}
    files["datasets/c.py"] = "from hms_ray import augment"
    expected = ["circle: augment <-> datasets", "circle: augment <-> encoders", "circle: datasets <-> encoders"]
    assert breaches(_tree(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("room", "library"),
    [
        ("ensemble", "torch"),
        ("ensemble", "ray"),
        ("report", "torch"),
        ("report", "ray"),
        ("inference", "ray"),
        ("catalogue", "torch"),
    ],
)
def test_a_room_does_without_a_library_at_run_time(repository: Path, room: str, library: str) -> None:
    modules = _modules(repository, room)
    assert modules
    assert library not in _loaded_by(tuple(modules))


LIGHT = {"torch", "ray", "optuna", "timm", "transformers", "sklearn"}  # what a verb that trains nothing does without


def _loaded_by_verb(argv: list[str], code: int) -> set[str]:
    """Return the top-level libraries in memory after a fresh process ran a verb, which ended with that status."""
    program = f"import sys\nfrom hms_ray.cli import main\ncode = main({argv!r})\nprint(code, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()[-1].split()
    assert found[0] == str(code), done.stderr
    return {name.partition(".")[0] for name in found[1:]}


@pytest.mark.parametrize(
    ("argv", "without"),
    [
        (["report", "--study", "none"], {"pandas", "pyarrow", "scipy", "numpy"}),
        (["predict", "--study", "none", "--out", "a.csv"], {"pandas", "pyarrow", "scipy", "numpy"}),
        (["ensemble", "--study", "none"], {"pandas", "pyarrow", "scipy"}),
        (["search", "--space", "dmeo"], {"pandas", "pyarrow", "scipy", "numpy", "pydantic"}),
        (["search", "--space", "demo", "--data", "none"], {"soundfile"}),
        (["train", "--space", "demo", "--folds", "1"], {"pandas", "pyarrow", "scipy", "numpy", "pydantic"}),
        (["prepare", "--space", "demo", "--data", "none"], set()),
    ],
)
def test_what_is_not_there_is_told_before_anything_large_is_imported(argv: list[str], without: set[str]) -> None:
    assert not _loaded_by_verb(argv, 2) & (LIGHT | without)


def test_the_command_line_begins_without_the_libraries() -> None:
    assert not _loaded_by(("hms_ray.cli",)) & (LIGHT | {"numpy", "pandas", "pyarrow", "scipy", "pydantic"})


@pytest.mark.parametrize("module", ["report.page", "study.trials_table", "study.journal_records"])
def test_a_report_is_written_without_what_trains_and_searches(module: str) -> None:
    assert not _loaded_by((f"hms_ray.{module}",)) & LIGHT


@pytest.mark.parametrize("module", ["events", "controller"])
def test_processes_that_only_hand_on_do_without_torch(module: str) -> None:
    assert "torch" not in _loaded_by((f"hms_ray.execution.{module}",))


def test_loaded_libraries_are_seen() -> None:
    assert "json" in _loaded_by(("json.decoder",))
    assert "wave" not in _loaded_by(("json.decoder",))
