"""The journal: true states, proposals that a restart does not change, one driver at a time."""

import copy
import math
import multiprocessing
import os
import platform
import re
import signal
import threading
import time

import optuna
import pytest

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.search.optuna.journal import Journal, one_driver
from hms_ray.search.space.space import parse
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trials_table import COLUMNS, trials_table
from hms_ray.training.run_config import parse_run

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "stages": [{"epochs": 1, "lr": 0.01}],
}
SEARCH = {
    "model": {"choice": [{"name": "basic_cnn", "width": 4, "depth": 2}, {"name": "basic_cnn", "depth": 3}]},
    "model.width": {"int": [4, 64], "when": {"model.depth": 3}},
    "model.drop_rate": {"uniform": [0.0, 0.5]},
    "stages.0.lr": {"log_uniform": [1e-4, 1e-1]},
}


def a_space(seed=0, name="toy", search=SEARCH):
    return parse(name, {"base": copy.deepcopy(BASE) | {"seed": seed}, "search": search})


def value_of(run):
    """A made-up score that a sampler can learn from."""
    return abs(math.log(run["stages"][0]["lr"]) + 5) + run["model"].get("drop_rate", 0.1)


def play(folder, trials, reopen=False, space=None):
    """Run so many trials one after the other and return their runs."""
    folder.root.mkdir(parents=True, exist_ok=True)
    space = space or a_space()
    journal, runs = Journal(folder, space), []
    for _ in range(trials):
        journal = Journal(folder, space) if reopen else journal
        number, run = journal.propose(0)
        journal.complete(number, value_of(run), 1.0)
        runs.append(run)
    return runs


def test_a_round_is_recorded_with_those_that_go_out(tmp_path):
    folder, space = StudyFolder(tmp_path), a_space()
    play(folder, 4, space=space)
    journal = Journal(folder, space)
    assert (journal.rounds, journal.out, journal.considered) == ([], [], 0)
    journal.put_out([3], 4)
    journal.put_round([(2, 1), (0, 1)], [0, 2], [1], 4)
    again = Journal(folder, space)
    assert again.rounds == [{"pairs": [[2, 1], [0, 1]], "kept": [0, 2]}]
    assert (again.out, again.considered) == ([1, 3], 4)
    again.put_round([(0, 2)], [0], [], 4)
    assert [len(one["pairs"]) for one in Journal(folder, space).rounds] == [2, 1]


def test_the_first_trial_is_the_base_run(tmp_path):
    space = a_space()
    number, run = Journal(StudyFolder(tmp_path), space).propose(8)
    assert number == 0
    assert parse_run(run) == space.run


def test_a_base_outside_its_ranges_is_not_forced_into_the_search(tmp_path):
    space = a_space(search={"model.width": {"int": [8, 64]}})
    _, run = Journal(StudyFolder(tmp_path), space).propose(8)
    assert run["model"]["width"] >= 8


def test_proposals_after_restarts_equal_those_of_an_undisturbed_search(tmp_path):
    one, two = (play(StudyFolder(tmp_path / n), 16, reopen) for n, reopen in (("a", False), ("b", True)))
    assert one == two
    assert len({run["stages"][0]["lr"] for run in one}) == 16, "proposals differ from each other"


def test_another_seed_or_another_name_gives_other_proposals(tmp_path):
    spaces = [a_space(), a_space(seed=1), a_space(name="other")]
    runs = [play(StudyFolder(tmp_path / str(i)), 4, space=space) for i, space in enumerate(spaces)]
    assert runs[0][1:] != runs[1][1:]
    assert runs[0][1:] != runs[2][1:]


def test_trials_that_a_stopped_driver_left_come_back_as_they_were(tmp_path):
    folder, space = StudyFolder(tmp_path), a_space()
    journal = Journal(folder, space)
    proposed = [journal.propose(8) for _ in range(4)]
    journal.complete(*[proposed[1][0], 1.0, 1.0])
    assert Journal(folder, space).unfinished() == [proposed[0], proposed[2], proposed[3]]


def test_which_of_the_newest_trials_ended_first_changes_no_proposal(tmp_path):
    proposals = []
    for name, order in (("a", (0, 1, 2, 3)), ("b", (3, 1, 0))):
        (tmp_path / name).mkdir()
        journal = Journal(StudyFolder(tmp_path / name), a_space())
        runs = [journal.propose(4)[1] for _ in range(4)]
        for number in order:
            journal.complete(number, value_of(runs[number]), 1.0)
        proposals.append(journal.propose(4))
    assert proposals[0] == proposals[1]


