"""A study folder written through the real formats, small or large, with whatever part missing."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray import tasks
from hms_ray.core import files, seeds
from hms_ray.ensemble import bootstrap
from hms_ray.ensemble import metrics as _metrics
from hms_ray.ensemble import result as _result
from hms_ray.ensemble.rows import Rows
from hms_ray.store.quality import MEASURES
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable

CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
MIN_VOTES = 10
STRENGTHS = {"eeg-0002": 2.6, "eeg-0005": 2.4, "eeg-base": 1.9, "spec-0001": 2.2, "spec-base": 1.2}
PLAIN = "logistic regression on two numbers"
FIGURES = ["value", "score", "estimate", "fidelity", "seconds"]
TRIAL_COLUMNS = ["trial", "space", "number", "state", *FIGURES, "cause", "params"]


@dataclass
class FakeStudy:
    """Builds a study: units and folds at once, each further part by its own method."""

    root: Path
    patients: int = 60
    units_a_patient: int = 6
    classes: tuple[str, ...] = CLASSES
    k: int = 5
    foreign: bool = False
    kind: str = "votes"
    strengths: dict[str, float] = field(default_factory=lambda: dict(STRENGTHS))
    votes: np.ndarray | None = None
    epoch: str = "cross_fitted"
    min_votes: int = MIN_VOTES
    plain: float | None = None

    def __post_init__(self) -> None:
        self.folder = StudyFolder(self.root)
        self.rng = seeds.stream(7, "report")
        self.task = tasks.from_dict({"kind": self.kind, "classes": list(self.classes)})
        self.groups = np.repeat([f"p{n:04d}" for n in range(self.patients)], self.units_a_patient)
        self.units = np.array([f"u{n:05d}" for n in range(len(self.groups))])
        self.folds = np.repeat(np.arange(self.patients) % self.k, self.units_a_patient)
        if self.votes is None:
            self.votes = np.where(self.rng.random(len(self.units)) < 0.5, 3, self.rng.integers(10, 21, len(self.units)))
        self.truth = self.rng.normal(size=(len(self.units), len(self.classes))) * 1.6
        chances = self.task.to_probs(self.truth)
        if self.kind == "votes":
            self.targets = np.array([self.rng.multinomial(n, p) / n for n, p in zip(self.votes, chances, strict=True)])
        else:
            self.targets = (self.rng.random(chances.shape) < chances).astype(float)

    @property
    def kept(self) -> np.ndarray:
        """Mask of the scored population."""
        return self.votes >= self.min_votes

    def write(self) -> "FakeStudy":
        """Write study.json, folds.parquet and every finalist's table."""
        files.write_json(self.folder.study, self.study_json())
        table = pd.DataFrame({"unit_id": self.units, "group_id": self.groups, "fold": self.folds})
        files.write_table(self.folder.folds, table)
        self.probs = {trial: self._predict(strength) for trial, strength in self.strengths.items()}
        for trial, probs in self.probs.items():
            self.table(trial, probs).write(self.folder.oof(trial))
        self.plain_probs = None if self.plain is None else self._predict(self.plain)
        if self.plain is not None:
            self.table("plain-base", self.plain_probs).write(self.folder.baseline)
        return self

    def study_json(self) -> dict[str, Any]:
        """What study.json holds."""
        return {
            "versions": {"hms_ray": "0.1.0", "torch": "2.15.0", "numpy": "2.4.0"},
            "task": self.task.to_dict(),
            "data": {
                "name": "hms",
                "root": "data/hms",
                "params": {"rows": "period"},
                "fingerprint": "d" * 16,
                "units": len(self.units),
                "groups": self.patients,
                "baseline": PLAIN,
            },
            "folds": {"k": self.k, "seed": None if self.foreign else 42, "fingerprint": "f" * 16},
            "score": {"min_votes": self.min_votes},
            "epoch": "given" if self.foreign else self.epoch,
            "spaces": {} if self.foreign else {name: self.space(name) for name in ("eeg", "spec")},
        }

    def space(self, name: str) -> dict[str, Any]:
        """A resolved space."""
        return {
            "description": f"{name}: one stage on all units, one on those with many votes",
            "base": self.run(0.001, 0.2),
            "search": {
                "train.stages.0.lr": {"log_uniform": [1e-4, 3e-3]},
                "model.params.drop_rate": {"uniform": [0.0, 0.5]},
                "model.name": {"choice": ["basic_cnn", "timm_image"]},
            },
            "budget": {"trials": 12, "trial_folds": 1, "finalists": 2},
        }

    def run(self, lr: float, drop_rate: float) -> dict[str, Any]:
        """A full run."""
        return {
            "model": {"name": "basic_cnn", "params": {"drop_rate": drop_rate}},
            "train": {"stages": [{"epochs": 5, "lr": lr}, {"epochs": 3, "lr": lr / 10}]},
        }

    def table(self, trial: str, probs: np.ndarray) -> OofTable:
        """An out-of-fold table of this study."""
        space = "foreign" if self.foreign else trial.split("-")[0]
        chosen_on = () if self.foreign or trial.endswith("base") else (0,)
        rows = (self.units, self.groups, self.folds, self.votes, self.targets, probs)
        epochs = ("given", ()) if self.foreign else (self.epoch, (4, 5, 3, 8, 6)[: self.k])
        return OofTable(*rows, self.task, trial, space, "d" * 16, "f" * 16, chosen_on, *epochs)

    def add_trials(self) -> "FakeStudy":
        """Write config.yaml and epochs.parquet of every finalist."""
        for n, trial in enumerate(self.strengths):
            files.write_yaml(self.folder.trial(trial).config, self.run(0.0005 * (n + 1), 0.1 * n))
            files.write_table(self.folder.trial(trial).epochs, self.epochs())
        return self

    def epochs(self) -> pd.DataFrame:
        """Learning curves: two stages, all folds; NaN scores in the folds without scored rows."""
        rows = []
        for fold in range(self.k):
            scored = bool(self.kept[self.folds == fold].any())
            level = self.rng.normal(0.3, 0.02)
            for epoch in range(1, 9):
                score = level + 0.6 * np.exp(-epoch / 2) + self.rng.normal(0, 0.01) - 0.05 * (epoch > 5)
                loss = 0.2 + 0.9 * np.exp(-epoch / 2.5) + self.rng.normal(0, 0.01)
                rows.append((fold, int(epoch > 5), epoch, loss, score if scored else np.nan, 1e-3, 12.5))
        return pd.DataFrame(rows, columns=["fold", "stage", "epoch", "train_loss", "score", "lr", "seconds"])

    def add_quality(self, **kinds: dict[str, dict[int, float]]) -> "FakeStudy":
        """Write quality.parquet; by kind and measure the units, by number, that have any of it, and how much."""
        tables = []
        for kind, found in kinds.items():
            table = pd.DataFrame({"unit_id": self.units, "kind": kind} | dict.fromkeys(MEASURES, 0.0))
            for measure, units in found.items():
                table.loc[list(units), measure] = list(units.values())
            tables.append(table)
        files.write_table(self.folder.quality, pd.concat(tables, ignore_index=True))
        return self

    def change_run(self, trial: str, **sections: Any) -> "FakeStudy":
        """Replace sections of a trial's run."""
        files.write_yaml(self.folder.trial(trial).config, self.run(0.001, 0.1) | sections)
        return self

    def add_fold_tables(self) -> "FakeStudy":
        """Write each trial's predictions of fold 0, where configurations were chosen, and those of one not kept."""
        inside = self.folds == 0
        tried = {trial: probs for trial, probs in self.probs.items() if not trial.endswith("base")}
        for trial, probs in (tried | {"eeg-0007": self._predict(1.0)}).items():
            whole = self.table(trial, probs)
            arrays = ("unit_ids", "group_ids", "folds", "votes", "targets", "probs")
            part = replace(whole, **{name: getattr(whole, name)[inside] for name in arrays})
            part.write(self.folder.trial(trial).fold(0).oof)
        return self

    def add_ensemble(self, **changes: Any) -> "FakeStudy":
        """Write the ensemble: every second table with falling weights; all its figures are true of these files."""
        members = list(self.probs)[::2]
        weights = np.arange(len(members), 0, -1) / np.arange(len(members), 0, -1).sum()
        blend = sum(w * self.probs[m] for w, m in zip(weights, members, strict=True))
        self.table("ensemble", blend).write(self.folder.ensemble_oof)
        files.write_json(self.folder.ensemble, self._ensemble_json(members, weights, blend) | changes)
        return self

    def score(self, probs: np.ndarray, mask: np.ndarray) -> float | None:
        """Mean score on a part of the population."""
        return self.task.score(self.targets[mask], probs[mask]) if mask.any() else None

    def search(self, trials: int = 12) -> pd.DataFrame:
        """A trials table with every state."""
        rows = []
        for n in range(trials):
            state = {3: "PRUNED", 4: "FAIL", 9: "RUNNING"}.get(n, "COMPLETE")
            level = 0.5 - 0.01 * n + float(self.rng.normal(0, 0.03))
            value = level if state == "COMPLETE" else float("nan")
            estimate, fidelity = (level, 0.4) if state == "PRUNED" else (float("nan"), float("nan"))
            cause = {"FAIL": "out of memory: 15.2 GB asked, 14.6 GB there", "PRUNED": "cannot improve the ensemble"}
            params = {"train.stages.0.lr": 0.0001 * (n + 1), "model.params.drop_rate": 0.05, "model.name": "basic_cnn"}
            space = "eeg" if n % 2 == 0 else "spec"
            figures = (value, value, estimate, fidelity, 61.0 + n)
            rows.append((f"{space}-{n:04d}", space, n, state, *figures, cause.get(state, ""), params))
        return pd.DataFrame(rows, columns=TRIAL_COLUMNS)

    def _predict(self, strength: float) -> np.ndarray:
        noise = self.rng.normal(size=self.truth.shape) * 2.0 / strength
        return self.task.to_probs(0.8 * (self.truth + noise))

    def estimates(self, *losses: np.ndarray) -> list[dict[str, float | None]]:
        """Means over the population of losses (N,), with errors and intervals as the ensemble states them."""
        values = np.stack(losses, axis=1)[self.kept]
        draws = seeds.stream(7, "intervals")
        found = bootstrap.estimates(values, self.groups[self.kept], np.ones(len(values)), draws)
        return [asdict(estimate) for estimate in found]

    def _ensemble_json(self, members: list[str], weights: np.ndarray, blend: np.ndarray) -> dict[str, Any]:
        kept, mean = self.kept, np.mean(list(self.probs.values()), axis=0)
        singles = {trial: self.score(probs, kept) for trial, probs in self.probs.items()}
        best = min(singles, key=singles.get)
        prior = np.tile(self.task.prior(self.targets[kept]), (len(self.units), 1))
        figures = {"best_single": self.probs[best], "mean": mean, "prior": prior}
        compared = figures | ({} if self.plain is None else {"plain": self.plain_probs})
        score, selection = self.score(blend, kept), self._selection()
        return {
            "version": _result.VERSION,
            "pool": "linear",
            "fitted": {"kind": "linear", "weights": weights.tolist(), "gap": 2.31e-11},
            "members": [self._member(m, members, weights, blend) for m in members],
            "limits": None,
            "duality_gap": 2.31e-11,
            "gap_by_fold": 4.07e-11,
            "score_in_sample": score - 0.004,
            "score_cross_fitted": score,
            "score_selection_corrected": score + selection["share"] * selection["optimism"] if selection else None,
            "score_cross_fitted_by_fold": {str(k): self.score(blend, kept & (self.folds == k)) for k in range(self.k)},
            "interval": self.estimates(self._losses(blend))[0],
            "selection": selection,
            "methods": self._methods(blend, figures),
            "baselines": self._baselines(blend, compared) | {"best_single_trial": best},
            "population": {
                "units": int(kept.sum()),
                "groups": len(set(self.groups[kept])),
                "min_votes": self.min_votes,
            },
            "candidates": len(self.probs),
            "folds_fingerprint": "f" * 16,
            **self._metrics({"ensemble": blend, "best_single": self.probs[best], "prior": prior}),
            "outside_selection": None if self.foreign else self._outside(figures | {"score_cross_fitted": blend}),
            "optimistic_epochs": list(self.probs) if self.epoch == "best" else [],
            "notes": [],
        }

    def _losses(self, probs: np.ndarray) -> np.ndarray:
        return self.task.row_scores(self.targets, probs)

    def _member(self, name: str, members: list[str], weights: np.ndarray, blend: np.ndarray) -> dict[str, Any]:
        own = members.index(name)
        others = [other for other in members if other != name]
        rest = (blend - weights[own] * self.probs[name]) / (1 - weights[own]) if others else blend
        whole, without = self.score(blend, self.kept), self.score(rest, self.kept)
        return {
            "trial": name,
            "space": "foreign" if self.foreign else name.split("-")[0],
            "weight": float(weights[own]),
            "without": without,
            "gain": without - whole,
            "most_alike": others[0] if others else None,
            "error_correlation": 0.8125 if others else None,
        }

    def _methods(self, blend: np.ndarray, figures: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        sharper = self.task.from_outcomes(self._sharpened(self.task.outcomes(blend)))
        found = {"linear": blend, "best_single": figures["best_single"], "calibrated": sharper}
        found["uniform"] = figures["mean"]
        losses = {name: self._losses(probs) for name, probs in found.items()}
        scores = self.estimates(*losses.values())
        differences = self.estimates(*(its - losses["linear"] for its in losses.values()))
        return [
            {
                "method": name,
                "score_in_sample": score["value"] - 0.004,
                "score_cross_fitted": score,
                "difference": difference,
                "members": 1 if name == "best_single" else len(self.probs),
                "gap": 2.31e-11 if name == "linear" else None,
                "gap_by_fold": 4.07e-11 if name == "linear" else None,
            }
            for name, score, difference in zip(found, scores, differences, strict=True)
        ]

    @staticmethod
    def _sharpened(outcomes: np.ndarray) -> np.ndarray:
        return outcomes**1.1 / (outcomes**1.1).sum(-1, keepdims=True)

    def _baselines(self, blend: np.ndarray, figures: dict[str, np.ndarray]) -> dict[str, Any]:
        differences = self.estimates(*(self._losses(probs) - self._losses(blend) for probs in figures.values()))
        scores = {name: self.score(probs, self.kept) for name, probs in figures.items()}
        honest = {"best_single_corrected": scores["best_single"] + 0.0015}
        plain = {"plain": None, "plain_is": None} if self.plain is None else {"plain_is": PLAIN}
        apart = {"plain": None} | dict(zip(figures, differences, strict=True))
        return {"differences": apart} | scores | honest | plain

    def _metrics(self, figures: dict[str, np.ndarray]) -> dict[str, Any]:
        rows = {n: self.votes >= n for n in sorted({1, 5, self.min_votes, 15})}
        by_min_votes = [
            {"min_votes": n, "units": int(mask.sum()), "groups": len(set(self.groups[mask]))}
            | {name: self.score(probs, mask) for name, probs in figures.items()}
            for n, mask in rows.items()
            if mask.any()
        ]
        of_blend, of_plain = (self._of_table(probs) for probs in (figures["ensemble"], self.plain_probs))
        mine, theirs, gain = _metrics.aurocs(
            self._rows(), figures["ensemble"], self.plain_probs, seeds.stream(7, "auroc")
        )
        mine, theirs, gain = (estimate and asdict(estimate) for estimate in (mine, theirs, gain))
        of_blend |= {"macro_auroc_interval": mine, "macro_auroc_gain": gain, "score_by_min_votes": by_min_votes}
        return {"metrics": of_blend, "metrics_of_plain": of_plain and of_plain | {"macro_auroc_interval": theirs}}

    def _of_table(self, probs: np.ndarray | None) -> dict[str, Any] | None:
        return None if probs is None else _metrics.of_table(self._rows(), probs).model_dump(mode="json")

    def _rows(self) -> Rows:
        targets, nobody = self.task.outcomes(self.targets), ("",)
        weight = self.kept.astype(float)
        return Rows(self.task, targets[:, None], targets, self.folds, self.groups, weight, nobody, nobody)

    def _selection(self) -> dict[str, Any] | None:
        """Twelve configurations tried on fold 0; those kept are the finalists of trials."""
        inside = self.kept & (self.folds == 0)
        chosen = [trial for trial in self.strengths if not trial.endswith("base")]
        if self.foreign or not chosen or not inside.any():
            return None
        return {
            "configurations": 12,
            "kept": len(chosen),
            "folds": [0],
            "units": int(inside.sum()),
            "groups": len(set(self.groups[inside])),
            "optimism": 0.00345,
            "share": float(inside.sum() / self.kept.sum()),
        }

    def _outside(self, figures: dict[str, np.ndarray]) -> dict[str, Any] | None:
        outside = self.kept & (self.folds != 0)
        if not outside.any():
            return None
        return {
            "folds": list(range(1, self.k)),
            "units": int(outside.sum()),
            "groups": len(set(self.groups[outside])),
            **{name: self.score(probs, outside) for name, probs in figures.items()},
        }


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., FakeStudy]:
    """Makes studies: fake(name, **options), not yet written."""
    return lambda name="night-1", **options: FakeStudy(tmp_path / "runs" / name, **options)


@pytest.fixture
def complete(fake: Callable[..., FakeStudy]) -> FakeStudy:
    """A study with every part."""
    return fake().write().add_trials().add_ensemble()


@pytest.fixture
def sounds(fake: Callable[..., FakeStudy]) -> FakeStudy:
    """A study of three yes-or-no labels, every unit of which is scored, with an ensemble and a plain baseline."""
    options = {"kind": "multilabel", "classes": ("AS", "AR", "MR"), "votes": np.ones(360, int), "min_votes": 1}
    return fake("sounds", plain=1.0, **options).write().add_trials().add_ensemble()


@pytest.fixture
def no_trials() -> pd.DataFrame:
    """The trials table of a study without a search."""
    return pd.DataFrame(columns=TRIAL_COLUMNS)
