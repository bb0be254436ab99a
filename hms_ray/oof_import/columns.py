"""Find the columns of the classes in a file: by the form of their names, or as named by the user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.oof_import.faults import few
from hms_ray.oof_import.source import Source, key

VOTE = "{}_vote"
FORMS = ("{}_pred", "{}_prob", "pred_{}", "prob_{}", "{}", VOTE)  # in order of priority, where a file has several
TARGETS = (VOTE, "{}_target")  # targets in a file of predictions


def parse_columns(text: str) -> dict[str, str]:
    """Return {class: column} of "class=column,class=column".

    Raises:
        ConfigError: a part is not of that form, or a class comes twice.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not (name and equals and column):
            raise ConfigError(f"--columns must be class=column,class=column,..., but holds {part.strip()!r}")
        if key(name) in map(key, columns):
            raise ConfigError(f"--columns names class {name!r} twice")
        columns[name] = column
    return columns


def named_columns(columns: Mapping[str, str], classes: Sequence[str], predictions: Sequence[Source]) -> list[str]:
    """Return the columns (K,) named by --columns in the order of the classes; empty without --columns.

    Raises:
        ConfigError: a class is unknown or missing, a column is named for two classes, or no file has the columns.
    """
    if not columns:
        return []
    by_class = {key(name): column for name, column in columns.items()}
    keys = [key(name) for name in classes]
    named = [by_class[name] for name in keys if name in by_class]
    faults = {
        "unknown": [name for name in columns if key(name) not in keys],
        "left out": [name for name in classes if key(name) not in by_class],
        "named for two": [name for i, name in enumerate(named) if key(name) in map(key, named[:i])],
    }
    if text := "; ".join(f"{fault}: {few(names)}" for fault, names in faults.items() if names):
        raise ConfigError(f"--columns must name one column for each class: {few(classes, 12)}; {text}")
    if predictions and not any(name in source for name in named for source in predictions):
        have = "; ".join(f"{source.path} has {few(source.keys, 12)}" for source in predictions[:3])
        raise ConfigError(f"--columns names {few(named, 12)}, which no file has: {have}")
    return named


def vote_classes(source: Source) -> list[str]:
    """Return the classes that have a `<class>_vote` column, as spelled in the file."""
    suffix = VOTE.format("")
    names = [str(name).strip() for name in source.frame.columns]
    return [name[: -len(suffix)] for name in names if key(name).endswith(suffix) and len(name) > len(suffix)]


def is_labels(
    source: Source, columns: Mapping[str, str], match: Callable[[Iterable[bool]], bool] = all, folds: bool = True
) -> bool:
    """Return whether a file holds the labels: it has votes and folds, and no predictions.

    Files of predictions may have votes and folds too. match: `all` recognises predictions by a complete set of class
    columns, `any` by a single one; folds: whether labels must have folds
    """
    classes = vote_classes(source)
    sets = [[form.format(name) for name in classes] for form in FORMS if form != VOTE]
    sets += [list(columns.values())] if columns else []
    predicts = bool(source.array) or any(match(name in source for name in names) for names in sets)
    return bool(classes) and ("fold" in source or not folds) and not predicts


def class_columns(source: Source, classes: Sequence[str], named: Sequence[str]) -> list[str]:
    """Return the columns of the predictions (K,): those of an array, those named, or the first complete form.

    Raises:
        DataError: a class has no column, or a form has columns for some of the classes only.
    """
    if source.array:
        if len(source.array) != len(classes):
            rule = f"it has {len(source.array)} columns, but there are {len(classes)} classes: {few(classes, 12)}"
            raise DataError(f"{source.path}: {rule}")
        return list(source.array)
    sets = [[form.format(name) for name in classes] for form in FORMS]
    complete = next((names for names in sets if all(name in source for name in names)), [])
    # --columns applies to this file if it has one of them that its complete form does not contain.
    present = [name for name in named if name in source]
    if present and (len(present) == len(named) or not set(map(key, present)) <= set(map(key, complete))):
        source.require(named, f"; --columns names {few(named, 12)}")
        return list(named)
    # A form that has columns for some of the classes only makes the choice ambiguous.
    counts = [sum(name in source for name in names) for names in sets]
    if partial := [(count, names) for count, names in zip(counts, sets, strict=True) if 0 < count < len(names)]:
        _, names = max(partial, key=lambda part: part[0])
        hint = f"; it has all of {few(complete, 12)} as well: say which with --columns" if complete else ""
        source.require(names, hint)
    if not complete:
        forms = ", ".join(form.format("<class>") for form in FORMS)
        hint = f"; class columns are {forms}, or named: --columns class=column,..."
        source.require(classes, hint)
    return complete


def carried_targets(source: Source, classes: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Return the columns (K,) of the targets in a file of predictions; empty where it has none."""
    for form in TARGETS:
        names = [form.format(name) for name in classes]
        if all(name in source for name in names) and not set(map(key, names)) & set(map(key, chosen)):
            return names
    return []
