"""Any image network of timm, by name."""

import difflib
from pathlib import Path
from typing import Any

import timm
from pydantic import Field, field_validator
from torch import nn

from hms_ray.errors import ConfigError
from hms_ray.params import Params as Strict
from hms_ray.specs import InputSpec

LAYOUT = "image"


class Params(Strict):
    """Which network, from which weights, and how it is regularised."""

    arch: str = Field("tf_efficientnet_b0.ns_jft_in1k", description="timm's name, with the tag of its weights")
    pretrained: bool | str = Field(
        True, description="true: weights from the hub or its cache; false: random; a path: a .safetensors file"
    )
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path_rate: float = Field(0.0, ge=0, lt=1, description="stochastic depth, where the network has it")

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        if not timm.is_model(arch):
            near = difflib.get_close_matches(arch, [*timm.list_models(), *timm.list_pretrained()], n=3)
            raise ValueError(
                f"timm {timm.__version__} has no network of that name; near it are {', '.join(near) or 'none'}"
            )
        return arch

    @field_validator("pretrained")
    @classmethod
    def _file(cls, pretrained: bool | str) -> bool | str:
        if isinstance(pretrained, str) and not (pretrained.endswith(".safetensors") and Path(pretrained).is_file()):
            raise ValueError("pretrained must be true, false or the path of an existing .safetensors file")
        return pretrained


def build(spec: InputSpec, n_outputs: int, params: Params) -> nn.Module:
    """Return the network with its first layer fitted to the image's channels.

    Raises:
        ConfigError: the weights cannot be had, or the network does not take an option.
    """
    try:
        return timm.create_model(
            params.arch, in_chans=spec.shape[0], num_classes=n_outputs, drop_rate=params.drop_rate, **_options(params)
        )
    except TypeError as error:
        raise ConfigError(f"model.arch {params.arch!r} does not take these options: {error}") from error
    except OSError as error:
        raise ConfigError(
            f"model.pretrained: the weights of {params.arch!r} are neither in the hub's local cache nor to be had from "
            "the hub; fetch them where there is a network (HF_HOME names the cache), or name a file, or say false"
        ) from error


def _options(params: Params) -> dict[str, Any]:
    options: dict[str, Any] = {"pretrained": bool(params.pretrained)}
    if isinstance(params.pretrained, str):
        options["pretrained_cfg_overlay"] = {"file": params.pretrained}
    if params.drop_path_rate:  # not every network takes it
        options["drop_path_rate"] = params.drop_path_rate
    return options
