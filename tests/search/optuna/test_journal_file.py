"""The file behind the journal: what a crash, a full disk or a bad sector leaves of it."""

import errno
import json
import os

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage

from hms_ray.core.errors import DataError
from hms_ray.search.optuna.journal_file import JournalFile, opened, own_score, read_trials


def write(path, *names):
    """Write a study with a finished trial of that name each."""
    study = optuna.create_study(storage=opened(JournalFile(path)), study_name="s", load_if_exists=True)
    for name in names:
        trial = study.ask()
        trial.set_user_attr("name", name)
        study.tell(trial, 1.0)
    return study


def names(path):
    return [trial.user_attrs["name"] for _, trial in read_trials(path) if "name" in trial.user_attrs]


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "journal.log", "Ä", "b")
    return tmp_path / "journal.log"


def test_optuna_reads_the_file_as_its_own_and_adds_to_it(path):
    study = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    assert [trial.user_attrs["name"] for trial in study.trials] == ["Ä", "b"]
    study.tell(study.ask(), 2.0)
    assert [trial.value for _, trial in read_trials(path)] == [1.0, 1.0, 2.0]


def test_a_reader_sees_what_another_has_added_since(path):
    study = write(path)
    assert len(study.trials) == 2
    write(path, "c")
    assert len(study.trials) == 3


def test_no_file_is_no_trial_and_stays_no_file(tmp_path):
    assert read_trials(tmp_path / "journal.log") == []
    assert not list(tmp_path.iterdir())


def test_a_last_record_cut_anywhere_is_dropped_and_what_follows_is_whole(path, caplog):
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start + 1, len(whole)):
        caplog.clear()
        path.write_bytes(whole[:cut])
        assert names(path) == ["Ä", "b"], "a reader passes over it"
        assert path.read_bytes() == whole[:cut], "and changes nothing"
        JournalFile(path).mend()
        assert path.read_bytes() == whole[:start]
        assert f"({cut - start} bytes" in caplog.text
        if cut % 10 == 0:
            write(path, "c")
            assert names(path) == ["Ä", "b", "c"]


def test_a_whole_file_is_left_alone(path, tmp_path, caplog):
    whole = path.read_bytes()
    for content in (whole, b""):
        path.write_bytes(content)
        JournalFile(path).mend()
        assert path.read_bytes() == content
    JournalFile(tmp_path / "none.log").mend()
    assert not caplog.text


@pytest.mark.parametrize(
    "tail", [b"\0" * 512, b"\0" * 512 + b"\n", b"\n", b"{}\n", b"[1]\n", b'{"op_code":\n', b"\xff\n"]
)
def test_a_last_line_that_is_no_record_is_dropped(path, tail):
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert names(path) == ["Ä", "b"]
    JournalFile(path).mend()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("broken", [b"\0" * 20, b'{"op_code": 5, "tri', b"{}", b"[1]", b"", b"\xff"])
def test_damage_before_the_last_line_is_named(path, broken):
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], broken, *lines[3:]]) + b"\n")
    JournalFile(path).mend()
    with pytest.raises(DataError, match=r"journal\.log, line 3: not a record"):
        read_trials(path)


@pytest.mark.parametrize("change", [{"state": 99}, {"op_code": 77}, {"trial_id": []}, {"worker_id": None, "values": 3}])
def test_a_record_that_cannot_be_is_named(path, change):
    lines = path.read_bytes().splitlines()
    number = next(n for n, line in enumerate(lines) if json.loads(line)["op_code"] == 6)
    lines[number] = json.dumps(json.loads(lines[number]) | change).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataError, match=rf"journal\.log, line {number + 1}: a record that cannot be"):
        read_trials(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[1:], "line 1: it is of a study that no line before begins, so lines are missing"),
        (lambda lines: lines[:1] + lines[2:], "line 2: it is of a trial that no line before begins"),
        (lambda lines: lines * 2, r"line \d+: it is line 1 once more, so the file holds records twice"),
        (lambda lines: lines + lines[1:], r"line \d+: it is line 2 once more"),
        (lambda lines: lines[:2] + lines[1:], "line 3: it is line 2 once more"),
    ],
)
def test_lines_that_are_missing_or_stand_twice_are_named(path, change, said):
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    JournalFile(path).mend()
    with pytest.raises(DataError, match=rf"journal\.log, {said}.*put the file back from a copy, or choose another"):
        read_trials(path)


def test_a_study_that_optuna_itself_deleted_is_no_damage(path):
    storage = opened(JournalFile(path))
    optuna.create_study(storage=storage, study_name="t").ask()
    optuna.delete_study(storage=storage, study_name="s")
    assert [study for study, _ in read_trials(path)] == ["t"]
    write(path, "c")
    assert names(path) == ["c"]


def test_what_a_full_disk_still_took_is_taken_back(path, monkeypatch):
    study = write(path)
    whole = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            study.ask()
    assert path.read_bytes() == whole
    study.tell(study.ask(), 2.0)
    assert [trial.value for _, trial in read_trials(path)] == [1.0, 1.0, 2.0]


def test_records_held_together_go_out_at_once_or_not_at_all(path):
    whole, file = path.read_bytes(), JournalFile(path)
    storage = opened(file)
    study = optuna.load_study(study_name="s", storage=storage)
    trial_id = study.ask()._trial_id
    asked = path.read_bytes()
    with pytest.raises(ZeroDivisionError), file.together():
        storage.set_trial_user_attr(trial_id, "name", "c")
        raise ZeroDivisionError
    assert path.read_bytes() == asked
    with file.together():
        storage.set_trial_user_attr(trial_id, "name", "d")
        storage.set_trial_intermediate_value(trial_id, 1, 0.5)
        assert path.read_bytes() == asked
    assert study.trials[2].user_attrs == {"name": "d"}
    assert study.trials[2].intermediate_values == {1: 0.5}
    assert asked.startswith(whole) and names(path) == ["Ä", "b", "d"]


def test_a_trials_own_score_is_not_what_its_sampler_was_told():
    told = {"value": -0.01, "user_attrs": {"score": 0.4}}
    assert own_score(optuna.create_trial(**told)) == 0.4
    assert own_score(optuna.create_trial(value=0.3)) == 0.3
    stopped = optuna.create_trial(state=optuna.trial.TrialState.PRUNED, value=0.3)
    assert str(own_score(stopped)) == "nan"
