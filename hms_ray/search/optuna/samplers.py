"""Who proposes configurations: Optuna's samplers by name, and what of a search they get to see.

tpe     multivariate, one model for each group of dimensions that occur together, so that conditions (`when`) are part
        of it; trials still running count as poor ones, so that trials side by side differ
random  each trial by itself
gp      a Gaussian process over the dimensions that every trial has; its cost grows with the cube of the trials, so it
        is for searches of few and long ones: `python -m bench journal --samplers gp` says what a proposal takes
cmaes   CMA-ES over the numbers that every trial has

A configuration that cannot be trained is no trial: another one is drawn in its place. For that draw, it counts as poor
as the worst trial known, so that samplers turn elsewhere.

Dimensions that gp and cmaes cannot model (conditional ones; for cmaes choices as well) are proposed by a TPE of one
dimension at a time, which learns as well, unlike the random numbers that Optuna would take.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError, SearchAborted
from hms_ray.search.space.space import Space
from hms_ray.study.journal_records import MEMBER

DRAWS = 100  # that may be invalid, one after the other, before the search is aborted
OWN_DRAWS = 20  # of them by the space's own sampler, which might return to the same place for ever

Fault = Callable[[Mapping[str, Any]], str | None]  # why a run cannot be trained; None: it can


def faultless(run: Mapping[str, Any]) -> None:
    """Accept every run."""


def check(space: Space) -> None:
    """Refuse a sampler that cannot work here, before anything starts.

    Raises:
        ConfigError: gp or cmaes with a union, cmaes without its package, or without a number to search.
    """
    name = space.sampler.name
    if name not in ("gp", "cmaes"):
        return
    if MEMBER in space.search:
        raise ConfigError(
            f"space {space.name}: sampler {name} needs ranges that every trial has, and of a union no trial has all; "
            "take tpe or random"
        )
    if name == "cmaes":
        _check_cmaes(space)


def _check_cmaes(space: Space) -> None:
    if find_spec("cmaes") is None:
        raise ConfigError(f"space {space.name}: sampler cmaes needs the package cmaes: pip install cmaes")
    if not _numbers(space):
        raise ConfigError(
            f"space {space.name}: sampler cmaes needs a uniform, log_uniform or int range without `when`, and there "
            "is none; take tpe"
        )


def sampler(space: Space, number: int, attempt: int = 0) -> BaseSampler:
    """Return the space's sampler for one trial; its seed is of that trial, so that no restart changes a proposal.

    attempt: how many configurations were invalid that were drawn for this trial before; after OWN_DRAWS of them
        random draws follow
    """
    name = space.sampler.name if attempt < OWN_DRAWS else "random"
    seed = seeds.derive(space.run.seed, name, space.name, number, *([attempt] if attempt else []))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "random":
                return RandomSampler(seed=seed)
            case "gp":
                return GPSampler(seed=seed, independent_sampler=TPESampler(seed=seed), warn_independent_sampling=False)
            case "cmaes":
                return _FixedCmaEs(_numbers(space), seed)
            case _:
                return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


class Proposer:
    """Asks the space's sampler, whose view of the trials is kept from one proposal to the next.

    Building that view anew takes longer than the sampler itself. It grows in the same steps either way, so a proposal
    is the same from a view that was kept and from a new one.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._forget()

    def propose(
        self,
        trials: Sequence[FrozenTrial],
        known: int,
        start: Mapping[str, Any] | None,
        fault: Fault = faultless,
    ) -> tuple[FrozenTrial, dict[str, Any]]:
        """Return the trial that follows these, not yet run, and its run.

        trials: all so far, by number; the sampler sees the parameters of all and the results of the first `known`
        start: parameters that are tried as they are; the sampler fills in what they lack
        fault: configurations that have one are replaced; how often each fault was met is the trial's `replaced`

        Raises:
            SearchAborted: DRAWS configurations in a row cannot be trained.
        """
        self._learn(trials, known)
        replaced: Counter[str] = Counter()
        for attempt in range(DRAWS):
            asked, run = self._draw(len(trials), attempt, None if attempt else start)
            if (cause := fault(run)) is None:
                break
            replaced[cause] += 1
            self._reject(asked)
        else:
            self._forget()
            cause, count = replaced.most_common(1)[0]
            raise SearchAborted(
                f"space {self.space.name}: {DRAWS} proposals in a row were invalid: {cause} ({count} of {DRAWS}). "
                "Remove this combination from the ranges, or give one of them a `when`"
            )
        self.shown += 1
        trial = running(self.view.get_trials(deepcopy=False)[-1], {"replaced": dict(replaced)} if replaced else {})
        if replaced:
            self._forget()  # a view that is built from the journal after a restart has no invalid draws
        return trial, run

    def _draw(
        self, number: int, attempt: int, start: Mapping[str, Any] | None
    ) -> tuple[optuna.trial.Trial, dict[str, Any]]:
        self.view.sampler = sampler(self.space, number, attempt)
        if start is not None:
            self.view.enqueue_trial(dict(start))
        asked = self.view.ask()
        return asked, self.space.suggest(asked)

    def _reject(self, asked: optuna.trial.Trial) -> None:
        """Let an invalid draw count as poor as the worst trial known; before there is one, as failed."""
        complete = self.view.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if complete:
            self.view.tell(asked, max(trial.value for trial in complete))
        else:
            self.view.tell(asked, state=TrialState.FAIL)

    def _forget(self) -> None:
        self.view = optuna.create_study(storage=_View())
        self.shown = self.known = 0

    def _learn(self, trials: Sequence[FrozenTrial], known: int) -> None:
        if self.shown > len(trials) or self.known > known:  # what was asked for last was never recorded
            self._forget()
        for trial in trials[self.shown :]:
            self.view.add_trial(running(trial))
        for trial in trials[self.known : known]:
            self._tell(trial)
        self.shown, self.known = len(trials), known

    def _tell(self, trial: FrozenTrial) -> None:
        """A stopped trial counts at its estimate; a failed one, or one without an estimate, not at all."""
        value = trial.value if trial.state == TrialState.COMPLETE else trial.user_attrs.get("estimate")
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self.view.tell(trial.number, value, state)


def running(trial: FrozenTrial, user_attrs: dict[str, Any] | None = None) -> FrozenTrial:
    """Return the trial without a result, with what its sampler noted, and with attributes of ours."""
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=trial.system_attrs,
        user_attrs=user_attrs,
    )


class _View(InMemoryStorage):
    """Trials as a sampler may see them."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Samplers note what they propose for others that ask meanwhile; nobody does, and conditions may drop some."""
        if "relative_params" not in key:
            super().set_trial_system_attr(trial_id, key, value)


class _FixedCmaEs(CmaEsSampler):
    """CMA-ES over dimensions that are given; Optuna's own takes those that all trials so far happen to have, and is
    out of work for good as soon as one of them drops out."""

    def __init__(self, numbers: dict[str, BaseDistribution], seed: int) -> None:
        super().__init__(seed=seed, independent_sampler=TPESampler(seed=seed), warn_independent_sampling=False)
        self.numbers = numbers

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the given dimensions."""
        return self.numbers


def _numbers(space: Space) -> dict[str, BaseDistribution]:
    """Return the dimensions of a space that every trial has and that are numbers, sorted by name."""
    found = {}
    for item in space.ranges:
        trial = FixedTrial({item.path: item.encode(item.ends[0])})
        item.suggest(trial)
        if not item.when and not isinstance(trial.distributions[item.path], CategoricalDistribution):
            found[item.path] = trial.distributions[item.path]
    return dict(sorted(found.items()))
