"""Rehearsals: what cannot be trained is found without recordings, and what runs share is rehearsed once."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hms_ray import tasks
from hms_ray.core.errors import ConfigError
from hms_ray.models import basic_cnn
from hms_ray.training import dry_run
from hms_ray.training.dry_run import Rehearsals, rehearse
from hms_ray.training.run_config import parse_run

RUN = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "stages": [{"epochs": 2, "lr": 0.01}],
}
TASK = tasks.from_dict({"kind": "votes", "classes": ["a", "b", "c"]})


def a_run(**changes):
    return parse_run(copy.deepcopy(RUN) | changes)


class Shapes(TorchDispatchMode):
    """Notes the shape of what recurrent layers are given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if str(function).startswith(("aten.gru", "aten.lstm", "aten.rnn")):
            self.seen.append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


def test_a_run_that_works_passes_its_rehearsal():
    rehearse(a_run(augment={"mixup": {}, "xy_mask": {}, "mirror_sides": {}}), TASK)


def test_a_network_that_cannot_take_the_image_fails_its_rehearsal():
    run = a_run(model={"name": "timm_image", "arch": "maxvit_tiny_rw_224", "pretrained": False})
    with pytest.raises(ConfigError, match=r"model timm_image cannot take image inputs of shape \(1, 100, 75\): "):
        rehearse(run, TASK)


@pytest.mark.parametrize("arch", ["maxvit_tiny_rw_224", "mvitv2_tiny"])
def test_a_network_of_timm_that_wants_another_size_is_told_of_resize(arch):
    run = a_run(model={"name": "timm_image", "arch": arch, "pretrained": False})
    with pytest.raises(ConfigError, match=r"; model\.resize brings images to a size that it takes$"):
        rehearse(run, TASK)


@pytest.mark.parametrize("text", ["", "\n", " "])
def test_an_assertion_without_a_text_is_called_by_its_name(monkeypatch, text):
    def fails(self, x):
        raise AssertionError(text)

    monkeypatch.setattr(basic_cnn._MeanMax, "forward", fails)
    with pytest.raises(ConfigError, match=r"cannot take image inputs of shape \(1, 100, 75\): AssertionError$"):
        rehearse(a_run(), TASK)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize(("batch_first", "bidirectional", "layers"), [(True, True, 1), (False, False, 2)])
def test_recurrent_layers_are_not_gone_through_step_by_step(monkeypatch, kind, batch_first, bidirectional, layers):
    """What follows them is given what a CPU would give it, in the same memory layout."""
    layouts, given = {}, Shapes()

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = kind(75, 5, layers, batch_first=batch_first, bidirectional=bidirectional)

        def forward(self, x):
            with given:
                out, states = self.layer(x[:, 0] if batch_first else x[:, 0].transpose(0, 1))
            states = states if isinstance(states, tuple) else (states,)
            layouts[x.device.type] = [(each.shape, each.stride()) for each in (out, *states)]
            return out

    monkeypatch.setattr(dry_run, "build_model", lambda run, task: Recurrent())
    rehearse(a_run(), TASK)
    assert given.seen == [(2, 1, 75) if batch_first else (1, 2, 75)], "one step of 100"
    with torch.inference_mode():
        Recurrent()(torch.empty(2, 1, 100, 75))
    assert layouts["meta"] == layouts["cpu"]


LAYERS = [
    (nn.Linear(7, 3), (2, 5, 7), (2, 5, 6)),
    (nn.LayerNorm((5, 7)), (2, 5, 7), (2, 5, 6)),
    (nn.BatchNorm1d(5), (2, 5, 7), (2, 6, 7)),
    (nn.BatchNorm2d(5, affine=False), (2, 5, 7, 3), (2, 6, 7, 3)),
    (nn.BatchNorm2d(5, track_running_stats=False), (2, 5, 7, 3), (2, 6, 7, 3)),
    *((kind(), (2, 5, 7), None) for kind in (nn.GELU, nn.SiLU, nn.ReLU)),
    (nn.ReLU(inplace=True), (2, 5, 7), None),
]


