"""Where everything of a study lies, and whose data it is. The study folder is the only truth.

runs/<study>/
  study.json        versions, code, task, data and folds fingerprints, score definition, the resolved spaces
  folds.parquet     unit_id, group_id, fold
  quality.parquet   the measures of each unit's recordings
  baseline.parquet  out-of-fold predictions of the plain model that the dataset offers, if it offers one
  journal.log       Optuna JournalStorage
  gpu_memory.json   what each architecture needs of a GPU, as measured
  trials/<id>/      config.yaml, weights.json (which it began from), epochs.parquet, folds/<k>/
    folds/<k>/      oof.parquet, epochs.npy (predictions of every epoch), weights/<epoch>.safetensors, weights.json
                    (their digests), and, while it is trained, state/: its worker's own
  oof/<id>.parquet  one out-of-fold table a finalist or foreign file
  ensemble/         ensemble.json, oof.parquet
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hms_ray import __version__
from hms_ray.core import files, provenance, renamed
from hms_ray.core.errors import ConfigError, DataError, raise_all

LIBRARIES = ("ray", "torch", "timm", "optuna", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
SINCE = ("epoch_candidates",)  # of the identity, what older studies lack: theirs is that of the run that goes on
FORCE = (
    "With --force it goes on: finished folds are kept, folds in flight begin anew, its numbers come from both; or "
    "choose another --study"
)
# Of a space: the code of a component that an installed package or a file adds.
ADDED = re.compile(r"(?:base|members\.[^.]+)\.(?:files|packages)\.(.+?)(?:\.fingerprint|\.source)?")
DECIDING = ("base.", "members.", "search.", "race.", "sampler.", "budget.trial_folds")  # of a space, for results
MISSING = object()
SHOWN = 100  # characters of a value that a message repeats
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_id(name: str) -> str:
    """Return the id if it is safe as a file name; ids are never joined into paths unchecked."""
    if not ID_PATTERN.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a file: letters, digits, '_', '-' and '.' only, 100 at most")
    return name


@dataclass(frozen=True)
class FoldFolder:
    """One fold of one trial. `oof` is written last: where it exists, the fold is finished. Epochs count from 1."""

    root: Path

    @property
    def oof(self) -> Path:
        """Predictions of the held-out units after the last epoch."""
        return self.root / "oof.parquet"

    @property
    def by_epoch(self) -> Path:
        """Predictions (epochs, units, K) of the same units after every epoch.

        Units that are not scored are predicted after the last epoch and the one that was chosen, else they have NaN.
        """
        return self.root / "epochs.npy"

    def weights(self, epoch: int) -> Path:
        """The weights after an epoch, for prediction."""
        return self.root / "weights" / f"{int(epoch)}.safetensors"

    @property
    def digests(self) -> Path:
        """The SHA-256 of the weights after each epoch, as they were trained; studies from before have none."""
        return self.root / "weights.json"

    def write_weights(self, epoch: int, content: bytes) -> None:
        """Keep the packed weights after an epoch; their digest first, so that none are there without it."""
        files.write_json(self.digests, self._known_digests() | {str(epoch): files.sha256(content)})
        files.write_bytes(self.weights(epoch), content)

    def weights_are_intact(self, epoch: int) -> bool | None:
        """Whether the weights after an epoch are those that were trained; None: the study has no digest of them."""
        known = self._known_digests().get(str(epoch))
        return None if known is None else files.sha256(self.weights(epoch).read_bytes()) == known

    def _known_digests(self) -> dict[str, str]:
        """Return the digest of each epoch's weights, or raise DataError: the file is broken or was edited."""
        digests = files.read_json(self.digests) if self.digests.is_file() else {}
        if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
            raise DataError(f"{self.digests}: must map epochs to SHA-256 digests; put the file back from a copy")
        return digests

    @property
    def checkpoint(self) -> Path:
        """State after the last finished epoch; gone once the fold is finished, with all that lies beside it."""
        return self.root / "state" / "checkpoint.pt"

    def drop_checkpoint(self) -> None:
        """Delete what only more training would need."""
        shutil.rmtree(self.root / "state", ignore_errors=True)

    def drop_weights(self, but: int | None = None) -> None:
        """Delete what only prediction or more training would need, but for the weights after one epoch."""
        for path in self.root.glob("weights/*.safetensors"):
            if but is None or path != self.weights(but):
                path.unlink()
        if but is None:
            self.digests.unlink(missing_ok=True)
        self.drop_checkpoint()


@dataclass(frozen=True)
class TrialFolder:
    """One configuration: its full run, its learning curves and its folds."""

    root: Path

    @property
    def config(self) -> Path:
        """The full run, as YAML."""
        return self.root / "config.yaml"

    @property
    def epochs(self) -> Path:
        """One row for each fold and epoch."""
        return self.root / "epochs.parquet"

    @property
    def weights(self) -> Path:
        """Which published weights its folds begin from, where they do."""
        return self.root / "weights.json"

    def fold(self, k: int) -> FoldFolder:
        """The folder of fold k."""
        return FoldFolder(self.root / "folds" / str(int(k)))