def test_a_proposal_waits_for_the_older_trials_and_no_others(tmp_path):
    journal = Journal(StudyFolder(tmp_path), a_space())
    for _ in range(2):
        journal.propose(2)
    journal.complete(1, 1.0, 1.0)
    assert journal.propose(2)[0] == 2
    assert journal.propose(2) is None, "trial 0 is older than the two newest, and still running"
    assert len(journal.trials()) == 3, "and nothing was begun"
    journal.complete(0, 1.0, 1.0)
    assert journal.propose(2)[0] == 3


def test_a_run_is_rebuilt_from_its_parameters(tmp_path):
    journal = Journal(StudyFolder(tmp_path), a_space())
    for _ in range(8):
        number, run = journal.propose(8)
        journal.complete(number, value_of(run), 1.0)
        assert journal.run(number) == run


def test_states_values_and_causes_are_what_happened(tmp_path):
    folder = StudyFolder(tmp_path)
    journal = Journal(folder, a_space())
    for _ in range(3):
        journal.propose(8)
    journal.report(0, 1, 0.9)
    journal.report(0, 2, 0.7)
    journal.complete(0, 0.5, 12.5)
    journal.fail(1, "the training loss became nan in epoch 3")
    table = trials_table(folder).set_index("trial")
    assert table["state"].to_dict() == {"toy-0000": "COMPLETE", "toy-0001": "FAIL", "toy-0002": "RUNNING"}
    assert table.loc["toy-0000", "value"] == 0.5
    assert table.loc["toy-0000", "seconds"] == 12.5
    assert math.isnan(table.loc["toy-0001", "value"])
    assert table["cause"].tolist() == ["", "the training loss became nan in epoch 3", ""]
    assert Journal(folder, a_space()).trials()[0].intermediate_values == {1: 0.9, 2: 0.7}


def test_a_stopped_trial_is_pruned_with_its_estimate_and_why(tmp_path):
    folder = StudyFolder(tmp_path)
    journal = Journal(folder, a_space())
    journal.propose(8)
    journal.reports(0, [(1, 0.9), (2, 0.8)])
    journal.prune(0, 0.7, 0.25, "cannot improve the ensemble", 33.0)
    trial = journal.trial(0)
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.9, 2: 0.8}
    row = trials_table(folder).iloc[0]
    assert (row["state"], row["estimate"], row["fidelity"], row["seconds"]) == ("PRUNED", 0.7, 0.25, 33.0)
    assert row["cause"] == "cannot improve the ensemble"
    assert math.isnan(row["value"]) and math.isnan(row["score"]), "an estimate is no score"
    assert journal.best(1) == []


def test_a_value_that_is_not_the_score_stands_beside_it(tmp_path):
    folder = StudyFolder(tmp_path)
    journal = Journal(folder, a_space())
    for _ in range(2):
        journal.propose(8)
    journal.complete(0, -0.02, 9.0, score=0.4, gain=0.02)
    journal.fail(1, "it broke", seconds=4.0)
    table = trials_table(folder)
    assert table["value"].tolist()[0] == -0.02 and table["score"].tolist()[0] == 0.4
    assert table["seconds"].tolist() == [9.0, 4.0]
    assert table.loc[1, ["value", "score", "estimate", "fidelity"]].isna().all()
    assert journal.trial(0).user_attrs == {"known": 0, "seconds": 9.0, "score": 0.4, "gain": 0.02}


def test_a_trial_is_judged_by_those_that_ended_long_enough_before_it(tmp_path):
    journal = Journal(StudyFolder(tmp_path), a_space())
    for _ in range(5):
        journal.propose(8)
    assert journal.view(5, 8) == journal.view(0, 0) == []
    journal.complete(0, 0.5, 1.0)
    journal.fail(2, "it broke")
    assert [trial.number for trial in journal.view(4, 3)] == [0]
    assert journal.view(4, 1) is None, "trial 1 is still running"
    journal.prune(1, 0.4, 0.5, "cannot be the best", 1.0)
    assert [trial.number for trial in journal.view(4, 1)] == [0, 1, 2]
    assert [trial.number for trial in journal.view(5, 2)] == [0, 1, 2], "whatever runs beside them"


