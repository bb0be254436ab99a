"""Published weights in the cache: fetched once, by whoever searches, and shared with all workers as a store."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load, save_file

from hms_ray import contracts
from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.encoders.pretrained import SAFE, Source, State, hub_is_unreachable
from hms_ray.features._feature import FeatureRef
from hms_ray.store._writer import MANIFEST
from hms_ray.store.share import StoreRef, made_once
from hms_ray.study.folder import TrialFolder
from hms_ray.training.run_config import Component

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """Gives weights that have been fetched, on whatever machine it is called; errors as in read."""

    store: StoreRef

    def __call__(self) -> State:
        return read(self.store)


def equipped(feature: FeatureRef) -> FeatureRef:
    """Return the feature with its published weights, where it computes with some; errors as in fetch."""
    store = fetch(feature)
    return feature if store is None else replace(feature, weights=Fetched(store))


def fetch(of: Component | FeatureRef) -> StoreRef | None:
    """Have the published weights of a model or a feature in the cache, and return where; None: it has random ones.

    Raises:
        ConfigError: they are not in the hub's cache and cannot be downloaded, or are broken; or the store's URL fails.
    """
    source = of.module.source(of.params) if isinstance(of.module, contracts.Published) else None
    if source is None:
        return None
    store = StoreRef.of(f"weights-{files.fingerprint(source.key)}")
    if not store.is_here():
        with made_once(store.path) as folder:
            if folder is not None:
                _write(source, folder)
    store.publish()
    return store


def begin_from(trial: TrialFolder, weights: Mapping[str, StoreRef | None]) -> None:
    """Keep which weights a trial's first fold begins from, by the part that has them; errors as in `check`."""
    now = {part: store.name for part, store in weights.items() if store is not None}
    if now and not trial.weights.is_file():
        files.write_json(trial.weights, now)
    check(trial, weights)


def check(trial: TrialFolder, weights: Mapping[str, StoreRef | None]) -> None:
    """Refuse weights of a part, "model" or "feature", that are not those from which a trial began.

    Raises:
        ConfigError: a file has been replaced since.
    """
    for part, store in weights.items():
        known = None if store is None else files.read_json(trial.weights).get(part)
        if store is not None and known != store.name:
            raise ConfigError(
                f"{trial.root.name} began from the weights {known}, but its {part}.pretrained now names others "
                f"({store.name}); put the file back, or choose another --study"
            )


def read(store: StoreRef) -> State:
    """Return the weights as they were published, on whatever machine this is.

    Raises:
        DataError: they are not here and cannot be copied, or the file is not the one that was fetched.
    """
    path = store.local() / SAFE
    content = path.read_bytes()
    if _digest(content) != files.read_json(path.with_name(MANIFEST))["sha256"]:
        raise DataError(f"{path}: its checksum is not that of the weights that were fetched; delete the folder")
    return load(content)


def origin(store: StoreRef) -> str:
    """Return where the weights were fetched from; errors as in read."""
    return files.read_json(store.local() / MANIFEST)["source"]


def _write(source: Source, folder: Path) -> None:
    if not hub_is_unreachable():  # then only its cache is looked into
        log.info("fetching the weights %s", source.key)
    path = folder / SAFE
    save_file({name: _own(tensor) for name, tensor in source.load().items()}, path)
    sizes, digest = {SAFE: path.stat().st_size}, _digest(path.read_bytes())
    files.write_json(folder / MANIFEST, {"source": source.key, "sha256": digest, "files": sizes})


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that shares no memory with others, as the format wants it."""
    return tensor.detach().clone().contiguous()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
