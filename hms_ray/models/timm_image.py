"""Any image network of timm, by name."""

import difflib
from pathlib import Path
from typing import Any

import timm
from pydantic import Field, field_validator, model_validator
from safetensors import SafetensorError, safe_open
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
        tagged = timm.models.get_arch_pretrained_cfgs(arch)
        if "." in arch and arch not in tagged:
            raise ValueError(f"timm {timm.__version__} has no weights of that tag; there are {', '.join(tagged)}")
        return arch

    @field_validator("pretrained")
    @classmethod
    def _file(cls, pretrained: bool | str) -> bool | str:
        if isinstance(pretrained, str) and not (pretrained.endswith(".safetensors") and Path(pretrained).is_file()):
            raise ValueError("pretrained must be true, false or the path of an existing .safetensors file")
        return str(Path(pretrained).absolute()) if isinstance(pretrained, str) else pretrained  # workers run elsewhere

    @model_validator(mode="after")
    def _has_weights(self) -> "Params":
        known = timm.models.get_pretrained_cfg(self.arch)
        if self.pretrained is True and not (known and known.has_weights):
            raise ValueError(f"nobody has published weights of {self.arch!r}: say pretrained: false, or name a file")
        return self


def build(spec: InputSpec, n_outputs: int, params: Params) -> nn.Module:
    """Return the network with its first layer fitted to the image's channels.

    Raises:
        ConfigError: the weights cannot be had or are another network's, or the network does not take an option.
    """
    try:
        model = timm.create_model(
            params.arch, in_chans=spec.shape[0], num_classes=n_outputs, drop_rate=params.drop_rate, **_options(params)
        )
    except TypeError as error:
        raise ConfigError(f"model.arch {params.arch!r} does not take these options: {error}") from error
    except OSError as error:
        raise ConfigError(
            f"model.pretrained: the weights of {params.arch!r} are neither in the hub's local cache nor to be had from "
            "the hub; fetch them where there is a network (HF_HOME names the cache), or name a file, or say false"
        ) from error
    except (RuntimeError, SafetensorError) as error:
        if not params.pretrained:
            raise
        raise ConfigError(_misfit(params, " ".join(str(error).split())[:200])) from error
    if isinstance(params.pretrained, str):
        _check_names(model, params)
    return model


def _check_names(model: nn.Module, params: Params) -> None:
    """Refuse a file of another network: timm leaves out what it does not find, and says nothing."""
    wanted = model.state_dict().keys()
    with safe_open(params.pretrained, "pt") as file:
        found = len(wanted & file.keys())
    if found < len(wanted) / 2:
        raise ConfigError(_misfit(params, f"the file has {found} of the network's {len(wanted)} tensors"))


def _misfit(params: Params, cause: str) -> str:
    return f"model.pretrained: the weights {params.pretrained} do not fit {params.arch!r}: {cause}"


def _options(params: Params) -> dict[str, Any]:
    options: dict[str, Any] = {"pretrained": bool(params.pretrained)}
    if isinstance(params.pretrained, str):
        options["pretrained_cfg_overlay"] = {"file": params.pretrained}
    if params.drop_path_rate:  # not every network takes it
        options["drop_path_rate"] = params.drop_path_rate
    return options
