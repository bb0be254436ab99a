"""Which columns of a file are the classes: recognised by their form, or named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.oof_import.faults import few
from hms_ray.oof_import.source import Source, key

VOTE = "{}_vote"
FORMS = ("{}_pred", "{}_prob", "pred_{}", "prob_{}", "{}", VOTE)  # a file with several is read in this order
TARGETS = (VOTE, "{}_target")  # what predictions may carry along


def parse_columns(text: str) -> dict[str, str]:
    """Return {class: column} of "class=column,class=column".

    Raises:
        ConfigError: a part is not of that form, or a class comes twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not (name and equals and column):
            raise ConfigError(f"--columns must be class=column,class=column,..., but holds {part.strip()!r}")
        if key(name) in map(key, found):
            raise ConfigError(f"--columns names class {name!r} twice")
        found[name] = column
    return found


def named_columns(columns: Mapping[str, str], classes: Sequence[str], predictions: Sequence[Source]) -> list[str]:
    """Return the named columns (K,) in the order of the classes; an empty list where none were named.

    Raises:
        ConfigError: classes that do not exist or are left out, a column for two classes, or columns in no file.
    """
    if not columns:
        return []
    by_class = {key(name): column for name, column in columns.items()}
    wanted = [key(name) for name in classes]
    named = [by_class[name] for name in wanted if name in by_class]
    faults = {
        "unknown": [name for name in columns if key(name) not in wanted],
        "left out": [name for name in classes if key(name) not in by_class],
        "named for two": [name for i, name in enumerate(named) if key(name) in map(key, named[:i])],
    }
    wrong = "; ".join(f"{what}: {few(names)}" for what, names in faults.items() if names)
    if wrong:
        raise ConfigError(f"--columns must name one column for each class: {few(classes, 12)}; {wrong}")
    if predictions and not any(name in source for name in named for source in predictions):
        have = "; ".join(f"{source.path} has {few(source.keys, 12)}" for source in predictions[:3])
        raise ConfigError(f"--columns names {few(named, 12)}, which no file has: {have}")
    return named


def vote_classes(source: Source) -> list[str]:
    """Return the classes that have a `<class>_vote` column, as the file writes them."""
    suffix = VOTE.format("")
    names = [str(name).strip() for name in source.frame.columns]
    return [name[: -len(suffix)] for name in names if key(name).endswith(suffix) and len(name) > len(suffix)]


def is_labels(
    source: Source, columns: Mapping[str, str], own: Callable[[Iterable[bool]], bool] = all, folds: bool = True
) -> bool:
    """Labels have votes and folds; predictions may carry those along beside class columns of their own.

    own: `all` takes a complete form for predictions, `any` takes a single column of one; folds: whether they must
    """
    classes = vote_classes(source)
    sets = [[form.format(name) for name in classes] for form in FORMS if form != VOTE]
    sets += [list(columns.values())] if columns else []
    has_own = bool(source.array) or any(own(name in source for name in names) for names in sets)
    return bool(classes) and ("fold" in source or not folds) and not has_own


def class_columns(source: Source, classes: Sequence[str], named: Sequence[str]) -> list[str]:
    """Return the columns of the predictions (K,): an array's own, those named, or the first complete form.

    Raises:
        DataError: no column for a class, or some form has columns for a part of the classes only.
    """
    if source.array:
        return _array_columns(source, classes)
    sets = [[form.format(name) for name in classes] for form in FORMS]
    complete = next((names for names in sets if all(name in source for name in names)), [])
    if _is_named(source, named, complete):
        source.require(named, f"; --columns names {few(named, 12)}")
        return list(named)
    _check_whole(source, sets, complete)
    if not complete:
        forms = ", ".join(form.format("<class>") for form in FORMS)
        hint = f"; class columns are {forms}, or named: --columns class=column,..."
        source.require(classes, hint)
    return complete


def carried_targets(source: Source, classes: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Return the columns (K,) of the targets that a file carries beside its predictions; empty where it has none."""
    for form in TARGETS:
        names = [form.format(name) for name in classes]
        if all(name in source for name in names) and not set(map(key, names)) & set(map(key, chosen)):
            return names
    return []


def _array_columns(source: Source, classes: Sequence[str]) -> list[str]:
    if len(source.array) != len(classes):
        rule = f"it has {len(source.array)} columns, but there are {len(classes)} classes: {few(classes, 12)}"
        raise DataError(f"{source.path}: {rule}")
    return list(source.array)


def _is_named(source: Source, named: Sequence[str], complete: Sequence[str]) -> bool:
    """Say whether --columns is about this file: it has one that its complete form does not explain."""
    found = [name for name in named if name in source]
    return bool(found) and (len(found) == len(named) or not set(map(key, found)) <= set(map(key, complete)))


def _check_whole(source: Source, sets: Sequence[Sequence[str]], complete: Sequence[str]) -> None:
    """Refuse a form that has columns for a part of the classes: it would be guessed which ones are meant."""
    found = [[name for name in names if name in source] for names in sets]
    parts = [(has, names) for has, names in zip(found, sets, strict=True) if 0 < len(has) < len(names)]
    if parts:
        _, names = max(parts, key=lambda part: len(part[0]))
        beside = f"; it has all of {few(complete, 12)} as well: say which with --columns" if complete else ""
        source.require(names, beside)
