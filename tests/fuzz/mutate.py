"""Ways to spoil text, trees of plain values, tables and files, each drawn from the generator that it is given."""

import copy
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

BOMB = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
TOKENS = (  # as they stand in YAML, alone or inside a flow collection
    *("", "~", "null", "true", "no", "0", "-1", "1", "2", "0.5", "1e-3", "1e400", "-1e308", "1e-320", ".nan", ".inf"),
    *("-.inf", "9" * 25, "9" * 400, "1" + "0" * 5000, "0x_", "0b_", "0o9", "1:30", "1_000", "2020-01-01", "2020-13-45"),
    *("2020-01-01T99:99:99Z", "'", '"', '"\\ud800"', '"\\0"', '"a\\nb"', "é∂😀", "\u202e", "a b", "a" * 3000, "="),
    *("<<", "*x", "&x", "&x [*x]", "!!int abc", "!!float x", "!!bool x", "!!set {a, b}", "!!binary aGk=", "!!str [a]"),
    *("!!python/name:os.system", "!mine x", "!!timestamp 1", "[]", "{}", "[[]]", "[1, 2]", "{a: 1}", "{name: demo}"),
    *("[1, [2, [3]]]", "[" * 60, "[" * 60 + "]" * 60, "{a: " * 60, "? [a] : 1", "{[a]: b}", "{1: 2}", "{null: 1}", "%"),
    *("@a", "`a`", "| x", "> x", "- x", "a: b: c", "#", "---", "...", "\t", "../../etc", "/nope", "/dev/null", "."),
    *("basic_cnn", "timm_image", "kaggle_spectrogram", "mixup", "adamw", "uniform", "choice", "demo", "all", "hms"),
)
VALUES: tuple[Any, ...] = (  # as they stand in a tree
    *(None, True, False, 0, 1, -1, 2, 3, 7, 1000, 10**6, 2**31, 2**63, -(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1e-3, 1.5, 1e308, 1e-320, float("nan"), float("inf"), -float("inf")),
    *("", " ", "a", "1", "true", "é∂😀", "a\nb", "a\tb", "x" * 3000, "../..", "/dev/null", ".", "a.b", "0", "none"),
    *([], {}, [[]], [None], [0, 1], [1, 0], [1, 1], ["a"], {"a": 1}, {"name": "x"}, {"p": 0.5}, {1: 2}, {"": {}}),
    *(["best"], {"name": None}, [{}], {"uniform": [0, 1]}, {"choice": [1, 1]}, {"choice": []}, {"int": [1, 2.5]}),
)
JUNK = (b"\xff\xfe", b"\0", b"\x89PNG\r\n", b"PK\x03\x04", b"\xef\xbb\xbf", bytes(range(256)), b"\x80abc")
CELLS = (
    *(
        "",
        " ",
        "nan",
        "inf",
        "-inf",
        "-1",
        "0",
        "1.5",
        "1e3",
        "1e400",
        "9" * 30,
        "abc",
        "'",
        "é",
        "0x10",
        "1,5",
        "true",
    ),
    *(
        "-0.0",
        "1e-320",
        "99999999",
        "2147483648",
        "../../x",
        "/dev/null",
        "\x07",
        "a\nb",
        "NULL",
        "None",
        "[]",
        "1 000",
    ),
)


def nested(value: Any, levels: int) -> Any:
    """Put a value inside so many lists and mappings."""
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


# --- text -------------------------------------------------------------------------------------------------------------


def spoilt_text(text: str, rng: Random) -> bytes:
    """Return YAML text with one to three faults of spelling, structure or encoding."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = rng.choice(TEXT_FAULTS)(text, rng)
    content = text.encode("utf-8", "surrogatepass")
    return rng.choice(BYTE_FAULTS)(content, rng) if rng.random() < 0.1 else content


def _at_line(change: Callable[[str, Random], str | None]) -> Callable[[str, Random], str]:
    def apply(text: str, rng: Random) -> str:
        lines = text.split("\n")
        i = rng.randrange(len(lines))
        new = change(lines[i], rng)
        return "\n".join(lines[:i] + ([] if new is None else [new]) + lines[i + 1 :])

    return apply


def _new_value(line: str, rng: Random) -> str:
    return f"{line.partition(':')[0]}: {rng.choice(TOKENS)}"


def _new_word(line: str, rng: Random) -> str:
    words = line.split(" ")
    words[rng.randrange(len(words))] = rng.choice(TOKENS)
    return " ".join(words)


def _new_digit(line: str, rng: Random) -> str:
    digits = [i for i, letter in enumerate(line) if letter.isdecimal()]
    i = rng.choice(digits or [len(line)])
    return line[:i] + rng.choice("0123456789.-e") + line[i + 1 :]


def _new_letter(line: str, rng: Random) -> str:
    i = rng.randrange(len(line) + 1)
    return line[:i] + rng.choice(("", "x", ":", " ", "[", "]", "{", "}", ",", "#", "&", "*", "'", "-")) + line[i + 1 :]


def _swapped_lines(text: str, rng: Random) -> str:
    lines = text.split("\n")
    i, j = (rng.randrange(len(lines)) for _ in range(2))
    lines[i], lines[j] = lines[j], lines[i]
    return "\n".join(lines)


def _anchored(text: str, rng: Random) -> str:
    return text.replace(": ", ": &z ", 1) + rng.choice(("\nlog: *z\n", "\nsearch: {a: *z}\n", "\nbudget: {<<: *z}\n"))


TEXT_FAULTS: tuple[Callable[[str, Random], str], ...] = (
    *(_at_line(_new_value),) * 4,
    *(_at_line(_new_digit),) * 6,
    *(_at_line(_new_word),) * 4,
    *(_at_line(_new_letter),) * 4,
    _at_line(lambda line, rng: None),
    _at_line(lambda line, rng: f"{line}\n{line}"),
    _at_line(lambda line, rng: f"\t{line}"),
    _at_line(lambda line, rng: " " * rng.randrange(5) + line.lstrip()),
    _swapped_lines,
    _anchored,
    lambda text, rng: text[: rng.randrange(len(text) + 1)],
    lambda text, rng: text[rng.randrange(len(text) + 1) :],
    lambda text, rng: text.replace("\n", "\r\n"),
    lambda text, rng: f"{BOMB}{text}",
    lambda text, rng: f"{text}\nlog: {rng.choice(TOKENS)}\n",
    lambda text, rng: text * rng.choice((2, 60)),
    lambda text, rng: f"---\n{text}\n---\n{text}",
    lambda text, rng: rng.choice(TOKENS),
)
BYTE_FAULTS: tuple[Callable[[bytes, Random], bytes], ...] = (
    lambda content, rng: rng.choice(JUNK) + content,
    lambda content, rng: content[: (i := rng.randrange(len(content) + 1))] + rng.choice(JUNK) + content[i:],
    lambda content, rng: content.decode("utf-8", "replace").encode("utf-16"),
    lambda content, rng: rng.randbytes(rng.randrange(200)),
    lambda content, rng: b"",
)


# --- trees ------------------------------------------------------------------------------------------------------------


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Let a value that is nested twice be written; what reads it is under Python's own limit again."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20 * before)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@_deep_recursion()
def spoilt_tree(tree: Any, rng: Random) -> bytes:
    """Return, as YAML, plain values with one to three that are of another type, size or place."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        container, key = rng.choice(places)
        rng.choice(TREE_FAULTS)(container, key, [c[k] for c, k in places if k in c or isinstance(c, list)], rng)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def _set(new: Callable[[Any, list[Any], Random], Any]) -> Callable[[Any, Any, list[Any], Random], None]:
    def apply(container: Any, key: Any, others: list[Any], rng: Random) -> None:
        container[key] = new(container[key], others, rng)

    return apply


def _drop(container: Any, key: Any, others: list[Any], rng: Random) -> None:
    del container[key]


def _renamed(container: Any, key: Any, others: list[Any], rng: Random) -> None:
    if isinstance(container, dict):
        names = (f"{key}x", f"{key}"[:-1], f"{key}".upper(), f"{key}.0", "", 1, None, True, "name", "stages.0.lr", "é")
        container[rng.choice(names)] = container.pop(key)
    else:
        container.append(container[key])


def _scaled(value: Any, others: list[Any], rng: Random) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e100:
        return [value, value]
    return rng.choice((-value, value * 1000, value / 1000, value / 2, 2 * value, float(value), value + 1, str(value)))


TREE_FAULTS: tuple[Callable[[Any, Any, list[Any], Random], None], ...] = (
    *(_set(lambda value, others, rng: copy.deepcopy(rng.choice(VALUES))),) * 6,
    *(_set(_scaled),) * 8,
    *(_set(lambda value, others, rng: copy.deepcopy(rng.choice(others))),) * 2,
    _set(lambda value, others, rng: nested(copy.deepcopy(value), rng.choice((1, 2, 60, 300)))),
    _set(lambda value, others, rng: [copy.deepcopy(value)] * rng.choice((1, 2, 200))),
    _set(lambda value, others, rng: str(value)),
    *(_drop, _drop, _renamed, _renamed),
)


# --- overrides --------------------------------------------------------------------------------------------------------


def overrides(content: Any, rng: Random) -> tuple[str, ...]:
    """Return one to three `key=value` with keys of a run, or of none, and values of all sorts."""
    places = list(_paths(content))
    return tuple(_override(*rng.choice(places), rng) for _ in range(rng.choice((1, 1, 2, 3))))


def _override(path: str, own: Any, rng: Random) -> str:
    draw = rng.random()
    if draw < 0.4:
        near = _scaled(own, [], rng) if rng.random() < 0.7 else own
        return f"{path}={yaml.safe_dump(near, default_flow_style=True).splitlines()[0]}"
    draw = rng.random()
    if draw < 0.15:
        i = rng.randrange(len(path) + 1)
        path = (
            path[:i] + rng.choice(("x", ".", "", "0", "99999999999999999999", "²", "é", "\udcff", " ")) + path[i + 1 :]
        )
    elif draw < 0.25:
        path += rng.choice((".name", ".0", ".-1", ".", ".p", ".x.y", ".1e3"))
    elif draw < 0.3:
        path = rng.choice(
            ("", ".", "..", "=", "base.seed", "search.seed", "budget", "race", "log.mlflow", "space", "9")
        )
    value = rng.choice(TOKENS) if rng.random() < 0.8 else yaml.safe_dump(rng.choice(VALUES), default_flow_style=True)
    return rng.choice(("{}={}",) * 12 + ("{}", "={1}", "{}=={}", "{} = {}")).format(path, value)


def _paths(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield f"{prefix}{key}", value
        yield from _paths(value, f"{prefix}{key}.")


# --- tables and files -------------------------------------------------------------------------------------------------


def spoil_csv(path: Path, rng: Random) -> None:
    """Spoil a CSV: a cell, a column, some rows, or how it is written, also where an earlier fault has left no table."""
    table = pd.DataFrame()
    if rng.random() < 0.6:
        with suppress(ValueError):
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if len(table) and table.shape[1] > 1:
        rng.choice(TABLE_FAULTS)(table, rng).to_csv(path, index=False)
    else:
        path.write_bytes(rng.choice(CSV_FAULTS)(path.read_bytes(), rng))


def _cell(table: pd.DataFrame, rng: Random) -> pd.DataFrame:
    for _ in range(rng.choice((1, 1, 5))):
        table.iat[rng.randrange(len(table)), rng.randrange(table.shape[1])] = rng.choice(CELLS)
    return table


def _column(table: pd.DataFrame, rng: Random) -> pd.DataFrame:
    return table.assign(**{rng.choice(list(table)): rng.choice(CELLS)})


def _rename(table: pd.DataFrame, rng: Random) -> pd.DataFrame:
    names, i = list(table), rng.randrange(table.shape[1])
    names[i] = rng.choice((f" {names[i]}", names[i].upper(), f"{names[i]}x", "", rng.choice(names), "é", "1"))
    return table.set_axis(names, axis=1)


def _swap(table: pd.DataFrame, rng: Random) -> pd.DataFrame:
    a, b = rng.sample(list(table), 2)
    return table.rename(columns={a: b, b: a})


TABLE_FAULTS: tuple[Callable[[pd.DataFrame, Random], pd.DataFrame], ...] = (
    *(_cell,) * 6,
    *(_column,) * 2,
    *(_rename,) * 2,
    _swap,
    lambda table, rng: table.drop(columns=rng.choice(list(table))),
    lambda table, rng: table.iloc[:, : rng.randrange(table.shape[1])],
    lambda table, rng: table.iloc[: rng.randrange(3)],
    lambda table, rng: pd.concat([table, table.iloc[[rng.randrange(len(table))]]]),
    lambda table, rng: table.sample(frac=rng.choice((0.3, 1)), random_state=rng.randrange(99)),
    lambda table, rng: table.assign(**{(name := rng.choice(list(table))): table[name].to_numpy()[::-1]}),
    lambda table, rng: pd.concat([table] * 2, axis=1),
)
CSV_FAULTS: tuple[Callable[[bytes, Random], bytes], ...] = (
    lambda content, rng: b"\xef\xbb\xbf" + content,
    lambda content, rng: content.replace(b",", b";"),
    lambda content, rng: content.replace(b",", b"\t"),
    lambda content, rng: content.replace(b"\n", b"\r\n"),
    lambda content, rng: content.replace(b"\n", b"\r"),
    lambda content, rng: content[: rng.randrange(len(content))],
    lambda content, rng: content.replace(b",", b',"', rng.randrange(1, 9)),
    lambda content, rng: content.partition(b"\n")[2],
    lambda content, rng: content.partition(b"\n")[0],
    lambda content, rng: content.replace(b"\n", b",1\n", rng.randrange(1, 9)),
    lambda content, rng: b"\n" * 3 + content,
    *BYTE_FAULTS,
)


def spoil_file(path: Path, rng: Random) -> None:
    """Spoil a file as a file system, a copy or an archive may."""
    if path.suffix == ".parquet" and rng.random() < 0.6:
        with suppress(pa.ArrowException, OSError):  # it may be spoilt so far that it is no parquet
            pq.write_table(rng.choice(PARQUET_FAULTS)(pq.read_table(path), rng), path)
        return
    fault, content = rng.randrange(9), path.read_bytes()
    path.unlink()
    if fault == 0:
        path.mkdir()
    elif fault == 1:
        path.symlink_to(path.with_name("nowhere"))
    elif fault == 2:
        path.write_text("a,b\n1,2\n")
    elif fault == 3:
        path.write_bytes(content[: rng.randrange(len(content))])
    elif fault == 4:
        i = rng.randrange(len(content))
        path.write_bytes(content[:i] + rng.randbytes(64) + content[i + 64 :])
    elif fault == 5:
        path.write_bytes(content[:64] + content[-64:])
    elif fault == 6:
        path.write_bytes(rng.choice(BYTE_FAULTS)(content, rng))
    elif fault == 7:
        path.symlink_to(path.parent)


def _cast(table: pa.Table, rng: Random) -> pa.Table:
    i = rng.randrange(table.num_columns)
    kinds = (pa.string(), pa.int8(), pa.int64(), pa.float64(), pa.bool_(), pa.null(), pa.date32(), pa.list_(pa.int8()))
    return table.set_column(i, table.column_names[i], pa.nulls(table.num_rows, rng.choice(kinds)))


def _constant(table: pa.Table, rng: Random) -> pa.Table:
    i, value = rng.randrange(table.num_columns), rng.choice((float("inf"), float("nan"), 1e308, -1.0, "x", True))
    return table.set_column(i, table.column_names[i], pa.array([value] * table.num_rows))


def _renamed_column(table: pa.Table, rng: Random) -> pa.Table:
    names = table.column_names
    names[rng.randrange(len(names))] = rng.choice(("x", "", "é", rng.choice(names)))
    return table.rename_columns(names)


PARQUET_FAULTS: tuple[Callable[[pa.Table, Random], pa.Table], ...] = (
    _cast,
    _constant,
    _renamed_column,
    lambda table, rng: table.remove_column(rng.randrange(table.num_columns)),
    lambda table, rng: table.slice(0, rng.choice((0, 1, 5, 300))),
    lambda table, rng: table.select(rng.sample(table.column_names, table.num_columns)),
    lambda table, rng: pa.concat_tables([table] * 3),
    lambda table, rng: table.append_column("more", pa.nulls(table.num_rows)),
)


def spoil_folder(root: Path, rng: Random) -> None:
    """Spoil one or two tables or files of a folder of data, or what lies there."""
    for _ in range(rng.choice((1, 1, 2))):
        files = sorted(path for path in root.rglob("*") if path.is_file())
        tables = [path for path in files if path.suffix == ".csv"]
        draw = rng.random()
        if draw < 0.55 and tables:
            _spoil_table(rng.choice(tables), rng)
        elif draw < 0.9 and files:
            spoil_file(rng.choice(files), rng)
        else:
            folders = sorted(path for path in root.iterdir() if path.is_dir())
            if folders:
                shutil.rmtree(folder := rng.choice(folders))
                if rng.random() < 0.5:
                    folder.write_bytes(b"")


def _spoil_table(path: Path, rng: Random) -> None:
    try:
        spoil_csv(path, rng)
    except (ValueError, IndexError, KeyError, TypeError):  # pandas reads it no longer: it is spoilt enough
        path.write_bytes(rng.choice(BYTE_FAULTS)(path.read_bytes(), rng))
