"""Published weights: their sources, how they are fetched, and the errors where they are not available.

A model with published weights has a parameter `pretrained` and a function `source(params)`, and takes the weights in
`build(spec, n_outputs, params, weights)`; a feature takes them in `compute(recordings, params, weights)`. A search
fetches them once (`hms_ray.training.published_weights`). `where` is the section of a run for messages.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP library of huggingface_hub, which depends on its version
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

HUB = "hf-hub:"  # the same prefix as in timm
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
BROKEN = (SafetensorError, UnpicklingError, EOFError, RuntimeError, LookupError)  # raised for invalid files
State = dict[str, torch.Tensor]
PROBE_S = 5.0  # timeout of the connection to the hub, and of its answer
NO_HUB = (407, 500, 502, 503, 504)  # of a proxy that cannot reach the hub, or of a hub that is down
ADVICE = "where there is a network (HF_HOME names the cache)"


class Unreachable(ConfigError):
    """Weights are not in the local cache, and the hub cannot be reached.

    name: the weights; cause: the reason; where: the section of the run that names them
    """

    def __init__(self, name: str, cause: str, where: str) -> None:
        super().__init__(
            f"{where}.pretrained: {name} is not in the hub's local cache, and the hub is unreachable ({cause}); "
            f"fetch it {ADVICE}, or name a file, or use false"
        )
        self.name, self.cause = name, cause


class Pretrained(Strict):
    """The parameter for the initial weights of a network."""

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
        path = Path(pretrained).absolute() / (
            SAFE if Path(pretrained).is_dir() else ""
        )  # workers have another working folder
        if path.suffix != ".safetensors" or not path.is_file():
            raise ValueError(f"{SPELLINGS}; there is no such file")
        return str(path)


SPELLINGS = (
    f"pretrained must be true, false, {HUB}owner/name, or the path of a .safetensors file or a folder with a {SAFE}"
)


@dataclass(frozen=True)
class Source:
    """A source of weights: `key` identifies them permanently; `load` fetches them as published."""

    key: str
    load: Callable[[], State]


def source(params: Pretrained, published: Callable[[], Source], where: str = "model") -> Source | None:
    """Return the source of a network's weights, None for random ones; published: the source for `pretrained: true`."""
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
    """Return the weights of a .safetensors file; the key depends on its content.

    Raises:
        ConfigError: it has been deleted since the parameter was checked.
    """
    with _there(path, where):
        return Source(f"file:{path} {files.fingerprint(path.read_bytes())}", lambda: _read(path, where))


def fetched(name: str, load: Callable[[], State], where: str = "model") -> State:
    """Return the weights that `load` fetches.

    Raises:
        ConfigError: they are not in the cache and cannot be fetched, or are broken; the message gives the remedy.
    """
    of_hub = name.startswith(HUB)
    cause, offline = _hub.fault() if of_hub else "", constants.HF_HUB_OFFLINE
    try:
        constants.HF_HUB_OFFLINE = offline or bool(cause)  # read only the cache of an unreachable hub
        return load()
    except (OSError, EntryNotFoundError, HFValidationError, HTTPError) as error:
        if cause or _is_unreachable(error):
            cause = cause or _words(error.__cause__ or error)
            if of_hub:
                _hub.cause = cause
            raise Unreachable(name, cause, where) from error
        raise ConfigError(
            f"{where}.pretrained: {name} is not in the hub's local cache and cannot be fetched from the hub "
            f"({_words(error)}); fetch it {ADVICE}, or name a file, or use false"
        ) from error
    except BROKEN as error:  # for example an interrupted download
        raise ConfigError(f"{where}.pretrained: {name} is broken: {' '.join(str(error).split())[:200]}") from error
    finally:
        constants.HF_HUB_OFFLINE = offline


class _Hub:
    """Whether the hub can be reached: tested once per process, as its library would try for minutes for each file."""

    def __init__(self) -> None:
        self.cause: str | None = None  # None: not tested

    def fault(self) -> str:
        """Return why the hub cannot be reached, "" if it can, and in offline mode, which its library reports itself."""
        if constants.is_offline_mode():
            return ""
        if self.cause is None:
            causes = [f"{constants.ENDPOINT} did not answer within {2 * PROBE_S:g} s"]
            thread = threading.Thread(target=lambda: causes.append(_probe()), daemon=True)  # a name server may hang
            thread.start()
            thread.join(2 * PROBE_S)
            self.cause = causes[-1]
        return self.cause


_hub = _Hub()


def hub_is_unreachable() -> bool:
    """Return whether this process has found the hub unreachable."""
    return bool(_hub.cause)


def _probe() -> str:
    try:
        status = get_session().head(constants.ENDPOINT, timeout=PROBE_S).status_code
    except (HTTPError, OSError) as error:
        return f"{constants.ENDPOINT}: {_words(error)}"
    return f"{constants.ENDPOINT} answers {status}" if status in NO_HUB else ""


def all_unreachable(wanted_by: Mapping[str, Sequence[str]], cause: str) -> str:
    """Return the sentence for several unavailable weights; wanted_by: names of weights -> spaces that need them."""
    names = [f"{name} ({', '.join(dict.fromkeys(spaces))})" for name, spaces in wanted_by.items()]
    return (
        f"the hub is unreachable ({cause}), and its local cache lacks {len(names)} networks: {', '.join(names)}; fetch "
        f"them {ADVICE}, or name files, or use pretrained: false"
    )


def called(params: Pretrained, published: str) -> str:
    """Return the name of the weights for messages; published: the name for `pretrained: true`."""
    return params.pretrained if isinstance(params.pretrained, str) else published


def misfit(name: str, network: str, cause: str, where: str = "model") -> ConfigError:
    """Return the error for weights of another network."""
    return ConfigError(f"{where}.pretrained: the weights {name} do not fit {network}: {' '.join(cause.split())[:300]}")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _is_unreachable(error: Exception) -> bool:
    """Return whether the network fails; the library reports this, too, as a missing entry in the cache."""
    if isinstance(error, LocalEntryNotFoundError):
        return error.__cause__ is not None and not isinstance(error.__cause__, OfflineModeIsEnabled)
    return isinstance(error, HTTPError) and not isinstance(error, HfHubHTTPError)


def _download(repository: str) -> State:
    """Fetch the safe format if there is one, else torch's, which is read without running code.

    Offline, only the content of the cache is known.
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
    """Raise the error of the parameter's check if a file does not exist any more."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"{where}.{SPELLINGS}; there is no such file: {path}") from error
