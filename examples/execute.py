"""Execute the notebooks and write their outputs anew: `python examples/execute.py [NAME.ipynb ...]`.

A notebook runs in an empty temporary folder, with a cache of its own and one thread. What differs from run to run
(execution counts, timestamps, progress lines, paths of temporary files) is not kept.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
TIMEOUT_S = 300  # a cell that takes longer fails
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Return the notebook with the outputs of a run in that folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    own = {"HMS_RAY_CACHE": "cache", "IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "runtime"}
    with _environment(ENVIRONMENT | {name: str(folder / own[name]) for name in own}):
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        return stripped(client.execute())


def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook without what differs from run to run."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                for name, value in {"metadata": {}, "execution_count": None}.items():
                    if name in output:
                        output[name] = value
    return notebook


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook as it is committed."""
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main(names: list[str]) -> None:
    """Execute these notebooks, or all."""
    for path in [FOLDER / name for name in names] or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            write(execute(nbformat.read(path, as_version=4), Path(folder)), path)
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
