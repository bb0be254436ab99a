"""Sets of finished configurations on which searches are replayed: real models drawn in many ways, and made-up ones.

The constants of the allocation were chosen on the 18 real models and random subsets of them, with their own folds. No
constant was fitted to the other sets, but two parts of the rule were changed after results on them had been seen: gains
are expected with their standard errors (near-copies), and the price is shared among folds after the first (10 folds).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from bench._members import jittered, read, softmax
from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.terms import scored_terms
from hms_ray.search.pruning import ensemble_gain
from hms_ray.study.oof import population

FAMILIES = {"multitaper": range(4), "raw EEG image": range(4, 10), "STFT": range(10, 18)}  # of the 18 real models


@dataclass(frozen=True)
class Members:
    """Scored units of M finished configurations: targets (N, K), groups and folds (N,), probs (N, M, K)."""

    targets: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    probs: np.ndarray

    @property
    def every_fold(self) -> np.ndarray:
        """The folds that there are."""
        return np.unique(self.folds)

    def rows(self, folds: Sequence[int]) -> "Members":
        """Return the units of those folds."""
        return self._at(np.isin(self.folds, folds))

    def ensemble(self, members: Sequence[int]) -> float:
        """Return the score of the best pool of those members."""
        terms, shares = self.terms
        terms = terms[:, list(members)]
        return float(-shares @ np.log(terms @ linear.fit_terms(terms, shares).weights))

    def best(self, members: Sequence[int]) -> tuple[float, int]:
        """Return the score of the best of those members, and which it is."""
        return min((self.scores[m], m) for m in members)

    @cached_property
    def terms(self) -> tuple[np.ndarray, np.ndarray]:
        """The predictions (P, M) of the (unit, class) pairs that count, and their shares (P,)."""
        return scored_terms(self.probs, self.targets)

    @cached_property
    def scores(self) -> list[float]:
        """Each member's own score."""
        return [float(ensemble_gain.row_kl(self.targets, member).mean()) for member in self.probs.swapaxes(0, 1)]

    def of(self, members: Sequence[int]) -> "Members":
        """Return those members alone."""
        return replace(self, probs=self.probs[:, list(members)])

    def half(self, rng: np.random.Generator) -> "Members":
        """Return the units of half of the patients."""
        patients = np.unique(self.groups)
        return self._at(np.isin(self.groups, rng.permutation(patients)[: len(patients) // 2]))

    def dealt(self, n_folds: int, rng: np.random.Generator) -> "Members":
        """Return the same units in other folds: patients go, largest first, to the fold that has fewest units."""
        patients, group, sizes = np.unique(self.groups, return_inverse=True, return_counts=True)
        shuffled = rng.permutation(len(patients))
        units, fold = np.zeros(n_folds), np.empty(len(patients), dtype=int)
        for patient in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            fold[patient] = units.argmin()
            units[fold[patient]] += sizes[patient]
        return replace(self, folds=fold[group])

    def _at(self, rows: np.ndarray) -> "Members":
        return Members(self.targets[rows], self.groups[rows], self.folds[rows], self.probs[rows])


@dataclass(frozen=True)
class RaceSet:
    """A set by its name; `draw` makes one of its resamplings from a random stream; fixed: all of them are equal."""

    name: str
    draw: Callable[[np.random.Generator], Members]
    fixed: bool = False


def real(paths: list[Path], min_votes: int) -> Members:
    """Read the scored population of real files."""
    found = read(paths)
    scored = population(found.votes, min_votes)
    return Members(found.targets[scored], found.group_ids[scored], found.folds[scored], found.probs[scored])


def real_sets(paths: list[Path], min_votes: int) -> list[RaceSet]:
    """Return the sets made from real files; the families apart where they are the 18 models that this bench knows."""
    members = real(paths, min_votes)
    count = members.probs.shape[1]
    sizes = [size for size in (6, 9, 12) if size < count]
    sets = [
        RaceSet(f"{count} real models", lambda rng: members, fixed=True),
        *(RaceSet(f"{size} of {count} real models", partial(_some, members, size)) for size in sizes),
        RaceSet("half the patients", members.half),
        *(RaceSet(f"dealt again in {n} folds", partial(members.dealt, n)) for n in (3, 5, 10)),
        RaceSet(f"{count} real models, {count} blends", partial(_with_blends, members)),
    ]
    if count > 9:
        sets += [
            RaceSet("9 models, half the patients", lambda rng: _some(members, 9, rng).half(rng)),
            RaceSet("9 models, 3 folds", lambda rng: _some(members, 9, rng).dealt(3, rng)),
            RaceSet("9 models, 10 folds", lambda rng: _some(members, 9, rng).dealt(10, rng)),
        ]
    if count == 18:
        sets += [RaceSet(f"family {name}", lambda rng, of=of: members.of(of), True) for name, of in FAMILIES.items()]
    if min_votes > 1:
        everyone = real(paths, 1)
        sets.append(RaceSet("all counts of votes", lambda rng: everyone, fixed=True))
    return sets


def made_up_sets() -> list[RaceSet]:
    """Return the sets of made-up members, from few strong families to hundreds of near-copies."""
    return [
        RaceSet("made up: 12, every third poor", lambda rng: simulated(int(rng.integers(1 << 30)))),
        RaceSet("made up: 6 of their own", partial(related, families=6, copies=1)),
        RaceSet("made up: 40 alike", partial(related, families=1, copies=40)),
        RaceSet("made up: 2 families of 4", partial(related, families=2, copies=4)),
        RaceSet("made up: 2 families of 20", partial(related, families=2, copies=20)),
        RaceSet("made up: 10 families of 20", partial(related, families=10, copies=20)),
        RaceSet("made up: 200 near-copies", partial(related, families=1, copies=200, own=0.15)),
    ]


def related(
    rng: np.random.Generator, families: int, copies: int, own: float = 0.4, n_patients: int = 500, n_folds: int = 5
) -> Members:
    """Return members of some families; the errors of copies correlate by 1 - own^2, those of families by a half.

    Errors are by patient and by unit, a few patients have many units, and members are as strong as real ones.
    """
    sizes = np.minimum(rng.zipf(1.7, n_patients), 60)
    patients, count = np.repeat(np.arange(n_patients), sizes), families * copies

    def errors(members: int) -> np.ndarray:
        by_patient = rng.normal(0, 0.7, (n_patients, members, 6))[patients]
        return by_patient + rng.normal(0, 0.7, (len(patients), members, 6))

    alike = 0.7 * errors(1) + 0.7 * np.repeat(errors(families), copies, axis=1)
    apart = np.sqrt(1 - own**2) * alike + own * errors(count)
    logits = rng.normal(0, 2, (n_patients, 1, 6))[patients] + rng.normal(0, 1, (len(patients), 1, 6))
    probs = softmax(logits + apart * rng.uniform(0.8, 1.2, (count, 1)))
    votes = rng.integers(10, 17, len(patients))
    targets = rng.multinomial(votes, softmax(logits[:, 0])) / votes[:, None]
    return Members(targets, patients, patients, probs).dealt(n_folds, rng)


def simulated(seed: int, n_patients: int = 400, n_members: int = 12, n_folds: int = 5) -> Members:
    """Return members that err on patients and units, partly alike and partly each its own way; every third is poor."""
    rng = stream(seed, "bench", "racing")
    groups = np.repeat(np.arange(n_patients), rng.integers(1, 6, n_patients))
    shape = (n_patients, n_members + 1, 6)
    logits = rng.normal(0, 1.5, (n_patients, 1, 6))[groups] + rng.normal(0, 1.2, (len(groups), 1, 6))
    alike = rng.normal(0, 0.6, (len(groups), 1, 6))
    errors = alike + rng.normal(0, 0.4, shape)[groups] + rng.normal(0, 0.4, (len(groups), *shape[1:]))
    size = np.where(np.arange(n_members + 1) % 3, rng.uniform(0.8, 1.2, n_members + 1), 2.5)
    size[-1] = 0  # the last one is the truth
    odds = np.exp(logits + size[:, None] * errors)
    probs = odds / odds.sum(-1, keepdims=True)
    return Members(rng.multinomial(10, probs[:, -1]) / 10, groups, groups % n_folds, probs[:, :-1])


def _some(members: Members, size: int, rng: np.random.Generator) -> Members:
    return members.of(np.sort(rng.choice(members.probs.shape[1], size, replace=False)))


def _with_blends(members: Members, rng: np.random.Generator) -> Members:
    blends = jittered(members.probs, members.probs.shape[1], int(rng.integers(1 << 30)))
    return replace(members, probs=np.concatenate([members.probs, blends], axis=1))