@pytest.mark.parametrize(("layer", "fits", "misfits"), LAYERS, ids=lambda value: getattr(value, "_get_name", str)())
def test_shapes_that_pytorch_is_not_asked_for_are_those_of_a_cpu(layer, fits, misfits):
    def shapes(device, size):
        x, out = torch.empty(size, device=device), layer.to(device)
        if len(size) == 4:
            x = x.to(memory_format=torch.channels_last)
        with torch.inference_mode(), dry_run._Shapes() if device == "meta" else nullcontext():
            y = out(x)
        return y.shape, y.stride(), y.dtype

    layer = layer.eval()
    assert shapes("cpu", fits) == shapes("meta", fits)
    if misfits:
        with pytest.raises(RuntimeError):
            shapes("meta", misfits)


@pytest.mark.parametrize(
    ("function", "fits", "misfits"),
    [
        (nn.functional.scaled_dot_product_attention, [(2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 4)], [(2, 3, 5, 7)] * 2),
        (nn.functional.scaled_dot_product_attention, [(2, 3, 5, 8), (1, 3, 6, 8), (1, 3, 6, 8)], None),
        (nn.functional.scaled_dot_product_attention, [(2, 3, 5, 8)] * 3 + [(5, 5)], [(5, 4)]),  # a mask by position
        (torch.add, [(2, 3, 5), (2, 3, 5)], [(2, 3, 4)]),
        (torch.mul, [(2, 3, 5), (2, 1, 5)], [(2, 3, 4)]),
    ],
)
def test_functions_that_pytorch_is_not_asked_for_are_those_of_a_cpu(function, fits, misfits):
    def shape(device, sizes):
        with dry_run._Shapes() if device == "meta" else nullcontext():
            y = function(*(torch.empty(size, device=device) for size in sizes))
        return y.shape, y.dtype

    assert shape("cpu", fits) == shape("meta", fits)
    if misfits:
        with pytest.raises(RuntimeError):
            shape("meta", fits[: len(fits) - len(misfits)] + misfits)


def test_published_weights_are_not_asked_for():
    rehearse(a_run(model={"name": "timm_image", "arch": "resnet18", "pretrained": True}), TASK)


def test_what_runs_share_is_rehearsed_once(monkeypatch):
    """Rates above 0 change no shape: one network and one augmentation stand for all of them."""
    built, build = [], dry_run.build_model
    monkeypatch.setattr(dry_run, "build_model", lambda run, task: built.append(run) or build(run, task))
    rehearsals = Rehearsals(TASK)
    for rate, p in ((0.1, 0.0), (0.3, 0.2), (0.2, 0.7)):
        model = RUN["model"] | {"drop_rate": rate}
        rehearsals.check(a_run(model=model, augment={"mixup": {"p": p}}))
    assert len(built) == 1
    rehearsals.check(a_run(model=RUN["model"] | {"drop_rate": 0.0}))
    rehearsals.check(a_run(model=RUN["model"] | {"width": 5}))
    assert len(built) == 3


def test_a_fault_is_remembered_and_worded_alike():
    rehearsals = Rehearsals(TASK)
    for p in (0.3, 0.7, 0.7):
        run = a_run(feature={"name": "global_stats", "pool": 4}, augment={"permute_chains": {"p": p}})
        with pytest.raises(ConfigError, match=r"^augment\.permute_chains needs a feature whose panels form chains"):
            rehearsals.check(run)
    rehearsals.check(a_run(feature={"name": "global_stats", "pool": 4}, augment={"permute_chains": {"p": 0.0}}))


def test_statistics_over_both_sides_can_be_mirrored():
    sides = {"augment": {"mirror_sides": {}}, "test_time": ["mirror_sides"]}
    rehearse(a_run(feature={"name": "global_stats", "pool": 4}, **sides), TASK)
