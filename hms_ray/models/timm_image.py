"""Any image network of timm, by name."""

import difflib
import socket
from functools import cache, partial
from typing import Literal, cast

import timm
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from hms_ray.core.errors import ConfigError
from hms_ray.core.specs import InputSpec
from hms_ray.encoders import pretrained
from hms_ray.encoders.leftover import besides, some, unexpected_by_timm
from hms_ray.encoders.pretrained import HUB, Pretrained, Source, State, called, fetched, misfit
from hms_ray.models._heads import Patterns
from hms_ray.models._pictures import Fused, Resized, Size, TimmNetwork
from hms_ray.models._pooling import generalise

LAYOUT = "image"
Options = dict[str, float | tuple[int, int]]  # of timm.create_model
SILENT_S = 15.0  # time without an answer after which a host counts as unreachable
ENOUGH = 0.9  # share of a network's tensors: a deeper network finds fewer in the file


@cache
def _tags(arch: str) -> tuple[str, ...]:
    """Return the names under which timm has weights of a network; cached, because timm copies all settings for it."""
    return tuple(timm.models.get_arch_pretrained_cfgs(arch))


class Params(Pretrained):
    """The network, its weights, its input, and its regularisation."""

    arch: str = Field("tf_efficientnet_b0.ns_jft_in1k", description="timm's name, with the tag of its weights")
    pool: Literal["native", "gem"] = Field(
        "native", description="native: pooling of the network; gem: generalised mean with a learned power"
    )
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path_rate: float = Field(0.0, ge=0, lt=1, description="stochastic depth, if the network supports it")
    resize: Size = None
    fuse: Literal["none", "features"] = Field(
        "none",
        description="for features with pictures side by side; none: one image; features: the network sees each "
        "picture, the head the features of all",
    )
    grad_checkpointing: bool = Field(
        False, description="compute activations twice instead of keeping them: less memory"
    )

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        if not timm.is_model(arch):
            near = difflib.get_close_matches(arch, [*timm.list_models(), *timm.list_pretrained()], n=3)
            raise ValueError(
                f"timm {timm.__version__} has no network of that name; near it are {', '.join(near) or 'none'}"
            )
        tagged = _tags(arch)
        if "." in arch and arch not in tagged:
            raise ValueError(f"timm {timm.__version__} has no weights of that tag; there are {', '.join(tagged)}")
        return arch

    @model_validator(mode="after")
    def _has_weights(self) -> "Params":
        known = timm.models.get_pretrained_cfg(self.arch)
        if self.pretrained is True and not (known and known.has_weights):
            raise ValueError(f"there are no published weights of {self.arch!r}: use pretrained: false, or name a file")
        return self


def source(params: Params) -> Source | None:
    """Return where the weights are, None for random ones."""
    return pretrained.source(params, lambda: _published(params.arch))


def build(spec: InputSpec, n_outputs: int, params: Params, weights: State | None = None) -> nn.Module:
    """Return the network with its first layer fitted to the image's channels; timm's own module where that is all.

    Raises:
        ConfigError: the weights belong to another network, or the network does not support an option.
    """
    fused = params.fuse == "features"
    if fused and len(spec.pictures) == 1:
        raise ConfigError("model.fuse: the feature makes one picture, there is nothing to fuse: use none")
    known = timm.models.get_pretrained_cfg(params.arch)
    one_size = bool(known and known.fixed_input_size)  # its windows or position embeddings are made for one size
    widths = sorted({part.stop - part.start for part in spec.pictures}) if fused else [spec.shape[2]]
    if len(widths) > 1 and not params.resize and one_size:
        raise ConfigError(
            f"model.fuse: pictures are {' and '.join(map(str, widths))} steps wide, and {params.arch!r} sees "
            "images of one size: use resize"
        )
    headless = fused or bool(spec.covariates)  # covariates join the features in a head of ours
    options: Options = {"in_chans": spec.shape[0], "num_classes": 0 if headless else n_outputs}
    options["drop_rate"] = params.drop_rate
    if params.drop_path_rate:  # not every network takes it
        options["drop_path_rate"] = params.drop_path_rate
    if one_size:
        options["img_size"] = params.resize or (spec.shape[1], widths[0])
    net = _created(params, options, weights)
    if weights is not None:
        _check_names(net, params, options, weights)
    if params.grad_checkpointing:
        try:
            net.set_grad_checkpointing()
        except (AssertionError, AttributeError) as error:
            raise ConfigError(f"model.grad_checkpointing: {params.arch!r} does not support it: use false") from error
    if not hasattr(net, "group_matcher"):
        net.group_matcher = _by_stage
    try:
        heads: object = net.get_classifier()
    except AttributeError as error:  # timm's message is about the head that was left out
        key, advice = ("model.fuse", "use none") if fused else ("input.covariates", "leave it out")
        raise ConfigError(f"{key}: timm's {params.arch!r} cannot do without its head: {advice}") from error
    if isinstance(heads, tuple):  # one head for the class, one for the teacher
        net.get_classifier = partial(nn.ModuleList, heads)
    if params.pool == "gem" and not generalise(net):
        raise ConfigError(f"model.pool: {params.arch!r} does not pool feature maps as timm's CNNs do: use native")
    if headless:
        pictures = spec.pictures if fused else (slice(None),)
        return Fused(net, pictures, params.resize, net.head_hidden_size, n_outputs, len(spec.covariates))
    return Resized(net, params.resize) if params.resize else net


