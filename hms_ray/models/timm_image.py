"""Any image network of timm, by name."""

import difflib
import socket
from functools import cache, partial
from typing import Any, Literal, cast

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
SILENT_S = 15.0  # that a host may be silent before it counts as unreachable
ENOUGH = 0.9  # of a network's tensors: a deeper sibling finds fewer in the file, another head alone leaves more


@cache
def _tags(arch: str) -> tuple[str, ...]:
    """Return the names under which timm has weights of a network; it copies all their settings to say so."""
    return tuple(timm.models.get_arch_pretrained_cfgs(arch))


class Params(Pretrained):
    """Which network, from which weights, what it sees, and how it is regularised."""

    arch: str = Field("tf_efficientnet_b0.ns_jft_in1k", description="timm's name, with the tag of its weights")
    pool: Literal["native", "gem"] = Field(
        "native", description="native: as the network pools; gem: the generalised mean with a learned power"
    )
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path_rate: float = Field(0.0, ge=0, lt=1, description="stochastic depth, where the network has it")
    resize: Size = None
    fuse: Literal["none", "features"] = Field(
        "none",
        description="where a feature sets pictures side by side: none: they are one image; features: the network sees "
        "each, and the head what it found in all",
    )
    grad_checkpointing: bool = Field(False, description="compute activations twice and keep few: less memory")

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
            raise ValueError(f"nobody has published weights of {self.arch!r}: say pretrained: false, or name a file")
        return self


def source(params: Params) -> Source | None:
    """Return where the weights are, None for random ones."""
    return pretrained.source(params, lambda: _published(params.arch))


def build(spec: InputSpec, n_outputs: int, params: Params, weights: State | None = None) -> nn.Module:
    """Return the network with its first layer fitted to the image's channels; timm's own module where that is all.

    Raises:
        ConfigError: the weights are another network's, or the network does not take an option.
    """
    sizes, fused = _sizes(spec, params), params.fuse == "features"
    headless = fused or bool(spec.covariates)  # numbers beside the image meet its features in a head of ours
    net = _network(spec.shape[0], 0 if headless else n_outputs, sizes[0], params, weights)
    if params.pool == "gem" and not generalise(net):
        raise ConfigError(f"model.pool: {params.arch!r} does not pool feature maps as timm's CNNs do: say native")
    if headless:
        pictures = spec.pictures if fused else (slice(None),)
        return Fused(net, pictures, params.resize, net.head_hidden_size, n_outputs, len(spec.covariates))
    return Resized(net, params.resize) if params.resize else net


def _published(arch: str) -> Source:
    known = timm.models.get_pretrained_cfg(arch)
    assert known is not None, "every network of timm has settings"
    if not (hub := known.hf_hub_id):
        url = cast(str, known.url)  # None where there are no weights, which then have no name
        return Source(url, lambda: fetched(url, lambda: _from_url(url)))
    file = (known.hf_hub_filename,) if known.hf_hub_filename else ()
    key = "/".join([f"{HUB}{hub}", *file])
    return Source(key, lambda: fetched(key, lambda: timm.models.load_state_dict_from_hf(hub, *file)))


