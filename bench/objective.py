"""What a trial should be told: the score of how many folds, and after which epoch.

A trial is worth what it delivers: its score on all folds, each at the epoch that the other folds choose. Optuna is told
less. This bench asks how well less orders configurations, on finished tables and on a study of which all trials have
all folds, and what that costs a search that may train so many folds: one fold of each of many configurations, or more
folds of fewer.

What orders is never on the rows that it is compared with: scores of some folds are set beside those of the other folds.
"""

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
from scipy.stats import spearmanr

from bench import _race_sets
from bench._members import add_files
from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.core.seeds import stream
from hms_ray.search.pruning import ensemble_gain
from hms_ray.study import epoch_selection

PARAMS = 6  # of the made-up search
NOISES = 0.3, 0.6, 1.0, 2.0, 3.0  # of a fold, over the spread of configurations
GOOD = 4  # configurations that a search hands on


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the three tables: folds on finished tables, epochs in a study, and searches at equal folds."""
    options = _options(arguments)
    sets = (_race_sets.real_sets(options.oof, options.min_votes) if options.oof else []) + _race_sets.made_up_sets()
    yield "rank correlation of the score on k folds with the score on the others, mean over choices of folds"
    yield f"{'set':34} {'configurations':>14} {'1 fold':>7} {'2 folds':>8} {'fold / config':>13}"
    for one in sets:
        if not one.fixed or one is sets[0]:
            members = one.draw(stream(options.seed, "bench", "objective", one.name))
            scores = fold_scores(members)
            found = [f"{order_of(scores, k):{width}.2f}" for k, width in ((1, 7), (2, 8))]
            yield f"{one.name:34} {len(scores):14} {' '.join(found)} {noise(scores):13.2f}"
    if options.study:
        curves, units = read_curves(options.study)
        yield from _epochs(curves, units)
    yield from _searches(options)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench objective", description=__doc__)
    add_files(parser)
    parser.add_argument("--min-votes", type=int, default=10, help="the scored population of real files")
    parser.add_argument("--study", type=Path, help="a study folder of which all trials have all folds")
    parser.add_argument("--folds-to-train", type=int, default=40, help="what a made-up search may train")
    parser.add_argument("--searches", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def fold_scores(members: _race_sets.Members) -> np.ndarray:
    """Return the score (M, F) of each configuration on each fold."""
    loss = np.stack([ensemble_gain.row_kl(members.targets, one) for one in members.probs.swapaxes(0, 1)])
    return np.stack([loss[:, members.folds == fold].mean(1) for fold in members.every_fold], axis=1)


def order_of(scores: np.ndarray, k: int) -> float:
    """Return the mean rank correlation of the mean of k folds that follow each other with that of all others."""
    if k >= scores.shape[1]:
        return float("nan")
    pairs = [(scores[:, seen].mean(1), scores[:, ~seen].mean(1)) for seen in _neighbours(scores.shape[1], k)]
    return float(np.mean([spearmanr(*pair).statistic for pair in pairs]))


def _neighbours(n_folds: int, k: int) -> list[np.ndarray]:
    """Return the masks (F,) of k folds that follow each other."""
    return [np.isin(np.arange(n_folds), (first + np.arange(k)) % n_folds) for first in range(n_folds)]


def noise(scores: np.ndarray) -> float:
    """Return the standard deviation of a fold's score beside the effects of configuration and fold, over that of
    configurations, by the analysis of variance of scores (M, F)."""
    n_trials, n_folds = scores.shape
    apart = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    within = (apart**2).sum() / ((n_trials - 1) * (n_folds - 1))
    between = scores.mean(1).var(ddof=1) - within / n_folds
    return float(np.sqrt(within / between)) if between > 0 else float("inf")


def read_curves(study: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the held-out score (T, F, E) after each epoch, and the scored units (F,).

    Trials of fewer folds, and those whose schedule is not the most frequent, are left out.

    Raises:
        ConfigError: no trial has all folds.
    """
    found, units = [], np.empty(0)
    for path in sorted(study.glob("oof/*.parquet"))[:1]:
        votes = files.read_table(path)[["fold", "votes"]]
        scored = votes[votes["votes"] >= files.read_json(study / "study.json")["score"]["min_votes"]]
        units = scored.groupby("fold").size().to_numpy()
    for path in sorted(study.glob("trials/*/epochs.parquet")):
        curves = files.read_table(path).pivot(index="fold", columns="epoch", values="score").to_numpy()
        if len(curves) == len(units) and np.isfinite(curves).all():
            found.append(curves)
    if not found:
        raise ConfigError(
            f"{study}: no trial has all its folds. `hms-ray search` makes such a study with --set race.rule=none, and "
            "budget.trial_folds and budget.finalists as many as its folds and trials"
        )
    shapes = [curves.shape for curves in found]
    usual = max(sorted(set(shapes)), key=shapes.count)
    return np.stack([curves for curves in found if curves.shape == usual]), units


