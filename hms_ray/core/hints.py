"""Suggestions for names and keys that do not exist: what was probably meant."""

import difflib
from collections.abc import Iterable

from hms_ray.core.errors import shown

SYNONYMS = {  # what other libraries call it
    "learning_rate": "lr",
    "batch_size": "batch",
    "dropout": "drop_rate",
    "optimizer": "optim",
    "optimiser": "optim",
    "n_trials": "trials",
    "n_folds": "folds",
    "random_state": "seed",
}
FAR = 0.8  # how like a key of another section must be
LISTED = 12  # known names that a message lists


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Word the sentence for a name that is not among the known ones, with the nearest as a suggestion."""
    known = list(known)
    near = nearest(name, known)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"no {what} named {shown(name)}; there are: {', '.join(known) or 'none'}.{hint}"


def nearest(name: object, known: Iterable[object], cutoff: float = 0.6) -> str | None:
    """Return the known name that is spelled most like this one, None where none is near.

    known: may hold keys that are no names, as YAML makes of `yes` or 3
    """
    names = [each for each in known if isinstance(each, str)]
    if SYNONYMS.get(str(name)) in names:
        return SYNONYMS[str(name)]
    return next(iter(difflib.get_close_matches(str(name), names, n=1, cutoff=cutoff)), None)


def hint(name: object, known: Iterable[object]) -> str:
    """Return "; did you mean 'name'?" for the nearest known name, "" where none is near."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def path_hint(path: str, known: Iterable[str]) -> str:
    """Return what to say of a dotted path that is not among the known ones, "" where there is nothing to say.

    The same key in another section comes first, then a similar key in this section, then one in any section; else the
    keys of this section are listed.
    """
    known, (section, _, key) = list(known), path.rpartition(".")
    by_key: dict[str, list[str]] = {}
    for other in dict.fromkeys(known):
        by_key.setdefault(other.rpartition(".")[2], []).append(other)
    beside = [other for others in by_key.values() for other in others if other.rpartition(".")[0] == section]
    near = nearest(key, (other.rpartition(".")[2] for other in beside))
    anywhere = nearest(key, by_key, FAR)
    if others := by_key.get(key, []):
        found = difflib.get_close_matches(path, others, n=3, cutoff=FAR)[::-1] or others[:3]
    elif near:
        found = [other for other in beside if other.rpartition(".")[2] == near]
    elif anywhere:
        found = by_key[anywhere][:3]
    elif section and not beside:  # no such section
        return hint(section, (other.rpartition(".")[0] for other in known))
    else:
        listed = ", ".join(other.rpartition(".")[2] for other in beside[:LISTED])
        return f"; there are: {listed}{', ...' if len(beside) > LISTED else ''}" if beside else ""
    return f"; did you mean {' or '.join(found)}?"
