"""Study folders that were edited, truncated or half copied: each use ends in success or in one sentence.

KINDS lists the damage. Where a use succeeds all the same, it prints what it prints of the sound study, unless the kind
is in SHOWN: damage that the study itself shows, such as a model that is no longer there.
"""

import contextlib
import copy
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import hms_ray as hr
from hms_ray import cli

Damage = Callable[[Path], object]

SPACE = {
    "base": {
        "data": {"name": "hms"},
        "feature": {"name": "kaggle_spectrogram", "pool": 4},
        "model": {"name": "basic_cnn", "width": 4, "depth": 2},
        "stages": [{"epochs": 2, "lr": 0.01}],
        "folds": 2,
    },
    "search": {"stages.0.lr": {"log_uniform": [0.001, 0.1]}},
    "budget": {"trials": 2, "trial_folds": 1, "finalists": 1},
    "race": "none",
}
GONE = object()
WRONG = {"null": None, "text": "x", "list": [], "mapping": {}, "huge": 1e308, "negative": -1}


def written(file: str, change: Callable[[bytes], bytes]) -> Damage:
    """Damage that changes the bytes of a file."""
    return lambda root: (root / file).write_bytes(change((root / file).read_bytes()))


def in_json(file: str, dotted: str, value: Any) -> Damage:
    """Damage that sets or removes a key of a JSON file."""

    def damage(root: Path) -> None:
        content = json.loads((root / file).read_text())
        *parents, last = dotted.split(".")
        place: Any = content
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place[key]
        if value is GONE:
            del place[last]
        else:
            place[last] = copy.deepcopy(value)
        (root / file).write_text(json.dumps(content))

    return damage


def in_table(file: str, change: Callable[[pd.DataFrame], pd.DataFrame], metadata: Any = None) -> Damage:
    """Damage that changes the rows of a parquet file, or the JSON in its metadata."""

    def damage(root: Path) -> None:
        table = pq.read_table(root / file)
        kept = dict(table.schema.metadata or {})
        new = pa.Table.from_pandas(change(table.to_pandas()), preserve_index=False)
        own = {b"hms_ray": kept[b"hms_ray"]} if b"hms_ray" in kept else {}
        if metadata is not None:
            own = {b"hms_ray": metadata(json.loads(own[b"hms_ray"])).encode()}
        pq.write_table(new.replace_schema_metadata({**(new.schema.metadata or {}), **own}), root / file)

    return damage


def in_yaml(file: str, change: Callable[[dict], Any]) -> Damage:
    """Damage that changes the content of a YAML file."""
    return lambda root: (root / file).write_text(yaml.safe_dump(change(yaml.safe_load((root / file).read_text()))))


def in_journal(change: Callable[[list[str]], list[str]]) -> Damage:
    """Damage that changes the lines of the journal."""
    return lambda root: (root / "journal.log").write_text(
        "".join(change((root / "journal.log").read_text().splitlines(keepends=True)))
    )