def test_a_finished_trial_is_not_ended_twice(tmp_path):
    journal = Journal(StudyFolder(tmp_path), a_space())
    journal.propose(8)
    journal.complete(0, 0.5, 1.0)
    with pytest.raises((ValueError, optuna.exceptions.UpdateFinishedTrialError)):
        journal.complete(0, 0.1, 1.0)
    assert journal.trials()[0].value == 0.5


def test_a_value_that_is_nan_is_refused_and_leaves_the_trial_as_it_was(tmp_path):
    journal = Journal(StudyFolder(tmp_path), a_space())
    journal.propose(8)
    with pytest.raises(ValueError, match="not acceptable"):
        journal.complete(0, math.nan, 1.0)
    assert journal.trial(0).user_attrs == {"known": 0}
    journal.fail(0, "its score is nan")


def test_the_best_are_finished_trials_and_the_older_wins_a_tie(tmp_path):
    journal = Journal(StudyFolder(tmp_path), a_space())
    for score in (0.5, 0.3, None, 0.3, 0.1):
        number, _ = journal.propose(8)
        if score is None:
            journal.fail(number, "no")
        else:
            journal.complete(number, score, 1.0)
    journal.propose(8)
    assert [trial.number for trial in journal.best(3)] == [4, 1, 3]
    assert [trial.number for trial in journal.best(99)] == [4, 1, 3, 0]


def test_the_table_shows_sections_as_they_stand_in_the_space(tmp_path):
    folder = StudyFolder(tmp_path)
    runs = play(folder, 6)
    params = trials_table(folder)["params"].tolist()
    assert {p["model"]["depth"] for p in params} == {2, 3}
    assert [p["model"]["depth"] for p in params] == [run["model"]["depth"] for run in runs]


def test_spaces_of_one_study_have_trials_of_their_own(tmp_path):
    folder = StudyFolder(tmp_path)
    play(folder, 2)
    play(folder, 3, space=a_space(name="other"))
    table = trials_table(folder)
    assert table.groupby("space")["number"].apply(list).to_dict() == {"toy": [0, 1], "other": [0, 1, 2]}


def test_a_study_without_a_search_has_an_empty_table(tmp_path):
    table = trials_table(StudyFolder(tmp_path))
    assert (list(table.columns), len(table)) == (COLUMNS, 0)
    assert not list(tmp_path.iterdir()), "looking changes nothing"


def test_three_hundred_trials_stay_quick(tmp_path):
    folder = StudyFolder(tmp_path)
    journal = Journal(folder, a_space())
    for number in range(300):
        trial = optuna.create_trial(
            params={"model.drop_rate": 0.1},
            distributions={"model.drop_rate": optuna.distributions.FloatDistribution(0, 0.5)},
            value=number / 300,
        )
        journal.study.add_trial(trial)
    started = time.process_time()
    number, _ = Journal(folder, a_space()).propose(8)
    assert number == 300
    assert len(trials_table(folder)) == 301
    assert time.process_time() - started < 5


def test_opening_again_writes_nothing(tmp_path):
    folder = StudyFolder(tmp_path)
    play(folder, 3)
    before = folder.journal.read_bytes()
    assert len(Journal(folder, a_space()).trials()) == 3
    assert folder.journal.read_bytes() == before


def test_a_search_goes_on_from_a_journal_cut_anywhere_in_its_last_records(tmp_path):
    undisturbed = play(StudyFolder(tmp_path / "whole"), 14)
    folder = StudyFolder(tmp_path / "cut")
    play(folder, 12)
    whole = folder.journal.read_bytes()
    last = whole[: whole.rindex(b'"op_code":4')].rindex(b"\n") + 1  # from where the last trial begins
    for cut in range(last, len(whole), 23):
        folder.journal.write_bytes(whole[:cut])
        journal = Journal(folder, a_space())
        runs = [journal.run(trial.number) for trial in journal.trials()]
        for number, run in journal.unfinished():
            journal.complete(number, value_of(run), 1.0)
        while len(runs) < 14:
            number, run = journal.propose(0)
            journal.complete(number, value_of(run), 1.0)
            runs.append(run)
        assert runs == undisturbed


