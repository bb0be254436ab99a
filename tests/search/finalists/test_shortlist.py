"""Which trials may still become finalists, whichever ends first and whenever a search is killed."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState

from hms_ray.core.errors import SearchAborted
from hms_ray.core.seeds import stream
from hms_ray.search.disk_limit import DiskLimit
from hms_ray.search.finalists import allocation, shortlist
from hms_ray.search.finalists.shortlist import Shortlist
from hms_ray.search.pruning import ensemble_gain
from hms_ray.search.space.settings import Budget, Race

UNITS, TRIALS, FINALISTS, FOLDS = 60, 24, 3, 2
TARGETS = stream(0, "targets").dirichlet(np.ones(3), UNITS)
NOISE = np.exp(stream(0, "noise").normal(0, 0.8, (UNITS, TRIALS, 3)))
PROBS = TARGETS[:, None] * NOISE / (TARGETS[:, None] * NOISE).sum(-1, keepdims=True)
SCORES = [float(ensemble_gain.row_kl(TARGETS, PROBS[:, i]).mean()) for i in range(TRIALS)]
FAILED = (4, 9)


@dataclass
class Trials:
    """A journal of which some trials have ended; `out` and `considered` outlive the search that wrote them."""

    race: Race
    finalists: int | None = FINALISTS
    ended: set[int] = field(default_factory=set)
    out: list[int] = field(default_factory=list)
    considered: int = 0

    @property
    def space(self):
        return SimpleNamespace(budget=Budget(trials=TRIALS, finalists=self.finalists))

    def trial_id(self, number):
        return f"t{number:03}"

    def trials(self):
        def state(number):
            if number not in self.ended:
                return TrialState.RUNNING
            return TrialState.FAIL if number in FAILED else TrialState.COMPLETE

        return [SimpleNamespace(number=n, state=state(n), value=SCORES[n]) for n in range(TRIALS)]

    def put_out(self, numbers, considered):
        self.out, self.considered = sorted({*self.out, *numbers}), considered

    def shortlist(self, store=None):
        return Shortlist(self, Pruner(self, store))


@dataclass
class Pruner:
    """Plans by one fold of two; spent: what the shortlist said of others, each time."""

    journal: Trials
    store: SimpleNamespace | None
    spent: list[int] = field(default_factory=list)
    folds: tuple[int, ...] = (0,)

    @property
    def race(self):
        return self.journal.race

    def trained(self, trial):
        return 1

    def plan(self, names, spent):
        self.spent.append(spent)
        min_gain = allocation.PRICE / TRIALS if self.race.min_gain is None else self.race.min_gain
        return self._planned(names, price=min_gain * len(names), most=self.journal.finalists)

    def foremost(self, names, count):
        return self._planned(names, price=0.0, most=count).kept

    def _planned(self, names, **terms):
        which = [int(name[1:]) for name in names]
        trained = np.tile([True, False], (len(which), 1))
        probs = PROBS[:, which]
        return allocation.plan(TARGETS, probs, np.arange(UNITS), np.zeros(UNITS, dtype=int), trained, **terms)


def searched(race, order, killed=(), finalists=FINALISTS):
    """Let trials end in that order, the shortlist made anew after some of them; return its end and what went out."""
    journal, gone = Trials(race, finalists), []
    found = journal.shortlist()
    for done, number in enumerate(order):
        journal.ended.add(number)
        if done in killed:
            found = journal.shortlist()
        gone += found.update()
    return found.finalists(), sorted(gone), journal


@pytest.fixture(params=["ensemble", "best", "none"])
def race(request):
    return Race(rule=request.param)


@pytest.mark.parametrize("finalists", [FINALISTS, None])
def test_the_order_of_ends_and_kills_change_nothing(race, finalists):
    expected, gone, journal = searched(race, range(TRIALS), finalists=finalists)
    assert gone == [journal.trial_id(n) for n in journal.out]
    for seed in range(4):
        rng = stream(seed, "order")
        order = np.argsort(np.arange(TRIALS) + rng.uniform(0, 6, TRIALS))  # some side by side
        found, others, _ = searched(race, order, killed=rng.integers(0, TRIALS, 5), finalists=finalists)
        assert found == expected and others == gone


def test_no_more_than_the_shortlist_is_kept_and_no_finalist_was_ever_out(race):
    journal = Trials(race)
    found, kept = journal.shortlist(), []
    for number in range(TRIALS):
        journal.ended.add(number)
        found.update()
        kept.append(number + 1 - len(journal.out) - sum(f <= number for f in FAILED))
    assert max(kept) == shortlist.size(FINALISTS, race) == (7 if race.rule == "ensemble" else 3)
    assert len(found.finalists()) == FINALISTS
    assert not set(found.finalists().values()) & set(journal.out)


def test_of_the_best_trials_it_keeps_exactly_those_that_the_whole_choice_takes():
    found, *_ = searched(Race(rule="best"), range(TRIALS))
    complete = [n for n in range(TRIALS) if n not in FAILED]
    assert sorted(found.values()) == sorted(sorted(complete, key=lambda n: SCORES[n])[:FINALISTS])


def test_its_ensemble_is_about_as_good_as_that_of_a_choice_from_all():
    found, _, journal = searched(Race(), range(TRIALS))
    complete = [n for n in range(TRIALS) if n not in FAILED]
    whole = Pruner(journal, None).plan([journal.trial_id(n) for n in complete], 0).kept

    def score(members):
        return ensemble_gain.row_kl(TARGETS, PROBS[:, members].mean(1)).mean()

    best = score([complete[position] for position in whole])
    assert score(list(found.values())) < best + 0.1 * (np.median(SCORES) - best)


def test_without_a_cap_half_as_many_runners_up_stay_as_the_plan_keeps():
    found, _, journal = searched(Race(min_gain=0.02), range(TRIALS), finalists=None)
    kept, complete = len(found), TRIALS - len(FAILED)
    assert 1 < kept < complete
    assert len(journal.out) >= complete - shortlist.size(kept, Race()) > 0


def test_where_the_disk_is_short_runners_up_go_for_good(monkeypatch):
    expected, _, journal = searched(Race(), range(TRIALS))
    released, room = [], iter([SearchAborted("full")])

    def check(limit):
        if error := next(room, None):
            raise error

    monkeypatch.setattr(DiskLimit, "check", check)
    found = journal.shortlist(SimpleNamespace(folder=SimpleNamespace(root=None), release=released.extend))
    assert found.update() == []
    found.make_room()
    assert len(released) == 4 and not set(released) & set(expected)
    again = journal.shortlist()
    assert again.update() == [] and again.finalists() == expected


def test_folds_of_trials_that_are_no_members_or_will_come_are_spent():
    journal = Trials(Race(folds=0.8), ended={*range(10)})
    found = journal.shortlist()
    found.update()
    found.plan()
    assert found.pruner.spent[-1] == 10 - len(found.members) + (TRIALS - 10)


@pytest.mark.parametrize(
    ("budget", "race", "most"),
    [
        ({}, {}, 24),
        ({"finalists": 5}, {}, 5),
        ({"finalists": 99}, {}, 24),
        ({}, {"folds": 0.5}, 12),
        ({"finalists": 5}, {"folds": 0.25}, 5),
        ({}, {"folds": 0.01}, 1),
        ({}, {"rule": "best"}, 8),
        ({"finalists": 30}, {"rule": "none"}, 24),
    ],
)
def test_how_many_trials_at_most_get_all_folds(budget, race, most):
    assert shortlist.most_finalists(Budget(trials=24, **budget), Race(**race)) == most
