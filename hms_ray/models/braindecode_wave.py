"""Networks of the package braindecode, by name; the package is an optional dependency."""

import inspect
import re

import torch
from pydantic import Field, model_validator
from torch import nn

from hms_ray.core import hints
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec

LAYOUT = "wave"
NEEDS = "braindecode"
GIVEN = {
    "n_chans",
    "n_times",
    "sfreq",
    "n_outputs",
    "input_window_seconds",
    "chs_info",
}  # set by the data, not by options


class Params(Strict):
    """The network and its options."""

    arch: str = Field("EEGNet", description="braindecode's name, such as ShallowFBCSPNet, Deep4Net, EEGConformer")
    options: dict[str, bool | int | float | str] = Field(
        {}, description="options of that network, such as drop_prob; see braindecode's documentation"
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
        ConfigError: it does not support such waves or options, or its output is no logits.
    """
    wave = f"{spec.shape[0]} channels of {spec.shape[1]} steps at {spec.rate_hz:g} Hz"
    name = f"model.arch {params.arch!r} with options {params.options} on {wave}"
    network = _networks()[params.arch]
    rate_hz = int(spec.rate_hz) if spec.rate_hz == int(spec.rate_hz) else spec.rate_hz  # some need whole numbers
    data = {"n_chans": spec.shape[0], "n_times": spec.shape[1], "sfreq": rate_hz, "n_outputs": n_outputs}
    arguments = {name: value for name, value in data.items() if name in inspect.signature(network).parameters}
    try:
        with torch.device("cpu"):  # some read values while they are built
            model = Logits(network(**arguments, **params.options))
            with torch.no_grad():  # many check their input only when they are called
                shape = tuple(model.eval()(torch.zeros(1, *spec.shape)).shape)
            model.train()
    except Exception as error:  # sixty networks raise errors of any type where the wave or an option is invalid
        raise ConfigError(f"{name} cannot be built: {type(error).__name__}: {error}") from error
    if shape != (1, n_outputs):
        raise ConfigError(f"{name} gives {shape} for one wave, where (1, {n_outputs}) are logits")
    return model.to(torch.get_default_device())


class Logits(nn.Module):
    """A network of braindecode, (B, C, T) -> (B, K), with the names of its head and of its body.

    The head is `final_layer`, or where that has no parameters, the last part with parameters.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = "final_layer"
        if not any(True for _ in getattr(network, "final_layer", nn.Identity()).parameters()):
            parts = [
                name for name, part in network.named_modules() if any(True for _ in part.parameters(recurse=False))
            ]
            self.head = parts[-1].partition(".parametrizations.")[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.network.get_submodule(self.head)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return timm's patterns of parameter names: the body is one layer, as the networks name layers differently."""
        return {"body": rf"^network\.(?!{re.escape(self.head)}\.)"}


def _networks() -> dict[str, type[nn.Module]]:
    """Return braindecode's classes by name; imported here, because it is optional and its import takes seconds."""
    try:
        from braindecode.models.util import models_dict
    except ModuleNotFoundError as error:
        if error.name == NEEDS:
            raise ConfigError(
                "model braindecode_wave needs the package braindecode: pip install braindecode"
            ) from error
        raise ConfigError(f"braindecode cannot be imported: {error}; install it with all that it needs") from error
    except (ImportError, OSError, RuntimeError) as error:  # raised by a torchaudio that was built for another torch
        raise ConfigError(f"braindecode cannot be imported: {' '.join(str(error).split())}") from error
    return models_dict
