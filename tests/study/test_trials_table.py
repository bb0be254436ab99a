"""The trials of a study without Optuna: the same as its own storage finds, and the same refusals."""

import json
import math
import random

import optuna
import pytest
from optuna.trial import TrialState

from hms_ray.core.errors import DataError
from hms_ray.search.optuna.journal_file import JournalFile, opened, own_score, read_trials
from hms_ray.study.folder import StudyFolder
from hms_ray.study.journal_records import own_params, spelled
from hms_ray.study.trials_table import COLUMNS, trials_table

CHOICES = {"model": ['{"name": "basic_cnn"}', '{"name": "mit"}'], "width": [8, 16], "flip": [True, False]}


@pytest.fixture
def folder(tmp_path):
    """A study whose journal Optuna wrote: two spaces, one of them a union, trials of every state."""
    study = StudyFolder(tmp_path)
    storage = opened(JournalFile(study.journal))
    for name in ("toy", "both"):
        ours = optuna.create_study(storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler(seed=1))
        for number in range(8):
            trial = ours.ask()
            if name == "both":
                trial.suggest_categorical("space", ["one", "two"])
            prefix = f"{trial.params['space']}." if name == "both" else ""
            for path, values in CHOICES.items():
                trial.suggest_categorical(prefix + path, values)
            trial.suggest_float(f"{prefix}lr", 1e-4, 1e-2, log=True)
            trial.suggest_int(f"{prefix}depth", 1, 9)
            trial.report(0.7, 3)
            trial.set_user_attr("seconds", 1.5 * number)
            match number % 4:
                case 0:
                    ours.tell(trial, 0.1 * number)
                case 1:
                    trial.set_user_attr("estimate", 0.4)
                    trial.set_user_attr("fidelity", 0.25)
                    trial.set_user_attr("cause", "behind")
                    ours.tell(trial, state=TrialState.PRUNED)
                case 2:
                    trial.set_user_attr("cause", "out of memory")
                    ours.tell(trial, state=TrialState.FAIL)
    scored = storage.get_all_trials(0)[0]
    fixed = optuna.trial.create_trial(value=-0.01, params=scored.params, distributions=scored.distributions)
    optuna.load_study(study_name="toy", storage=storage).add_trial(fixed)
    return study


def as_optuna_reads(study):
    """The table's rows from Optuna's storage."""
    rows = []
    for space, trial in read_trials(study.journal):
        complete = trial.state == TrialState.COMPLETE
        figures = [trial.user_attrs.get(name, math.nan) for name in ("estimate", "fidelity", "seconds")]
        params = {path: spelled(value) for path, value in own_params(trial.params).items()}
        value = trial.value if complete else math.nan
        row = [f"{space}-{trial.number:04d}", space, trial.number, trial.state.name, value, own_score(trial), *figures]
        rows.append([*row, trial.user_attrs.get("cause", ""), params])
    return rows


def same(table, rows):
    assert table.columns.tolist() == COLUMNS
    assert [repr(row) for row in table.to_numpy(dtype=object).tolist()] == [repr(row) for row in rows]


def test_the_table_is_that_of_optunas_storage(folder):
    table = trials_table(folder)
    same(table, as_optuna_reads(folder))
    assert set(table["state"]) == {"COMPLETE", "PRUNED", "FAIL", "RUNNING"}
    assert {"model", "width", "flip", "lr", "depth"} <= set(table["params"].iloc[0])
    assert isinstance(table["params"].iloc[0]["model"], dict), "a section, not its JSON"


def test_records_in_any_order_read_as_optuna_reads_them(folder):
    lines, rng = folder.journal.read_text().splitlines(keepends=True), random.Random(0)
    for _ in range(20):
        shuffled = [line for line in lines if rng.random() < 0.9]
        first, second = (rng.randrange(len(shuffled)) for _ in range(2))
        shuffled[first], shuffled[second] = shuffled[second], shuffled[first]
        folder.journal.write_text("".join(shuffled))
        try:
            expected = as_optuna_reads(folder)
        except DataError:
            continue
        same(trials_table(folder), expected)


def test_a_study_without_a_search_has_no_trials(tmp_path):
    same(trials_table(StudyFolder(tmp_path)), [])


def test_a_last_line_cut_short_is_passed_over_and_damage_before_it_is_named(folder):
    content = folder.journal.read_bytes()
    folder.journal.write_bytes(content[:-5])
    same(trials_table(folder), as_optuna_reads(folder))
    folder.journal.write_bytes(b"not a record\n" + content)
    with pytest.raises(DataError, match=r"journal.log, line 1: not a record"):
        trials_table(folder)
    lines = content.splitlines(keepends=True)
    lines[1] = json.dumps({"op_code": 4}).encode() + b"\n"
    folder.journal.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=r"line 2: a record that cannot be \(KeyError\('study_id'\)\)"):
        trials_table(folder)