def kinds(model_id: str) -> dict[str, Damage]:
    """Return every kind of damage by its name, which begins with the file; model_id: of the model with all folds."""
    trial, model = f"trials/{model_id}", f"oof/{model_id}.parquet"
    found: dict[str, Damage] = {}
    whole = {
        "empty": lambda content: b"",
        "cut": lambda content: content[: len(content) // 2],
        "short of a byte": lambda content: content[:-1],
        "noise": lambda content: b"\x00\xff\xfe" * 40,
    }
    tables = ("folds.parquet", "quality.parquet", model, "ensemble/oof.parquet", f"{trial}/epochs.parquet")
    ensemble = "ensemble/ensemble.json"
    for file in ("study.json", "journal.log", f"{trial}/config.yaml", ensemble, *tables):
        found |= {f"{file}: {name}": written(file, change) for name, change in whole.items()}
        found[f"{file}: not there"] = lambda root, file=file: (root / file).unlink()
    for key in ("task", "task.kind", "task.classes", "data", "data.fingerprint", "data.units", "folds", "folds.k"):
        found |= {f"study.json: {key} is {name}": in_json("study.json", key, value) for name, value in WRONG.items()}
        found[f"study.json: no {key}"] = in_json("study.json", key, GONE)
    for key in ("score.min_votes", "epoch", "versions", "spaces.toy.base", "spaces.toy.search", "spaces.toy.budget"):
        found[f"study.json: {key} is text"] = in_json("study.json", key, "x")
        found[f"study.json: no {key}"] = in_json("study.json", key, GONE)
    for key in (
        "members",
        "members.0.weight",
        "fitted",
        "score_cross_fitted",
        "population",
        "population.units",
        "methods",
    ):
        found |= {f"{ensemble}: {key} is {name}": in_json(ensemble, key, value) for name, value in WRONG.items()}
    for key in ("members", "fitted", "score_in_sample", "interval", "population", "baselines", "metrics"):
        found[f"{ensemble}: no {key}"] = in_json(ensemble, key, GONE)
    found["study.json: of a later version"] = in_json("study.json", "schema_version", 99)
    found["study.json: a list"] = written("study.json", lambda content: b"[" + content + b"]")
    for file, columns in (
        ("folds.parquet", ("unit_id", "fold")),
        ("quality.parquet", ("kind", "nan")),
        (model, ("fold", "votes", "seizure_target", "seizure_prob")),
        ("ensemble/oof.parquet", ("fold", "votes", "seizure_prob")),
        (f"{trial}/epochs.parquet", ("fold", "epoch", "score", "seconds", "skipped_steps")),
    ):
        for column in columns:
            found[f"{file}: no column {column}"] = in_table(file, lambda t, c=column: t.drop(columns=c))
            for name, value in (("text", "x"), ("null", None), ("infinite", np.inf), ("negative", -1)):
                change = in_table(file, lambda t, c=column, v=value: t.assign(**{c: [v] * len(t)}))
                found[f"{file}: {column} is {name}"] = change
        found[f"{file}: no rows"] = in_table(file, lambda t: t.iloc[:0])
        found[f"{file}: rows twice"] = in_table(file, lambda t: pd.concat([t, t]))
    for file in (model, "ensemble/oof.parquet"):
        found[f"{file}: metadata no JSON"] = in_table(file, lambda t: t, lambda own: "{nope")
        found[f"{file}: metadata a list"] = in_table(file, lambda t: t, lambda own: "[1]")
        for key in ("trial", "task", "epochs", "epoch_rule", "folds_fingerprint"):
            for name, value in (("null", None), ("huge", 1e308)):
                change = in_table(file, lambda t: t, lambda own, k=key, v=value: json.dumps(own | {k: v}))
                found[f"{file}: metadata {key} is {name}"] = change
    for name, change in (
        ("a list", lambda run: [run]),
        ("text", lambda run: "x"),
        ("no model", lambda run: {key: part for key, part in run.items() if key != "model"}),
        ("quality is text", lambda run: run | {"quality": "x"}),
        ("stages are text", lambda run: run | {"stages": "x"}),
        ("an unknown key", lambda run: run | {"z": 1}),
    ):
        found[f"{trial}/config.yaml: {name}"] = in_yaml(f"{trial}/config.yaml", change)
    for name, change in (
        ("no first line", lambda lines: lines[1:]),
        ("no line in the middle", lambda lines: lines[:5] + lines[6:]),
        ("a line twice", lambda lines: lines[:4] + lines[3:]),
        ("a line cut", lambda lines: [*lines[:5], lines[5][:10] + "\n", *lines[6:]]),
        ("an unknown operation", lambda lines: [re.sub(r'"op_code": ?\d+', '"op_code": 99', lines[3]), *lines[1:]]),
    ):
        found[f"journal.log: {name}"] = in_journal(change)
    return found


KINDS = list(kinds("TRIAL"))
READ_BY_REPORT = ("ensemble/", "quality", "journal", "folds", "trials/TRIAL/config")  # and by no fit of the ensemble
SHOWN = (  # the page and the tables show that something is missing, or a check of the page fails
    *("quality.parquet: not there", "quality.parquet: rows twice", "oof/TRIAL.parquet: not there"),
    *("trials/TRIAL/epochs.parquet: not there", "trials/TRIAL/config.yaml: not there"),
    *("trials/TRIAL/config.yaml: no model", "trials/TRIAL/config.yaml: stages are text"),
    *("trials/TRIAL/config.yaml: an unknown key", "trials/TRIAL/epochs.parquet: score is negative"),
    *("trials/TRIAL/epochs.parquet: score is null", "journal.log: not there", "journal.log: empty", "journal.log: cut"),
    *("journal.log: short of a byte", "trials/TRIAL/epochs.parquet: no column skipped_steps"),
    *("study.json: data.fingerprint is text", "ensemble/ensemble.json: not there"),
    *("ensemble/ensemble.json: score_cross_fitted is huge", "ensemble/ensemble.json: score_cross_fitted is negative"),
    "journal.log: no line in the middle",  # Optuna's format has no sums: a record that begins nothing is not missed
)


@pytest.fixture(scope="module")
def sound(hms_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials, one of which has all folds, and its ensemble."""
    root = tmp_path_factory.mktemp("tampering")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HMS_RAY_CACHE", str(root / "cache"))
        (root / "toy.yaml").write_text(yaml.safe_dump(SPACE))
        study = hr.search(root / "toy.yaml", hms_folder, study=root / "sound", in_process=True, progress=False)
    assert len(study.leaderboard()) == 1
    return study.path


def outcome(study: Path, verb: str) -> tuple[str, str]:
    """Use a study; return "done" with what that printed, or "refused" with the sentence."""
    printed, said = io.StringIO(), io.StringIO()
    arguments = {"report": ["--out", str(study.parent / "page")], "ensemble": ["--pool", "linear"]}[verb]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = cli.main([verb, "--study", str(study), *arguments])
    if code == 0:
        page = study.parent / "page" / "index.html"
        return "done", page.read_text() if verb == "report" else printed.getvalue()
    assert code == 2, said.getvalue()
    sentences = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and "Traceback" not in said.getvalue(), said.getvalue()
    return "refused", sentences[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_that_is_not_as_it_was_written_is_refused_or_read_alike(
    sound: Path, tmp_path: Path, kind: str, pristine: dict[str, tuple[str, str]]
) -> None:
    [model_id] = [path.stem for path in (sound / "oof").glob("*.parquet")]
    damage = dict(zip(KINDS, kinds(model_id).values(), strict=True))[kind]
    for verb in ("report", "ensemble")[: 1 if kind.startswith(READ_BY_REPORT) else 2]:
        study = tmp_path / verb / "study"
        shutil.copytree(sound, study)
        damage(study)
        ended, text = outcome(study, verb)
        if ended == "refused":
            assert kind.partition(":")[0].replace("TRIAL", model_id) in text or kind in SHOWN
        elif kind not in SHOWN:
            assert (ended, text) == pristine[verb]


@pytest.fixture(scope="module")
def pristine(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What each use of the sound study prints."""
    found = {}
    for verb in ("report", "ensemble"):
        study = tmp_path_factory.mktemp(verb) / "study"
        shutil.copytree(sound, study)
        found[verb] = outcome(study, verb)
    return found


def test_the_sound_study_is_used(pristine: dict[str, tuple[str, str]]) -> None:
    assert {verb: ended for verb, (ended, _) in pristine.items()} == {"report": "done", "ensemble": "done"}
    assert len(KINDS) > 250