@dataclass(frozen=True)
class StudyFolder:
    """The paths of one study."""

    root: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.resolve().name

    @property
    def study(self) -> Path:
        """study.json."""
        return self.root / "study.json"

    @property
    def folds(self) -> Path:
        """folds.parquet."""
        return self.root / "folds.parquet"

    @property
    def quality(self) -> Path:
        """quality.parquet: the measures of each unit's recordings."""
        return self.root / "quality.parquet"

    @property
    def baseline(self) -> Path:
        """baseline.parquet, optional: out-of-fold predictions of the plain model that the dataset offers."""
        return self.root / "baseline.parquet"

    @property
    def journal(self) -> Path:
        """Optuna's journal."""
        return self.root / "journal.log"

    @property
    def gpu_memory(self) -> Path:
        """What each architecture was measured to need of a GPU."""
        return self.root / "gpu_memory.json"

    @property
    def ensemble(self) -> Path:
        """ensemble.json."""
        return self.root / "ensemble" / "ensemble.json"

    @property
    def ensemble_oof(self) -> Path:
        """The ensemble's cross-fitted predictions."""
        return self.root / "ensemble" / "oof.parquet"

    def trial(self, trial_id: str) -> TrialFolder:
        """The folder of one trial."""
        return TrialFolder(self.root / "trials" / check_id(trial_id))

    def oof(self, trial_id: str) -> Path:
        """The out-of-fold table of one trial or foreign file."""
        return self.root / "oof" / f"{check_id(trial_id)}.parquet"

    def oof_ids(self) -> list[str]:
        """Ids of the out-of-fold tables that exist, sorted."""
        return sorted(path.stem for path in (self.root / "oof").glob("*.parquet") if not path.name.startswith("."))

    def read_study(self) -> dict[str, Any]:
        """Return study.json, or say that there is no folder, or that it is no study."""
        self._refuse_a_file()
        if not self.root.is_dir():
            raise ConfigError(f"there is no folder {self.root}; `hms-ray search` or `train` makes a study")
        if not self.study.is_file():
            raise ConfigError(f"{self.root} is no study: it has no study.json. Run `hms-ray search` or `train` first.")
        content: dict[str, Any] = files.read_json(self.study)
        from hms_ray.study.record import check_record  # pydantic, which no study needs that is not there

        check_record(self.study, content)
        return content

    def claim(self, identity: Mapping[str, Any], force: bool = False) -> None:
        """Write study.json if the study is new; otherwise refuse data, folds or a score that are not its own.

        Other code than the study was made with is refused as well, unless `force` says to go on with it.

        identity: task, data {name, fingerprint, units, groups, ...}, folds {k, fingerprint, ...}, score {min_votes},
            epoch: the rule by which a fold's epoch is chosen, epoch_candidates: among which
        """
        self._refuse_a_file()
        if not self.study.is_file():
            versions = {"hms_ray": __version__} | {name: metadata.version(name) for name in LIBRARIES}
            code = provenance.files_of_code()
            from hms_ray.study.record import VERSION

            schema = {"schema_version": VERSION, "versions": versions, "code": code}
            files.write_json(self.study, {**schema, **identity, "spaces": {}})
        known = self.read_study()
        newer = {key: identity[key] for key in SINCE if key in identity}
        self.check(identity)
        ours, theirs = (content["data"].get("recordings", {}) for content in (known, identity))
        if theirs.keys() - ours:  # fetched since the study began
            known = known | {"data": known["data"] | {"recordings": theirs | ours}}
            files.write_json(self.study, known)
        if changed := known["spaces"] and self._other_code(known):
            if not force:
                raise ConfigError(f"{self.root} was made by other code: {', '.join(changed)}. {FORCE}")
            earlier = [*known.get("earlier_code", []), {"versions": known["versions"], "code": known.get("code", {})}]
            versions = known["versions"] | {"hms_ray": __version__}
            now = {"versions": versions, "code": provenance.files_of_code(), "earlier_code": earlier}
            known = known | now
            files.write_json(self.study, known)
        if newer.keys() - known:
            files.write_json(self.study, newer | known)

    def _refuse_a_file(self) -> None:
        if self.root.is_file():
            raise ConfigError(f"{self.root} is a file; a study is a folder")

    def check(self, identity: Mapping[str, Any]) -> None:
        """Refuse what is not the study's own; arguments as in `claim`; before folds are dealt they have no fingerprint.

        Raises:
            ConfigError: says in words what differs, with both values.
        """
        found = _differences(self.read_study(), identity)
        raise_all(found, ConfigError, f"{self.root} is a study of something else; choose another --study")

    @staticmethod
    def _other_code(known: Mapping[str, Any]) -> list[str]:
        """Say how the code that made the study differs from this one."""
        made_by = known["versions"].get("hms_ray")
        version = [] if made_by == __version__ else [f"it is of hms_ray {made_by}, this is {__version__}"]
        return version + [f"{path} has changed" for path in provenance.differing(known.get("code", {}))]

    def add_space(self, name: str, resolved: dict[str, Any], force: bool = False) -> None:
        """Record a space; under the same name only other limits, resources or loggers replace the old.

        force: also other code of components that an installed package or a file adds
        """
        study = self.read_study()
        spaces = study["spaces"]
        known = renamed.space(spaces[name]) if check_id(name) in spaces else resolved
        changed = {
            key: both
            for key, both in _differing(known, resolved).items()
            if key.startswith(DECIDING) and not key.endswith(SINCE)
        }
        codes = {match[1]: key for key in changed if (match := ADDED.fullmatch(key))}
        if codes and not force:
            raise ConfigError(
                f"{self.root} was made by other code: {', '.join(f'{code} has changed' for code in codes)}. {FORCE}"
            )
        changed = {key: both for key, both in changed.items() if not ADDED.fullmatch(key)}
        if changed:
            values = (f"{key} ({_shown(old)} there, {_shown(new)} now)" for key, (old, new) in changed.items())
            raise ConfigError(
                f"{self.root} already holds a space {name!r} that differs in {', '.join(values)}; "
                "choose another --study, or give the space another name"
            )
        files.write_json(self.study, study | {"spaces": study["spaces"] | {name: resolved}})