def test_a_clock_that_jumps_changes_nothing(tmp_path):
    undisturbed, folder = play(StudyFolder(tmp_path / "a"), 14), StudyFolder(tmp_path / "b")
    play(folder, 12)
    years = iter(range(1971, 2400))
    jumped = re.sub(
        r'(datetime_\w+":")\d{4}', lambda m: f"{m[1]}{next(years) * 7 % 400 + 1700}", folder.journal.read_text()
    )
    assert jumped != folder.journal.read_text()
    folder.journal.write_text(jumped)
    assert play(folder, 2) == undisturbed[12:]


def test_threads_share_a_journal(tmp_path):
    journal = Journal(StudyFolder(tmp_path), a_space())
    for _ in range(6):
        journal.propose(8)

    def end(number):
        for step in range(1, 6):
            journal.report(number, step, number + step / 10)
        journal.complete(number, float(number), 1.0, name=str(number))

    threads = [threading.Thread(target=end, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        journal.propose(12)
    for thread in threads:
        thread.join(30)
    again = Journal(StudyFolder(tmp_path), a_space()).trials()
    assert len(again) == 10
    for trial in again[:6]:
        assert trial.intermediate_values == {step: trial.number + step / 10 for step in range(1, 6)}
        assert (trial.value, trial.user_attrs["name"]) == (trial.number, str(trial.number))


def _hold(folder, held):
    with one_driver(folder):
        held.set()
        time.sleep(60)


def test_a_second_driver_is_refused_until_the_first_one_is_killed(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    processes = multiprocessing.get_context("fork")
    held = processes.Event()
    holder = processes.Process(target=_hold, args=(folder, held))
    holder.start()
    try:
        assert held.wait(20)
        who = rf"is in use by another hms-ray process \({holder.pid} on {re.escape(platform.node())}\)"
        with pytest.raises(ConfigError, match=who), one_driver(folder):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(10)
        with one_driver(folder):
            assert folder.root.is_dir()
    finally:
        holder.kill()
        holder.join(10)


def test_a_study_is_given_back_after_an_error(tmp_path):
    folder = StudyFolder(tmp_path)
    with pytest.raises(ZeroDivisionError), one_driver(folder):
        raise ZeroDivisionError
    with one_driver(folder):
        assert not folder.study.exists()


def test_a_file_is_no_study_folder(tmp_path):
    path = tmp_path / "study"
    path.write_text("mine")
    for root in (path, path / "below"):
        with pytest.raises(ConfigError, match="study is a file, not a folder"), one_driver(StudyFolder(root)):
            pass
    assert path.read_text() == "mine"


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_journal_that_lacks_trials_of_the_folder_is_refused_by_a_search_and_by_a_report(tmp_path, left):
    folder = StudyFolder(tmp_path)
    play(folder, 3)
    for number in range(3):
        folder.trial(f"toy-{number:04d}").root.mkdir(parents=True)
    assert len(Journal(folder, a_space()).trials()) == len(trials_table(folder)) == 3
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    begins = [n for n, line in enumerate(lines) if b'"op_code":4' in line]
    folder.journal.write_bytes(b"".join(lines[: begins[left] if left else 0]))
    before = folder.journal.read_bytes()
    for use in (lambda: Journal(folder, a_space()), lambda: trials_table(folder)):
        with pytest.raises(DataError, match=rf"no record of {3 - left} of the trials in .*, such as toy-000{left}: "):
            use()
    assert folder.journal.read_bytes() == before
    folder.journal.unlink()
    with pytest.raises(DataError, match="put the file back from a copy, or choose another --study"):
        Journal(folder, a_space())


def test_a_study_that_was_killed_before_its_first_record_goes_on(tmp_path):
    folder = StudyFolder(tmp_path)
    folder.trial("toy-base").root.mkdir(parents=True)
    for begun in (b"", b'{"op_code":0,"worker'):
        folder.journal.write_bytes(begun)
        assert len(trials_table(folder)) == 0
        assert Journal(folder, a_space()).propose(0)[0] == 0


def test_what_was_known_stays_known_when_more_trials_run_at_once(tmp_path):
    """A node joins after the third trial: the next ones see what that one saw, until they are far enough ahead."""
    journal = Journal(StudyFolder(tmp_path), a_space())
    for number in range(9):
        journal.propose(0 if number < 3 else 4, concurrency=1 if number < 3 else 3)
        journal.complete(number, 0.1, 1.0)
    again = Journal(StudyFolder(tmp_path), a_space())
    assert [again.known(number) for number in range(9)] == [0, 1, 2, 2, 2, 2, 2, 3, 4]
    assert again.concurrency() == 3
