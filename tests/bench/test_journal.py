"""The bench of the journal: it runs, on a small scale, on a real journal with every state in it."""

import pytest

from hms_ray.search.optuna.journal import Journal
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trials_table import trials_table


@pytest.fixture
def bench(repository, monkeypatch):
    """The bench, which is no part of the installed package."""
    monkeypatch.syspath_prepend(repository)
    from bench import journal

    return journal


def test_its_journal_holds_every_state_and_every_report(bench, tmp_path):
    folder = StudyFolder(tmp_path)
    bench.fill(Journal(folder, bench.space("random")), 40)
    assert trials_table(folder)["state"].value_counts().to_dict() == {
        "COMPLETE": 22,
        "PRUNED": 8,
        "FAIL": 2,
        "RUNNING": bench.BEHIND,
    }
    trials = Journal(folder, bench.space("random")).trials()
    assert {len(trial.intermediate_values) for trial in trials[: 40 - bench.BEHIND]} == {bench.REPORTS}
    assert {len(trial.params) for trial in trials} == {len(bench.SEARCH) - 1}, "one of the two conditions holds"


def test_the_table_sets_each_step_beside_optunas_own(bench, tmp_path):
    small = ["--trials", "20", "--repetitions", "2", "--keep", str(tmp_path)]
    lines = list(bench.run([*small, "--samplers", "random", "cmaes"]))
    assert lines[0].startswith("20 trials, 10 dimensions, 15 reports a trial")
    for name in ("random", "cmaes"):
        start = next(n for n, line in enumerate(lines) if line.split()[0] == name)
        steps = {line[:26].strip(): line[26:].split() for line in lines[start + 1 : start + 6]}
        assert {step: len(figures) for step, figures in steps.items()} == {
            "open": 2,
            "first proposal": 1,
            "propose": 2,
            "15 reports": 2,
            "tell": 2,
        }
        assert all(float(figure) > 0 for figures in steps.values() for figure in figures)
        assert (tmp_path / f"{name}.log").is_file()
