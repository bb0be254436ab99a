"""Run one bench; a bench is a file here with `run(arguments) -> lines`."""

import importlib
import pkgutil
import sys

import bench
from hms_ray.core.errors import UserError
from hms_ray.core.hints import unknown


def names() -> list[str]:
    """Return the benches there are."""
    return sorted(m.name for m in pkgutil.iter_modules(bench.__path__) if not m.name.startswith("_"))


def main(arguments: list[str]) -> int:
    """Run the bench named first and print its lines as they come; return the exit code."""
    if not arguments or arguments[0] not in names():
        asked = unknown("bench", arguments[0], names()) if arguments else f"there are: {', '.join(names())}"
        print(f"usage: python -m bench NAME [options]\n{asked}", file=sys.stderr)
        return 2
    try:
        for line in importlib.import_module(f"bench.{arguments[0]}").run(arguments[1:]):
            print(line, flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
