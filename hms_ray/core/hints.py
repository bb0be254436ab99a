"""Suggestions for unknown names and keys."""

import difflib
from collections.abc import Iterable

from hms_ray.core.errors import shown

SYNONYMS = {  # names in other libraries
    "learning_rate": "lr",
    "batch_size": "batch",
    "dropout": "drop_rate",
    "optimizer": "optim",
    "optimiser": "optim",
    "n_trials": "trials",
    "n_folds": "folds",
    "random_state": "seed",
}
FAR = 0.8  # least similarity of a key of another section
LISTED = 12  # known names that a message lists


def unknown(noun: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown name, with the nearest known name as a suggestion."""
    known = list(known)
    near = nearest(name, known)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"no {noun} named {shown(name)}; there are: {', '.join(known) or 'none'}.{hint}"


def nearest(name: object, known: Iterable[object], cutoff: float = 0.6) -> str | None:
    """Return the known name with the most similar spelling, None if none is similar.

    known: may contain keys that are not text, such as YAML's `yes` or 3
    """
    names = [key for key in known if isinstance(key, str)]
    if SYNONYMS.get(str(name)) in names:
        return SYNONYMS[str(name)]
    return next(iter(difflib.get_close_matches(str(name), names, n=1, cutoff=cutoff)), None)


def hint(name: object, known: Iterable[object]) -> str:
    """Return "; did you mean 'name'?" for the nearest known name, "" if none is similar."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def path_hint(path: str, known: Iterable[str]) -> str:
    """Return the suggestion for an unknown dotted path, "" if there is none.

    The same key in another section has priority, then a similar key in this section, then one in any section; else the
    keys of this section are listed.
    """
    known, (section, _, key) = list(known), path.rpartition(".")
    by_key: dict[str, list[str]] = {}
    for other in dict.fromkeys(known):
        by_key.setdefault(other.rpartition(".")[2], []).append(other)
    siblings = [other for others in by_key.values() for other in others if other.rpartition(".")[0] == section]
    near = nearest(key, (other.rpartition(".")[2] for other in siblings))
    anywhere = nearest(key, by_key, FAR)
    if others := by_key.get(key, []):
        paths = difflib.get_close_matches(path, others, n=3, cutoff=FAR)[::-1] or others[:3]
    elif near:
        paths = [other for other in siblings if other.rpartition(".")[2] == near]
    elif anywhere:
        paths = by_key[anywhere][:3]
    elif section and not siblings:  # no such section
        return hint(section, (other.rpartition(".")[0] for other in known))
    else:
        listed = ", ".join(other.rpartition(".")[2] for other in siblings[:LISTED])
        return f"; there are: {listed}{', ...' if len(siblings) > LISTED else ''}" if siblings else ""
    return f"; did you mean {' or '.join(paths)}?"
