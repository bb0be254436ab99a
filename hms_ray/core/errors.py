"""The errors of this package as a tree; the type of an error determines who acts.

HmsRayError
├── UserError           the user corrects it; exit code 2, no traceback
│   ├── ConfigError     a space, an option or a study is invalid; nothing has started
│   └── DataError       a file is missing, broken or has impossible values
├── TrialFailed         one configuration could not be trained; the search continues
└── SearchAborted       the search cannot continue; finished work is kept
"""

import re
from collections.abc import Iterable

LISTED = 20  # faults of one message
LONGEST = 1000  # characters of a fault; a longer one, with content of a file, is cut


class HmsRayError(Exception):
    """Base class of all errors that this package raises on purpose."""


class UserError(HmsRayError):
    """An error that the user can correct: one clear sentence, exit code 2."""


class ConfigError(UserError):
    """A space, an option or a study folder is invalid; nothing has started."""


class DataError(UserError):
    """A file is missing, broken, or has impossible values."""


class TrialFailed(HmsRayError):
    """One configuration could not be trained; the search continues without it."""


class SearchAborted(HmsRayError):
    """The search cannot continue; finished work is in the study folder."""


def shown(value: object, limit: int = 120) -> str:
    """Return a value for a message: its repr, at most `limit` characters of it."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]} ..."


def without_secrets(text: str) -> str:
    """Return a text whose URLs have no user names, passwords, queries and fragments."""
    text = re.sub(r"(://[^\s?#'\"]*)[?#][^\s'\"]*", r"\1?...", text)
    return re.sub(r"(?<=://)[^/\s'\"]*@", "", text)


def raise_all(faults: Iterable[str], error: type[UserError], heading: str) -> None:
    """Raise one `error` that lists the faults, at most LISTED, under `heading`; do nothing if there is none."""
    faults = [fault if len(fault) <= LONGEST else f"{fault[:LONGEST]} ..." for fault in faults]
    if len(faults) == 1:
        raise error(f"{heading}: {faults[0]}")
    if faults:
        more = [f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        listed = "\n".join(f"  - {fault}" for fault in [*faults[:LISTED], *more])
        raise error(f"{heading}: {len(faults)} faults\n{listed}")
