"""Published weights: where they are, how they are fetched, and what is said where they cannot be had.

A model that has such weights has a parameter `pretrained`, a function `source(params)` that says where they are, and
takes them in `build(spec, n_outputs, params, weights)`; a feature in `compute(recordings, params, weights)`. Whoever
searches fetches them once (`hms_ray.training.published_weights`). `where` is the section of a run that messages name.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the library by which the hub's own asks: which one that is depends on the version
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import get_session
from pydantic import Field, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file

from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params as Strict

HUB = "hf-hub:"  # how timm spells it, too
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
BROKEN = (SafetensorError, UnpicklingError, EOFError, RuntimeError, LookupError)  # what readers make of other bytes
State = dict[str, torch.Tensor]
PROBE_S = 5.0  # for a connection to the hub, and again for its first word
NO_HUB = (407, 500, 502, 503, 504)  # what a proxy says of a hub that it does not reach, or a hub that is down
ADVICE = "where there is a network (HF_HOME names the cache)"


class Unreachable(ConfigError):
    """Weights are not in the local cache, and the hub cannot be reached; which weights, and why."""

    name = cause = ""


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
    of_hub = name.startswith(HUB)
    cause = _hub.fault() if of_hub else ""
    try:
        with _offline() if cause else nullcontext():
            return load()
    except (OSError, EntryNotFoundError, HFValidationError, HTTPError) as error:
        if cause or _is_unreachable(error):
            cause = cause or _words(error.__cause__ or error)
            if of_hub:
                _hub.cause = cause
            raise _unreachable(name, cause, where) from error
        raise ConfigError(
            f"{where}.pretrained: {name} is neither in the hub's local cache nor to be had from the hub "
            f"({_words(error)}); fetch it {ADVICE}, or name a file, or say false"
        ) from error
    except BROKEN as error:  # a fetch that was cut short
        raise ConfigError(f"{where}.pretrained: {name} is broken: {' '.join(str(error).split())[:200]}") from error


class _Hub:
    """Whether the hub can be reached: asked once a process, since its own library asks for minutes, file by file."""

    def __init__(self) -> None:
        self.cause: str | None = None  # None: not asked

    def fault(self) -> str:
        """Return why the hub cannot be reached, "" where it can; offline, its library says that itself."""
        if constants.is_offline_mode():
            return ""
        if self.cause is None:
            self.cause = self._asked()
        return self.cause

    def _asked(self) -> str:
        found = [f"{constants.ENDPOINT} did not answer within {2 * PROBE_S:g} s"]
        thread = threading.Thread(target=lambda: found.append(_probe()), daemon=True)  # a name server may hang, too
        thread.start()
        thread.join(2 * PROBE_S)
        return found[-1]


_hub = _Hub()


def hub_is_unreachable() -> bool:
    """Whether this process has asked the hub and got no answer."""
    return bool(_hub.cause)


def _probe() -> str:
    try:
        status = get_session().head(constants.ENDPOINT, timeout=PROBE_S).status_code
    except (HTTPError, OSError) as error:
        return f"{constants.ENDPOINT}: {_words(error)}"
    return f"{constants.ENDPOINT} answers {status}" if status in NO_HUB else ""


@contextmanager
def _offline() -> Iterator[None]:
    """Let the hub's library look into its cache alone."""
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _unreachable(name: str, cause: str, where: str) -> Unreachable:
    error = Unreachable(
        f"{where}.pretrained: {name} is not in the hub's local cache, and the hub is unreachable ({cause}); "
        f"fetch it {ADVICE}, or name a file, or say false"
    )
    error.name, error.cause = name, cause
    return error


def all_unreachable(wanted_by: Mapping[str, Sequence[str]], cause: str) -> str:
    """Word that several weights cannot be had; wanted_by: the spaces that want each, by the weights' names."""
    names = [f"{name} ({', '.join(dict.fromkeys(spaces))})" for name, spaces in wanted_by.items()]
    return (
        f"the hub is unreachable ({cause}), and its local cache lacks {len(names)} networks: {', '.join(names)}; fetch "
        f"them {ADVICE}, or name files, or say pretrained: false"
    )


def called(params: Pretrained, published: str) -> str:
    """Return what weights are called in a message; published: those that `pretrained: true` means."""
    return params.pretrained if isinstance(params.pretrained, str) else published


def misfit(name: str, network: str, cause: str, where: str = "model") -> ConfigError:
    """Return the error for weights of another network."""
    return ConfigError(f"{where}.pretrained: the weights {name} do not fit {network}: {' '.join(cause.split())[:300]}")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
