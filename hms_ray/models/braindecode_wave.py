"""Networks of the package braindecode, by name; the package is installed by whoever wants them."""

import inspect
import re
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import nn

from hms_ray.core import hints
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec

LAYOUT = "wave"
NEEDS = "braindecode"
GIVEN = {"n_chans", "n_times", "sfreq", "n_outputs", "input_window_seconds", "chs_info"}  # by the data, not by options


class Params(Strict):
    """Which network, and what is passed on to it."""

    arch: str = Field("EEGNet", description="braindecode's name, such as ShallowFBCSPNet, Deep4Net, EEGConformer")
    options: dict[str, bool | int | float | str] = Field(
        {}, description="what is passed on to that network, such as drop_prob; see braindecode's pages"
    )

    @model_validator(mode="after")
    def _known(self) -> "Params":
        networks = _networks()
        if self.arch not in networks:
            raise ValueError(hints.unknown("network of braindecode", self.arch, networks))
        known = inspect.signature(networks[self.arch]).parameters.keys() - GIVEN
        if unknown := sorted(self.options.keys() - known):
            raise ValueError(hints.unknown(f"option of {self.arch}", unknown[0], sorted(known)))
        return self


def build(spec: InputSpec, n_outputs: int, params: Params) -> nn.Module:
    """Return the network with its own initial weights, for waves of this length and rate.

    Raises:
        ConfigError: it does not take such waves or options, or makes no logits of a wave.
    """
    network = _networks()[params.arch]
    rate_hz = int(spec.rate_hz) if spec.rate_hz == int(spec.rate_hz) else spec.rate_hz  # some need whole numbers
    data = {"n_chans": spec.shape[0], "n_times": spec.shape[1], "sfreq": rate_hz, "n_outputs": n_outputs}
    taken = {name: value for name, value in data.items() if name in inspect.signature(network).parameters}
    try:
        with torch.device("cpu"):  # some look at values while they are built
            model = Logits(network(**taken, **params.options))
            shape = _shape_of_logits(model, spec)
    except Exception as error:  # sixty networks have as many ways to say that something does not suit them
        raise ConfigError(f"{_named(spec, params)} cannot be built: {type(error).__name__}: {error}") from error
    if shape != (1, n_outputs):
        raise ConfigError(f"{_named(spec, params)} gives {shape} for one wave, where (1, {n_outputs}) are logits")
    return model.to(torch.get_default_device())


class Logits(nn.Module):
    """A network of braindecode, (B, C, T) -> (B, K), that names its head and what comes before it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = _head(network)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.network.get_submodule(self.head)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return timm's patterns of parameter names: one layer, and the head; no two networks name layers alike."""
        return {"body": rf"^network\.(?!{re.escape(self.head)}\.)"}


def _head(network: nn.Module) -> str:
    """Return the name of `final_layer`, or where that has no parameters, of the last part that has some."""
    if any(True for _ in getattr(network, "final_layer", nn.Identity()).parameters()):
        return "final_layer"
    parts = [name for name, part in network.named_modules() if any(True for _ in part.parameters(recurse=False))]
    return parts[-1].partition(".parametrizations.")[0]


@torch.no_grad()
def _shape_of_logits(model: nn.Module, spec: InputSpec) -> tuple[int, ...]:
    """Return the shape of what one wave becomes: networks that do not suit often say so only when they are used."""
    shape = tuple(model.eval()(torch.zeros(1, *spec.shape)).shape)
    model.train()
    return shape


def _named(spec: InputSpec, params: Params) -> str:
    wave = f"{spec.shape[0]} channels of {spec.shape[1]} steps at {spec.rate_hz:g} Hz"
    return f"model.arch {params.arch!r} with options {params.options} on {wave}"


def _networks() -> dict[str, Any]:
    """Return braindecode's classes by name; imported late, for not everybody has it and it takes seconds."""
    try:
        from braindecode.models.util import models_dict
    except ModuleNotFoundError as error:
        if error.name == NEEDS:
            raise ConfigError(
                "model braindecode_wave needs the package braindecode: pip install braindecode"
            ) from error
        raise ConfigError(f"braindecode cannot be imported: {error}; install it with all that it needs") from error
    except (ImportError, OSError, RuntimeError) as error:  # a torchaudio built for another torch says so as any of them
        raise ConfigError(f"braindecode cannot be imported: {' '.join(str(error).split())}") from error
    return models_dict