def _epochs(curves: np.ndarray, units: np.ndarray) -> Iterator[str]:
    """Yield how epochs of one fold order configurations, and what they deliver by the rule that chooses one."""
    n_trials, n_folds, n_epochs = curves.shape
    yield f"a study: {n_trials} configurations, {n_folds} folds, {n_epochs} epochs, {units.sum()} scored units"
    yield f"the last epoch's score: fold / config {noise(curves[:, :, -1]):.2f}"
    third = len(epoch_selection.Candidates().epochs("best", n_epochs))
    told = {
        "the last epoch": curves[:, :, -1],
        "the best of all epochs": curves.min(2),
        f"the best of the last {third}": curves[:, :, -third:].min(2),
        f"the mean of the last {third}": curves[:, :, -third:].mean(2),
    }
    yield f"rank correlation with what the other folds deliver   {'1 fold':>7} {'2 folds':>8}"
    for name, scores in told.items():
        one, two = (delivered_order(curves, scores, units, k) for k in (1, 2))
        yield f"  {name:50} {one:7.2f} {two:8.2f}"
    last = np.average(curves[:, :, -1], axis=1, weights=units)
    yield f"delivered score, mean over configurations: the last epoch {last.mean():.5f}"
    chosen = {
        f"the best on the other folds, of the last {third}": deliver_plainly(curves, units, third),
        "ours: better on the other folds by more than its error": deliver(curves, units),
        f"the best of the last {third} in hindsight": np.average(curves[:, :, -third:].min(2), axis=1, weights=units),
    }
    for name, scores in chosen.items():
        apart = scores - last
        error = apart.std(ddof=1) / np.sqrt(n_trials)
        yield f"  {name:55} {apart.mean():+.5f} +- {error:.5f}, worst {apart.max():+.5f}"


def deliver(curves: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return what configurations deliver (T,): each fold at the epoch that the others choose, by the default rule."""
    found = []
    for scores in curves:
        epochs = np.array(epoch_selection.choose("cross_fitted", epoch_selection.Candidates(), scores, units))
        found.append(np.average(scores[np.arange(len(scores)), epochs - 1], weights=units))
    return np.array(found)


def deliver_plainly(curves: np.ndarray, units: np.ndarray, count: int) -> np.ndarray:
    """Return the same (T,) where each fold has the epoch of the last `count` with the best mean of the other folds."""
    others = (units.sum() * np.average(curves, axis=1, weights=units)[:, None] - units[:, None] * curves)[:, :, -count:]
    chosen = np.take_along_axis(curves[:, :, -count:], others.argmin(2)[:, :, None], axis=2)[:, :, 0]
    return np.average(chosen, axis=1, weights=units)


def delivered_order(curves: np.ndarray, told: np.ndarray, units: np.ndarray, k: int) -> float:
    """Return the mean rank correlation of what k folds tell (T, F) with what the others deliver."""
    found = [
        spearmanr(told[:, seen].mean(1), deliver(curves[:, ~seen], units[~seen])).statistic
        for seen in _neighbours(curves.shape[1], k)
    ]
    return float(np.mean(found))


def _searches(options: argparse.Namespace) -> Iterator[str]:
    """Yield what searches of equal folds find, by the noise of a fold's score."""
    count, n_folds = options.searches, options.folds_to_train
    yield (
        f"made-up searches of {n_folds} folds by TPE, {count} of each: true score of the best and of the best {GOOD}, "
        "in standard deviations of random configurations"
    )
    yield f"{'fold / config':>13}  {'folds each':>10} {'trials':>6} {'best':>14} {f'best {GOOD}':>14}"
    for level in NOISES:
        for folds in (1, 2, 5):
            found = np.array([search(level, folds, n_folds // folds, seed) for seed in range(count)])
            means, errors = found.mean(0), found.std(0, ddof=1) / np.sqrt(count)
            cells = [f"{mean:6.2f} +-{error:5.2f}" for mean, error in zip(means, errors, strict=True)]
            yield f"{level:13.2f}  {folds:10} {n_folds // folds:6} {' '.join(cells)}"


def search(level: float, folds: int, trials: int, seed: int) -> tuple[float, float]:
    """Search a quadratic bowl in PARAMS dimensions with that noise of a fold, and return the true score of the trial
    that looks best, and the mean of the GOOD that do."""
    rng = stream(seed, "bench", "objective", "bowl")
    centre, widths = rng.random(PARAMS), rng.gamma(1, 1, PARAMS)  # some parameters matter little
    uniform = ((rng.random((10_000, PARAMS)) - centre) ** 2) @ widths
    mean, scale = uniform.mean(), uniform.std()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)  # as ours
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    true, seen = [], []
    for _ in range(trials):
        trial = study.ask()
        params = np.array([trial.suggest_float(f"x{i}", 0, 1) for i in range(PARAMS)])
        true.append(((params - centre) ** 2 @ widths - mean) / scale)
        seen.append(true[-1] + level / np.sqrt(folds) * rng.normal())
        study.tell(trial, seen[-1])
    ranked = np.array(true)[np.argsort(seen, kind="stable")]
    return float(ranked[0]), float(ranked[:GOOD].mean())
