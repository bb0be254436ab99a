"""Networks for waves: ResNet and GRU, Squeezeformer, or EEGNet; at any rate and of any length."""

from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec
from hms_ray.models._eegnet import EegNet
from hms_ray.models._heads import Classifier
from hms_ray.models._resnet_gru import ResnetGru
from hms_ray.models._squeezeformer import Squeezeformer

LAYOUT = "wave"
SIZES = {"resnet_gru": (96, 8), "squeezeformer": (128, 4), "eegnet": (16, 1)}  # width and depth


class Params(Strict):
    """The network, its size, and its regularisation."""

    arch: Literal["resnet_gru", "squeezeformer", "eegnet"] = Field("resnet_gru", description="the network")
    width: int | None = Field(
        None,
        ge=8,
        le=512,
        multiple_of=8,
        description="features of a layer; none: 96 for resnet_gru, 128 for squeezeformer, 16 for eegnet",
    )
    depth: int | None = Field(
        None,
        ge=1,
        le=24,
        description="residual blocks, Squeezeformer blocks or separable convolutions; none: 8, 4 and 1 of them",
    )
    drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout within the network and before the head")
    drop_path_rate: float = Field(
        0.0, ge=0, lt=1, description="stochastic depth of the last block, less in those before; not for eegnet"
    )

    @model_validator(mode="after")
    def _has_paths(self) -> "Params":
        if self.arch == "eegnet" and self.drop_path_rate:
            raise ValueError(
                f"eegnet has no residual paths that could be dropped: drop_path_rate={self.drop_path_rate}"
            )
        return self


def build(spec: InputSpec, n_outputs: int, params: Params) -> nn.Module:
    """Return the network; its strides depend on the wave's length, so that 10,000 steps are shortened like 2,000."""
    width, depth = (
        value or default for value, default in zip((params.width, params.depth), SIZES[params.arch], strict=True)
    )
    body: ResnetGru | Squeezeformer | EegNet
    if params.arch == "eegnet":
        body = EegNet(spec, width, depth, params.drop_rate)
    else:
        network = ResnetGru if params.arch == "resnet_gru" else Squeezeformer
        body = network(spec, width, depth, params.drop_rate, params.drop_path_rate)
    return Classifier(body, body.features, n_outputs, params.drop_rate, body.LAYERS, len(spec.covariates))
