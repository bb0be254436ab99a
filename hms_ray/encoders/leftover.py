"""Find superfluous tensors in a file of weights: those of a deeper network fit, but belong to another network."""

import logging
import re
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

TIMM = logging.getLogger("timm.models._builder")
UNEXPECTED = re.compile(r"Unexpected keys \((.*)\) found while loading")


def besides(file_names: Iterable[str], names: Iterable[str], ends: Collection[str] = ()) -> set[str]:
    """Return the tensors of a file that the network lacks, in parts that it has; names: of the network's tensors.

    ends: parts that may differ, such as heads; parts that the network lacks are heads of other networks
    """
    names = set(names)
    parts = {name.partition(".")[0] for name in names} - set(ends)
    return {name for name in file_names if name.partition(".")[0] in parts and name not in names}


def some(names: Iterable[str]) -> str:
    """Return the first name, and the number of the others."""
    first, *others = sorted(names)
    return f"{first!r}" + (f" and {len(others)} more" if others else "")


@contextmanager
def unexpected_by_timm() -> Iterator[list[str]]:
    """Yield the names of tensors that timm did not use after its own renaming, which it reports only in a warning.

    The warning, with up to a thousand names, is suppressed: the caller reports a short error.
    """
    collector, level = _Collector(), TIMM.level
    TIMM.addFilter(collector)
    TIMM.setLevel(min(TIMM.getEffectiveLevel(), logging.WARNING))  # else a higher level would hide the warning
    try:
        yield collector.names
    finally:
        TIMM.setLevel(level)
        TIMM.removeFilter(collector)


class _Collector(logging.Filter):
    """Collects the names in timm's warnings of this thread, and drops these warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        match = UNEXPECTED.match(record.getMessage())
        if not match or record.thread != self.thread:
            return True
        self.names += match[1].split(", ")
        return False