def _published(arch: str) -> Source:
    known = timm.models.get_pretrained_cfg(arch)
    assert known is not None, "every network of timm has settings"
    if not (hub := known.hf_hub_id):
        url = cast(str, known.url)  # None only where there are no weights
        return Source(url, lambda: fetched(url, lambda: _from_url(url)))
    file = (known.hf_hub_filename,) if known.hf_hub_filename else ()
    key = "/".join([f"{HUB}{hub}", *file])
    return Source(key, lambda: fetched(key, lambda: timm.models.load_state_dict_from_hf(hub, *file)))


def _from_url(url: str) -> State:
    """Fetch a file of another host, with a timeout: torch would wait forever for a host that never answers."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENT_S)
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False, weights_only=True)
    finally:
        socket.setdefaulttimeout(before)


def _created(params: Params, options: Options, weights: State | None) -> TimmNetwork:
    try:
        if weights is None:
            return cast(TimmNetwork, timm.create_model(params.arch, **options))
        overlay = {"state_dict": dict(weights)}  # a copy, because timm removes tensors from it
        with unexpected_by_timm() as unexpected:
            net = cast(
                TimmNetwork,
                timm.create_model(params.arch, pretrained=True, pretrained_cfg_overlay=overlay, **options),
            )
    except TypeError as error:
        raise ConfigError(f"model.arch {params.arch!r} does not take these options: {error}") from error
    except (RuntimeError, LookupError, AttributeError) as error:  # timm's errors for tensors that it did not expect
        if weights is None:
            raise
        raise _misfit(params, str(error)) from error
    net.pretrained_cfg.pop("state_dict")  # else the network keeps a second copy of the weights
    names = net.pretrained_cfg.get("classifier") or ()  # the published heads, which are left out
    heads = {name.partition(".")[0] for name in ([names] if isinstance(names, str) else names)}
    if others := besides(unexpected, net.state_dict(), heads):
        raise _misfit(params, f"the file has besides {some(others)}")
    return net


def _check_names(net: TimmNetwork, params: Params, options: Options, weights: State) -> None:
    """Refuse weights of another network: timm does not report tensors of the network that the file lacks."""
    names = net.state_dict().keys()
    shared = len(names & weights.keys())
    if shared >= ENOUGH * len(names):
        return
    # timm also reads files with other names. Tensors that were not read differ from one random initialisation to the
    # next; vectors do not count, because they are initialised as ones or zeros.
    twins = zip(net.parameters(), _created(params, options, weights).parameters(), strict=True)
    equal = [torch.equal(one, other) for one, other in twins if one.ndim > 1]
    if sum(equal) / len(equal) < ENOUGH:
        raise _misfit(params, f"the file has {shared} of the network's {len(names)} tensors")


def _misfit(params: Params, cause: str) -> ConfigError:
    return misfit(called(params, _published(params.arch).key), repr(params.arch), cause)


def _by_stage(coarse: bool = False) -> Patterns:
    """Return patterns for the networks of timm that have none: metaformers, PiT, CSATv2."""
    stage = r"^(?:stages|transformers)\.(\d+)"
    return {
        "stem": r"^stem|^pos_embed|^patch_embed|^cls_token",
        "blocks": [(rf"{stage}(?:\.blocks)?\.(\d+)", None), (stage, None)],
    }
