"""Whether a configuration can be trained, found without recordings, without weights and within a second."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from hms_ray import registry
from hms_ray.augment._compose import Batch, apply_all
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError, shown
from hms_ray.core.params import Params
from hms_ray.core.specs import InputSpec
from hms_ray.store.inputs import input_spec
from hms_ray.tasks import Task
from hms_ray.training.build import build_model, test_time
from hms_ray.training.run_config import Component, RunConfig

# What networks are initialised with; on the meta device it costs half of the time and changes nothing.
FILLS = {"uniform_", "normal_", "trunc_normal_", "erfinv_", "clamp_", "mul_", "add_", "fill_", "zero_", "constant_"}
FILLS |= {"kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"}
RECURRENT = {"gru", "lstm", "rnn_tanh", "rnn_relu"}  # the functions behind PyTorch's layers


def rehearse(run: RunConfig, task: Task) -> None:
    """Send two made-up examples through augmentation and network, so that what cannot fit fails before any work.

    Raises:
        ConfigError: the network refuses the image, or an augmentation the feature.
    """
    Rehearsals(task).check(run)


class Rehearsals:
    """Rehearses configurations; what two of them have in common is rehearsed once.

    A network is rehearsed once for all dropout rates above 0, an augmentation once for all its probabilities above 0,
    since neither changes a shape.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.outcomes: dict[Hashable, ConfigError | Any] = {}

    def check(self, run: RunConfig) -> None:
        """Rehearse a configuration; errors as in `rehearse`."""
        spec = _spec(run)
        for stage in dict.fromkeys(run.stage_augment):
            applied = tuple(_always(part) for part in stage if part.params.p > 0)
            self._once(("augment", spec, *((part.name, part.params) for part in applied)), _augment, spec, applied)
        self._once(("test_time", spec, run.test_time), _vary, run, spec)
        self.weight_bytes(run)  # which rehearses the network

    def weight_bytes(self, run: RunConfig) -> int:
        """Return the size of the weights of a run's network; errors as in `rehearse`."""
        spec, model = _spec(run), replace(run.model, params=_without_rates(run.model.params))
        return self._once((spec, model.name, model.params), _build, replace(run, model=model), spec)

    def _once(self, key: Hashable, rehearsal: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a rehearsal returned, or raise what it raised, when it was called with the first such key."""
        if key not in self.outcomes:
            try:
                self.outcomes[key] = rehearsal(*arguments, self.task)
            except ConfigError as error:
                self.outcomes[key] = error
        if isinstance(outcome := self.outcomes[key], ConfigError):
            raise ConfigError(str(outcome)) from outcome
        return outcome


def _spec(run: RunConfig) -> InputSpec:
    return input_spec(run.feature_ref, run.input)


def _always(part: Component) -> Component:
    return replace(part, params=part.params.model_copy(update={"p": 1.0}))


def _without_rates(params: Params) -> Params:
    """Return the parameters of a network with random weights and with one value for all its dropout rates above 0."""
    rates = [name for name in type(params).model_fields if name.endswith(("drop_rate", "drop_path_rate"))]
    same: dict[str, Any] = {name: 0.1 if getattr(params, name) else 0.0 for name in rates}
    return params.model_copy(update=same | ({"pretrained": False} if hasattr(params, "pretrained") else {}))


def _examples(spec: InputSpec) -> torch.Tensor:
    drawn = seeds.stream(0, "rehearsal").standard_normal((2, *spec.shape))
    return torch.from_numpy(drawn.astype(np.float32))


def _augment(spec: InputSpec, parts: tuple[Component, ...], task: Task) -> None:
    if not parts:
        return
    covariates = torch.zeros(2, len(spec.covariates)) if spec.covariates else None
    y = torch.full((2, len(task.classes)), 1 / len(task.classes))
    batch = Batch(_examples(spec), y, torch.ones(2), spec, covariates=covariates)
    rng = seeds.stream(0, "rehearsal", "augment")
    for part in parts:
        batch = apply_all(batch, rng, [(part.module, part.params)])
        if registry.is_added("augment", part.name):
            x = batch.x if isinstance(batch, Batch) else batch
            _check_shape(f"augment.{part.key}: apply", x, (2, *spec.shape))


def _vary(run: RunConfig, spec: InputSpec, task: Task) -> None:
    for module in test_time(run):
        module.variant(_examples(spec), spec)


def _build(run: RunConfig, spec: InputSpec, task: Task) -> int:
    """Return the size of the weights in bytes."""
    try:
        with torch.inference_mode(), torch.device("meta"):  # shapes alone, whatever the network's size
            with _Unfilled():
                network = build_model(run, task)
                if not isinstance(network, torch.nn.Module):
                    returned = shown(network)
                    raise ConfigError(
                        f"model {run.model.key}: build must return a torch module, but returned {returned}"
                    )
                network.eval()
            more = (torch.empty(2, len(spec.covariates)),) if spec.covariates else ()
            with _Shapes():
                logits = network(torch.empty(2, *spec.shape), *more)
            if registry.is_added("models", run.model.name):  # the tests of this package hold its own models to it
                _check_shape(f"model {run.model.key}: its network", logits, (2, len(task.classes)))
            return sum(value.numel() * value.element_size() for value in network.state_dict().values())
    except (RuntimeError, AssertionError, ValueError) as error:
        cause = str(error).strip() or type(error).__name__  # a bare assertion says nothing
        takes = "resize" in type(run.model.params).model_fields
        raise ConfigError(
            f"model {run.model.name} cannot take {spec.layout} inputs of shape {spec.shape}: {cause.splitlines()[0]}"
            + ("; model.resize brings images to a size that it takes" if takes else "")
        ) from error


def _check_shape(subject: str, x: object, shape: tuple[int, ...]) -> None:
    if not isinstance(x, torch.Tensor) or tuple(x.shape) != shape:
        returned = tuple(x.shape) if isinstance(x, torch.Tensor) else shown(x)
        raise ConfigError(f"{subject} must return the shape {shape}, but returned {returned}")


class _Unfilled(TorchFunctionMode):
    """Leaves tensors of the meta device, which hold no values, without initial values."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")
        if getattr(function, "__name__", "") in FILLS and isinstance(filled, torch.Tensor) and filled.is_meta:
            return filled
        return function(*args, **kwargs)


