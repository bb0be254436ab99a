"""What can go wrong, drawn as a tree; the type says who acts.

HmsRayError
├── UserError           the person at the keyboard mends it; exit code 2, no traceback
│   ├── ConfigError     a space, an option or a study does not fit; nothing has started
│   └── DataError       a file is missing, broken or says something impossible
├── TrialFailed         one configuration could not be trained; the search goes on
└── SearchAborted       the search cannot go on; what is finished stays finished
"""

import re
from collections.abc import Iterable
from typing import Any

LISTED = 20  # faults of one message
LONGEST = 1000  # characters of a fault: one that quotes a file's content is cut


class HmsRayError(Exception):
    """Root of every error this package raises on purpose."""


class UserError(HmsRayError):
    """Something the user can mend: one clear sentence, exit code 2."""


class ConfigError(UserError):
    """A space, an option or a study folder does not fit; nothing has started."""


class DataError(UserError):
    """A file is missing, broken, or holds values that cannot be."""


class TrialFailed(HmsRayError):
    """One configuration could not be trained; the search goes on without it."""


class SearchAborted(HmsRayError):
    """The search cannot go on; everything finished is in the study folder."""


def shown(value: Any, limit: int = 120) -> str:
    """Return a value as a message quotes it: its repr, cut where it is longer than `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]} ..."


def without_secrets(text: str) -> str:
    """Return a text without what its addresses say of who asks: names, passwords, queries and fragments."""
    text = re.sub(r"(://[^\s?#'\"]*)[?#][^\s'\"]*", r"\1?...", text)
    return re.sub(r"(?<=://)[^/\s'\"]*@", "", text)


def raise_all(faults: Iterable[str], error: type[UserError], heading: str) -> None:
    """Raise one `error` that lists the faults under `heading`, the first of many; do nothing when there is none."""
    faults = [fault if len(fault) <= LONGEST else f"{fault[:LONGEST]} ..." for fault in faults]
    if len(faults) == 1:
        raise error(f"{heading}: {faults[0]}")
    if faults:
        more = [f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        listed = "\n".join(f"  - {fault}" for fault in [*faults[:LISTED], *more])
        raise error(f"{heading}: {len(faults)} faults\n{listed}")