def _from_url(url: str) -> State:
    """Fetch a file of another host; a host that accepts and never answers would be waited for without an end."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENT_S)
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False, weights_only=True)
    finally:
        socket.setdefaulttimeout(before)


def _sizes(spec: InputSpec, params: Params) -> list[tuple[int, int]]:
    """Return the sizes (F, T) of what the network sees, each once."""
    if params.fuse == "none":
        return [params.resize or (spec.shape[1], spec.shape[2])]
    if len(spec.pictures) == 1:
        raise ConfigError("model.fuse: the feature makes one picture, there is nothing to fuse: say none")
    wide = {part.stop - part.start for part in spec.pictures}
    if len(wide) > 1 and not params.resize and _sees_one_size(params.arch):
        raise ConfigError(
            f"model.fuse: pictures are {' and '.join(map(str, sorted(wide)))} steps wide, and {params.arch!r} sees "
            "images of one size: say resize"
        )
    return [params.resize or (spec.shape[1], width) for width in sorted(wide)]


def _sees_one_size(arch: str) -> bool:
    """Whether windows or position embeddings are made for a size, which the network has to be told."""
    known = timm.models.get_pretrained_cfg(arch)
    return bool(known and known.fixed_input_size)


def _network(channels: int, outputs: int, size: tuple[int, int], params: Params, weights: State | None) -> TimmNetwork:
    options = {"in_chans": channels, "num_classes": outputs, **_options(size, params)}
    net = _created(params, options, weights)
    if weights is not None:
        _check_names(net, params, options, weights)
    if params.grad_checkpointing:
        _checkpoint(net, params.arch)
    try:
        _complete(net)
    except AttributeError as error:  # its own words ask for the head that was left out
        what = "model.fuse" if params.fuse == "features" else "input.covariates"
        instead = "say none" if params.fuse == "features" else "leave it out"
        raise ConfigError(f"{what}: timm's {params.arch!r} cannot do without its head: {instead}") from error
    return net


def _options(size: tuple[int, int], params: Params) -> dict[str, Any]:
    options: dict[str, Any] = {"drop_rate": params.drop_rate}
    if params.drop_path_rate:  # not every network takes it
        options["drop_path_rate"] = params.drop_path_rate
    if _sees_one_size(params.arch):
        options["img_size"] = tuple(size)
    return options


def _created(params: Params, options: dict[str, Any], weights: State | None) -> TimmNetwork:
    try:
        if weights is None:
            return cast(TimmNetwork, timm.create_model(params.arch, **options))
        overlay = {"state_dict": dict(weights)}  # timm takes tensors out of it
        with unexpected_by_timm() as unexpected:
            made = timm.create_model(params.arch, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except TypeError as error:
        raise ConfigError(f"model.arch {params.arch!r} does not take these options: {error}") from error
    except (RuntimeError, LookupError, AttributeError) as error:  # what timm makes of tensors that it did not expect
        if weights is None:
            raise
        raise _misfit(params, str(error)) from error
    net = cast(TimmNetwork, made)
    net.pretrained_cfg.pop("state_dict")  # else the network holds them twice
    if others := besides(unexpected, net.state_dict(), _heads(net)):
        raise _misfit(params, f"the file has besides {some(others)}")
    return net


def _heads(net: TimmNetwork) -> set[str]:
    """Return the parts where the heads are: published ones are left out."""
    names = net.pretrained_cfg.get("classifier") or ()
    return {name.partition(".")[0] for name in ([names] if isinstance(names, str) else names)}


def _check_names(net: TimmNetwork, params: Params, options: dict[str, Any], weights: State) -> None:
    """Refuse weights of another network: timm leaves out what it does not find, and says nothing."""
    wanted = net.state_dict()
    named = len(wanted.keys() & weights.keys())
    if named >= ENOUGH * len(wanted) or _read(net, _created(params, options, weights)) >= ENOUGH:
        return
    raise _misfit(params, f"the file has {named} of the network's {len(wanted)} tensors")


def _misfit(params: Params, cause: str) -> ConfigError:
    return misfit(called(params, _published(params.arch).key), repr(params.arch), cause)


def _read(net: nn.Module, again: nn.Module) -> float:
    """Return how much was read where others' names hide it: what is random differs from one build to the next."""
    twins = zip(net.parameters(), again.parameters(), strict=True)
    same = [torch.equal(one, other) for one, other in twins if one.ndim > 1]  # vectors begin as ones or zeros
    return sum(same) / len(same)


def _checkpoint(net: TimmNetwork, arch: str) -> None:
    try:
        net.set_grad_checkpointing()
    except (AssertionError, AttributeError) as error:
        raise ConfigError(f"model.grad_checkpointing: {arch!r} cannot: say false") from error


def _complete(net: TimmNetwork) -> None:
    """Give a network the words of timm's language that it lacks: some have no patterns, some have two heads."""
    if not hasattr(net, "group_matcher"):
        net.group_matcher = _by_stage
    heads: object = net.get_classifier()
    if isinstance(heads, tuple):  # the head of the class, and of the teacher
        net.get_classifier = partial(nn.ModuleList, heads)


def _by_stage(coarse: bool = False) -> Patterns:
    """Return patterns for the networks of timm that have none: metaformers, PiT, CSATv2."""
    stage = r"^(?:stages|transformers)\.(\d+)"
    return {
        "stem": r"^stem|^pos_embed|^patch_embed|^cls_token",
        "blocks": [(rf"{stage}(?:\.blocks)?\.(\d+)", None), (stage, None)],
    }
