"""Networks of braindecode where the package is installed, and one sentence where it is not."""

import sys
from importlib.util import find_spec

import pytest
import torch
from timm.models import group_parameters
from torch import nn

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.specs import InputSpec
from hms_ray.models import braindecode_wave

WAVE = InputSpec("wave", (4, 1000), 200.0)
installed = pytest.mark.skipif(find_spec("braindecode") is None, reason="braindecode is not installed")


def _build(spec: InputSpec = WAVE, **params: object) -> nn.Module:
    return braindecode_wave.build(spec, 6, parse(braindecode_wave.Params, params, "model"))


def test_without_the_package_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "braindecode"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Absent(), *sys.meta_path])
    with pytest.raises(
        ConfigError, match=r"^model braindecode_wave needs the package braindecode: pip install braindecode$"
    ):
        parse(braindecode_wave.Params, {}, "model")


class _Absent:
    """Finds no braindecode."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "braindecode":
            raise ModuleNotFoundError(f"No module named {name!r}", name="braindecode")


def test_a_package_that_is_broken_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "braindecode.models.util", None)  # to import None fails
    with pytest.raises(
        ConfigError, match=r"^braindecode cannot be imported: import of .* halted; .*install it with all"
    ):
        parse(braindecode_wave.Params, {}, "model")


@installed
@pytest.mark.parametrize("arch", ["EEGNet", "ShallowFBCSPNet", "Deep4Net", "EEGConformer", "EEGNeX", "ATCNet", "BDTCN"])
def test_networks_give_logits_and_train(arch: str) -> None:
    torch.manual_seed(0)
    model, x = _build(arch=arch), torch.randn(4, *WAVE.shape)
    assert model.training
    logits = model.eval()(x)
    assert logits.shape == (4, 6)
    assert not torch.allclose(logits.exp().sum(1), torch.ones(4), atol=1e-3), "no log-softmax"
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    head = {id(p) for p in model.get_classifier().parameters()}
    assert head and head < {id(p) for p in model.parameters()}
    with torch.device("meta"):
        assert _build(arch=arch).eval()(torch.empty(2, *WAVE.shape)).shape == (2, 6)


@installed
def test_options_are_passed_on() -> None:
    drops = [layer.p for layer in _build(options={"drop_prob": 0.4}).modules() if isinstance(layer, nn.Dropout)]
    assert drops and set(drops) == {0.4}


@installed
@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"arch": "EEGNett"}, r"no network of braindecode named 'EEGNett'; .* Did you mean 'EEGNet'\?"),
        ({"options": {"drop_rob": 0.1}}, r"no option of EEGNet named 'drop_rob'; .* Did you mean 'drop_prob'\?"),
        ({"options": {"n_chans": 3}}, "no option of EEGNet named 'n_chans'"),
    ],
)
def test_what_is_not_known_is_said_with_the_nearest(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(braindecode_wave.Params, params, "model")


@installed
def test_an_option_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.arch 'EEGNet' with options .* cannot be built: ValueError: dropout"):
        _build(options={"drop_prob": 7.0})


class _Tiny(nn.Sequential):
    """As braindecode's are: told what the data are like, and with a `final_layer`, here perhaps of no parameters."""

    def __init__(self, n_chans: int, n_outputs: int, sfreq: float, steps: int = 1, last: bool = True) -> None:
        assert steps > 0, "at least one step"
        super().__init__()
        self.pool = nn.AdaptiveAvgPool1d(steps)
        self.conv = nn.Conv1d(n_chans, 8, 1)
        self.deep = nn.Sequential(nn.ReLU(), nn.Conv1d(8, 8 if last else n_outputs, 1))
        self.final_layer = nn.Sequential(*[nn.Conv1d(8, n_outputs, 1)] * last, nn.Flatten())
        self.rate = (torch.ones(1) * sfreq).item()  # not to be had of a network without memory


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(braindecode_wave, "_networks", lambda: {"Tiny": _Tiny})


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("last", "head"), [(True, "network.final_layer.0."), (False, "network.deep.1.")])
def test_the_head_is_what_comes_last(last: bool, head: str) -> None:
    model = _build(arch="Tiny", options={"last": last})
    assert model.get_classifier() is model.get_submodule(head.removesuffix(".0.").removesuffix("."))
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    assert {name for name, layer in layers.items() if layer == 1} == {head + "weight", head + "bias"}
    assert set(layers.values()) == {0, 1}


@pytest.mark.usefixtures("tiny")
def test_a_network_that_looks_at_values_can_be_rehearsed() -> None:
    with torch.device("meta"):
        assert _build(arch="Tiny")(torch.empty(2, *WAVE.shape)).shape == (2, 6)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"steps": 2},
            r"with options .* on 4 channels of 1000 steps at 200 Hz gives \(1, 12\) for one wave, .* \(1, 6\)",
        ),
        ({"steps": -1}, "cannot be built: AssertionError: at least one step"),
        ({"step": 2}, r"no option of Tiny named 'step'; there are: last, steps\. Did you mean 'steps'\?"),
        ({"sfreq": 2}, "no option of Tiny named 'sfreq'"),
    ],
)
def test_what_does_not_suit_is_said(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _build(arch="Tiny", options=options)
