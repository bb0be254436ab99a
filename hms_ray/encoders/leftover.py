"""What a file of weights has besides those of a network: a deeper sibling's fill the network, but are another's."""

import logging
import re
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

TIMM = logging.getLogger("timm.models._builder")
UNEXPECTED = re.compile(r"Unexpected keys \((.*)\) found while loading")


def besides(found: Iterable[str], wanted: Iterable[str], ends: Collection[str] = ()) -> set[str]:
    """Return the names that lie in the network's own parts although it has no such tensors.

    ends: parts that may differ: heads, and what is cut off; parts that the network lacks are others' heads as well
    """
    own, wanted = {_part(name) for name in wanted} - set(ends), set(wanted)
    return {name for name in found if _part(name) in own and name not in wanted}


def some(names: Iterable[str]) -> str:
    """Return the first of names, and how many there are besides."""
    first, *others = sorted(names)
    return f"{first!r}" + (f" and {len(others)} more" if others else "")


@contextmanager
def unexpected_by_timm() -> Iterator[list[str]]:
    """Yield the names that timm found no place for after its own renaming, which it tells in a warning only.

    The warning is kept back: it names a thousand tensors, and who asks for them has a sentence.
    """
    ear, level = _Ear(), TIMM.level
    TIMM.addFilter(ear)
    TIMM.setLevel(min(TIMM.getEffectiveLevel(), logging.WARNING))  # else one who wants silence would go unchecked
    try:
        yield ear.names
    finally:
        TIMM.setLevel(level)
        TIMM.removeFilter(ear)


class _Ear(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        found = UNEXPECTED.match(record.getMessage())
        if not found or record.thread != self.thread:
            return True
        self.names += found[1].split(", ")
        return False


def _part(name: str) -> str:
    return name.partition(".")[0]
