"""Which trials may still become finalists, whichever ends first and whenever a search is killed."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState

from hms_ray.search import racing, shortlist
from hms_ray.search.settings import Budget, Race
from hms_ray.search.shortlist import Shortlist
from hms_ray.seeds import stream

UNITS, TRIALS, FINALISTS = 60, 24, 3
TARGETS = stream(0, "targets").dirichlet(np.ones(3), UNITS)
NOISE = np.exp(stream(0, "noise").normal(0, 0.8, (UNITS, TRIALS, 3)))
PROBS = TARGETS[:, None] * NOISE / (TARGETS[:, None] * NOISE).sum(-1, keepdims=True)
SCORES = [float(racing.row_kl(TARGETS, PROBS[:, i]).mean()) for i in range(TRIALS)]
FAILED = (4, 9)


@dataclass
class Trials:
    """A journal of which some trials have ended; `out` outlives the search that wrote it."""

    rule: str
    ended: set[int] = field(default_factory=set)
    out: list[int] = field(default_factory=list)

    @property
    def space(self):
        return SimpleNamespace(budget=Budget(trials=TRIALS, finalists=FINALISTS))

    def trial_id(self, number):
        return f"t{number:03}"

    def trials(self):
        def state(number):
            if number not in self.ended:
                return TrialState.RUNNING
            return TrialState.FAIL if number in FAILED else TrialState.COMPLETE

        return [SimpleNamespace(number=n, state=state(n), value=SCORES[n]) for n in range(TRIALS)]

    def best(self, count):
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return sorted(complete, key=lambda trial: trial.value)[:count]

    def put_out(self, numbers):
        self.out = sorted({*self.out, *numbers})

    def shortlist(self):
        def choose(names, count, min_gain):
            which = [int(name[1:]) for name in names]
            return [names[i] for i in racing.choose(TARGETS, PROBS[:, which], count, min_gain)]

        return Shortlist(self, SimpleNamespace(race=Race(rule=self.rule), choose=choose))


def searched(rule, order, killed=()):
    """Let trials end in that order, the shortlist made anew after some of them; return its end and what went out."""
    journal, gone = Trials(rule), []
    found = journal.shortlist()
    for done, number in enumerate(order):
        journal.ended.add(number)
        if done in killed:
            found = journal.shortlist()
        gone += found.update()
    return found.finalists(), sorted(gone), journal


@pytest.fixture(params=["ensemble", "best", "none"])
def rule(request):
    return request.param


def test_the_order_of_ends_and_kills_change_nothing(rule):
    expected, gone, journal = searched(rule, range(TRIALS))
    assert len(expected) == FINALISTS and gone == [journal.trial_id(n) for n in journal.out]
    for seed in range(4):
        rng = stream(seed, "order")
        order = np.argsort(np.arange(TRIALS) + rng.uniform(0, 6, TRIALS))  # some side by side
        found, others, _ = searched(rule, order, killed=rng.integers(0, TRIALS, 5))
        assert found == expected and others == gone


def test_no_more_than_the_shortlist_is_kept_and_no_finalist_was_ever_out(rule):
    journal = Trials(rule)
    found, kept = journal.shortlist(), []
    for number in range(TRIALS):
        journal.ended.add(number)
        found.update()
        kept.append(number + 1 - len(journal.out) - sum(f <= number for f in FAILED))
    assert max(kept) == shortlist.size(journal.space.budget, Race(rule=rule)) == (7 if rule == "ensemble" else 3)
    assert not set(found.finalists().values()) & set(journal.out)


def test_of_the_best_trials_it_keeps_exactly_those_that_the_whole_choice_takes():
    found, _, journal = searched("best", range(TRIALS))
    assert sorted(found.values()) == sorted(trial.number for trial in journal.best(FINALISTS))


def test_its_ensemble_is_about_as_good_as_that_of_a_choice_from_all():
    found, _, _ = searched("ensemble", range(TRIALS))
    complete = [n for n in range(TRIALS) if n not in FAILED]
    whole = [complete[i] for i in racing.choose(TARGETS, PROBS[:, complete], FINALISTS, 1e-4)]

    def score(members):
        return racing.row_kl(TARGETS, PROBS[:, members].mean(1)).mean()

    assert score(list(found.values())) < score(whole) + 0.1 * (np.median(SCORES) - score(whole))


def test_where_the_disk_is_short_runners_up_go_for_good():
    expected, _, journal = searched("ensemble", range(TRIALS))
    found = journal.shortlist()
    assert found.update() == []
    gone = found.reduce()
    assert len(gone) == 4 and not set(gone) & set(expected)
    again = journal.shortlist()
    assert again.update() == [] and again.finalists() == expected
