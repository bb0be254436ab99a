"""Published weights: where they are, how they are fetched, and what is said where they cannot be had.

A model that has such weights has a parameter `pretrained`, a function `source(params)` that says where they are, and
takes them in `build(spec, n_outputs, params, weights)`; a feature in `compute(recordings, params, weights)`. Whoever
searches fetches them once (`hms_ray.weights`). `where` is the section of a run that messages name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the library by which the hub's own asks: which one that is depends on the version
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from pydantic import Field, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file

from hms_ray import files
from hms_ray.errors import ConfigError
from hms_ray.params import Params as Strict

HUB = "hf-hub:"  # how timm spells it, too
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
BROKEN = (SafetensorError, UnpicklingError, EOFError, RuntimeError, LookupError)  # what readers make of other bytes
State = dict[str, torch.Tensor]


class Pretrained(Strict):
    """The parameter that says from which weights a network begins."""

    pretrained: bool | str = Field(
        True,
        description="true: the published weights, from the hub or its cache; false: random ones; hf-hub:owner/name: "
        "those; a path: a .safetensors file, or a folder with a model.safetensors",
    )

    @field_validator("pretrained")
    @classmethod
    def _exists(cls, pretrained: bool | str) -> bool | str:
        if not isinstance(pretrained, str) or pretrained.startswith(HUB):
            return pretrained
        path = Path(pretrained).absolute() / (SAFE if Path(pretrained).is_dir() else "")  # workers run elsewhere
        if path.suffix != ".safetensors" or not path.is_file():
            raise ValueError(f"{SPELLINGS}; there is no such file")
        return str(path)


SPELLINGS = (
    f"pretrained must be true, false, {HUB}owner/name, or the path of a .safetensors file or a folder with a {SAFE}"
)


@dataclass(frozen=True)
class Source:
    """Where weights are: `key` names them for good; `load` fetches them as they are published."""

    key: str
    load: Callable[[], State]


def source(params: Pretrained, published: Callable[[], Source], where: str = "model") -> Source | None:
    """Return where a network's weights are, None for random ones; published: those that `pretrained: true` means."""
    if params.pretrained is True:
        return published()
    if params.pretrained is False:
        return None
    if params.pretrained.startswith(HUB):
        return from_hub(params.pretrained.removeprefix(HUB), where)
    return from_file(Path(params.pretrained), where)


def from_hub(repository: str, where: str = "model") -> Source:
    """Return the weights of a repository of the Hugging Face hub."""
    name = f"{HUB}{repository}"
    return Source(name, lambda: fetched(name, lambda: _download(repository), where))


def from_file(path: Path, where: str = "model") -> Source:
    """Return the weights of a .safetensors file; one that holds others has another key.

    Raises:
        ConfigError: it has been deleted since the parameter was checked.
    """
    with _there(path, where):
        return Source(f"file:{path} {files.fingerprint(path.read_bytes())}", lambda: _read(path, where))


def fetched(name: str, load: Callable[[], State], where: str = "model") -> State:
    """Return what `load` fetches.

    Raises:
        ConfigError: it is neither in the cache nor to be had, or broken; the message says what to do.
    """
    try:
        return load()
    except (OSError, EntryNotFoundError, HFValidationError, HTTPError) as error:
        raise ConfigError(
            f"{where}.pretrained: {name} {_missing(error)}; fetch it where there is a network (HF_HOME names the "
            "cache), or name a file, or say false"
        ) from error
    except BROKEN as error:  # a fetch that was cut short
        raise ConfigError(f"{where}.pretrained: {name} is broken: {' '.join(str(error).split())[:200]}") from error


def called(params: Pretrained, published: str) -> str:
    """Return what weights are called in a message; published: those that `pretrained: true` means."""
    return params.pretrained if isinstance(params.pretrained, str) else published


def misfit(name: str, network: str, cause: str, where: str = "model") -> ConfigError:
    """Return the error for weights of another network."""
    return ConfigError(f"{where}.pretrained: the weights {name} do not fit {network}: {' '.join(cause.split())[:300]}")


def _missing(error: Exception) -> str:
    unreachable = _is_unreachable(error)
    cause = (error.__cause__ or error) if unreachable else error
    words = " ".join(str(cause).split())[:200] or type(cause).__name__
    if unreachable:
        return f"is not in the hub's local cache, and the hub is unreachable ({words})"
    return f"is neither in the hub's local cache nor to be had from the hub ({words})"


def _is_unreachable(error: Exception) -> bool:
    """Whether it is the network that fails: the library says of that, too, that there is no such entry in the cache."""
    if isinstance(error, LocalEntryNotFoundError):
        return error.__cause__ is not None and not isinstance(error.__cause__, OfflineModeIsEnabled)
    return isinstance(error, HTTPError) and not isinstance(error, HfHubHTTPError)


def _download(repository: str) -> State:
    """Fetch the safe format where there is one, else what torch reads without running it.

    Offline, that is where the cache has one: what the repository has is not known then.
    """
    try:
        return load_file(hf_hub_download(repository, SAFE))
    except EntryNotFoundError as error:
        if _is_unreachable(error):
            raise
        return torch.load(hf_hub_download(repository, PICKLED), map_location="cpu", weights_only=True)


def _read(path: Path, where: str = "model") -> State:
    try:
        with _there(path, where):
            return load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"{where}.pretrained: {path} is broken: {error}") from error


@contextmanager
def _there(path: Path, where: str) -> Iterator[None]:
    """Word that a file is gone as the parameter's check does."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"{where}.{SPELLINGS}; there is no such file: {path}") from error