def _shown(value: Any) -> str:
    """Return a value as a message repeats it."""
    if value is MISSING:
        return "not set"
    return repr(value) if len(repr(value)) <= SHOWN else f"{repr(value)[: SHOWN - 4]} ..."


def _differences(known: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """Say in words in what a study and a run differ; what follows from another difference is not said again."""
    ours, theirs = known["data"], identity["data"]
    found = [] if ours["fingerprint"] == theirs["fingerprint"] else _of_the_labels(ours, theirs)
    same_data = not found
    if ours.get("name") == theirs.get("name"):
        found += _unequal(_by_key("task", known["task"], identity["task"]))
    found += _of_the_recordings(ours, theirs) if same_data else []
    folds = known["folds"], identity["folds"]
    same_count = folds[0]["k"] == folds[1]["k"]
    if not same_count:
        found += _unequal([("folds", folds[0]["k"], folds[1]["k"])])
    rules = [*_by_key("score", known["score"], identity["score"]), ("epoch", known["epoch"], identity["epoch"])]
    for key in SINCE:
        rules += _by_key(key, known[key], identity[key]) if key in known and key in identity else []
    found += _unequal(rules)
    others = folds[0]["fingerprint"] != folds[1]["fingerprint"] if "fingerprint" in folds[1] else bool(found)
    if same_data and same_count and others:
        found += _unequal([("seed", folds[0].get("seed"), folds[1].get("seed"))])
    if same_data and same_count and others and not found:
        found.append("its units are dealt to other folds, though the number of folds is the same")
    return found


def _of_the_labels(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Say in what the labels and units differ: the data set, its parameters, its size, or else some of its rows."""
    found = _unequal([("data set", ours.get("name"), theirs.get("name"))])
    found = found or _unequal(_by_key("data", ours.get("params", {}), theirs.get("params", {})))
    if found:
        return found
    sizes = [f"{part.get('units')} units of {part.get('groups')} patients" for part in (ours, theirs)]
    roots = ours.get("root"), theirs.get("root")
    if sizes[0] != sizes[1]:
        return [f"its data has {sizes[0]} ({roots[0]}), this run's has {sizes[1]} ({roots[1]})"]
    return [f"its labels or units ({roots[0]}) differ from this run's ({roots[1]}), though both have {sizes[0]}"]


def _of_the_recordings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    known, now = ours.get("recordings", {}), theirs.get("recordings", {})
    kinds = [kind for kind in sorted(known.keys() & now) if known[kind] != now[kind]]
    which = f"its {' and '.join(kinds)} recordings ({ours.get('root')}) differ from this run's ({theirs.get('root')})"
    return [f"{which}: files were added, removed, or changed in size"] if kinds else []


def _by_key(where: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(f"{where}.{key}", ours.get(key), theirs.get(key)) for key in dict.fromkeys([*ours, *theirs])]


def _unequal(values: Iterable[tuple[str, Any, Any]]) -> list[str]:
    return [f"its {word} is {ours!r}, this run's is {theirs!r}" for word, ours, theirs in values if ours != theirs]


def _differing(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys in which two nested dicts differ, with both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(old.keys() | new.keys()):
        values = old.get(key, MISSING), new.get(key, MISSING)
        if isinstance(values[0], dict) and isinstance(values[1], dict):
            found |= _differing(*values, f"{prefix}{key}.")
        elif old.get(key) != new.get(key):  # a key that is new and null was left out of an older study
            found[f"{prefix}{key}"] = values
    return found