class _Shapes(TorchFunctionMode):
    """Answers on the meta device with a tensor of the right shape where that is plain, and asks PyTorch elsewhere.

    PyTorch finds shapes there in Python, operation by operation, and goes through a recurrent layer step by step: a
    layer takes one step here, since all have the same shape.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        match getattr(function, "__name__", ""):
            case "linear" if len(args) >= 2 and args[0].ndim and args[0].shape[-1] == args[1].shape[-1]:
                return args[0].new_empty(*args[0].shape[:-1], args[1].shape[0])
            case "layer_norm" if len(args) >= 2 and args[0].shape[-len(args[1]) :] == tuple(args[1]):
                return torch.empty_like(args[0])
            case "batch_norm" if len(args) >= 2 and args[1] is not None and args[0].shape[1:2] == args[1].shape:
                return torch.empty_like(args[0])
            case "gelu" | "silu" | "relu" if len(args) == 1 and not kwargs.get("inplace"):
                return torch.empty_like(args[0])
            case "add" | "mul" if len(args) == 2 and not kwargs and _alike(*args):
                return torch.empty_like(args[0])
            case "scaled_dot_product_attention" if (
                len(args) == 3 and kwargs.get("attn_mask") is None and _attend(*args)
            ):
                return args[0].new_empty(*args[0].shape[:-1], args[2].shape[-1])
            case name if name in RECURRENT and isinstance(args[3], bool):  # not of packed sequences
                x, batch_first = args[0], args[8]
                time = 1 if batch_first else 0
                step, *states = function(x[:, :1] if batch_first else x[:1], *args[1:], **kwargs)
                steps = step.new_empty(x.shape[time], x.shape[1 - time], step.shape[-1])
                return steps.transpose(0, 1) if batch_first else steps, *states
        return function(*args, **kwargs)


def _alike(one: Any, other: Any) -> bool:
    """Whether two tensors have the same shape, layout and type."""
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    return (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the shapes fit those of attention, with nothing to broadcast."""
    return query.shape[:-2] == key.shape[:-2] == value.shape[:-2] and (
        (query.shape[-1], key.shape[-2]) == (key.shape[-1], value.shape[-2])
    )
