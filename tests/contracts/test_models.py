"""What every model keeps, for files that nobody has written yet as well."""

import inspect
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from timm.models import group_parameters

from hms_ray import registry
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params, parse
from hms_ray.core.specs import AXES, InputSpec
from hms_ray.features import kaggle_spectrogram
from hms_ray.models._heads import fit_covariates, takes_covariates
from hms_ray.training import checkpoint

SPECS = {
    "image": [
        kaggle_spectrogram.spec(kaggle_spectrogram.Params(pool=4)),
        kaggle_spectrogram.spec(kaggle_spectrogram.Params(arrange="channels", pool=4)),
    ],
    "wave": [InputSpec("wave", (1, 4000), 200.0), InputSpec("wave", (18, 2000), 40.0)],
    "embedding": [InputSpec("embedding", (3, 4, 32), 0.2), InputSpec("embedding", (1, 1, 32), 0.05)],
}
BESIDE = ("age", "gender")
SPECS = {layout: [*specs, replace(specs[0], covariates=BESIDE)] for layout, specs in SPECS.items()}
# where the default has a hundred million parameters
SMALL = {"speech_encoder": {"arch": "wavlm-tiny", "train": "all"}, "ast": {"depth": 2}}
NAMES = registry.names("models")
EACH = [(name, spec) for name in NAMES for spec in SPECS[registry.load("models", name).LAYOUT]]


def _marks(name: str) -> list[pytest.MarkDecorator]:
    """Skip a model whose package is not installed."""
    needs = getattr(registry.load("models", name), "NEEDS", None)
    return [pytest.mark.skipif(needs is not None and find_spec(needs) is None, reason=f"{needs} is not installed")]


each_spec = pytest.mark.parametrize(
    ("name", "spec"),
    [
        pytest.param(*each, marks=_marks(each[0]), id="-".join([each[0], str(each[1].shape), *each[1].covariates]))
        for each in EACH
    ],
)
each = pytest.mark.parametrize("name", [pytest.param(name, marks=_marks(name)) for name in NAMES])


def _build(name: str, spec: InputSpec, outputs: int = 6, seed: int = 0) -> torch.nn.Module:
    """The model by default, or a smaller one, without weights from elsewhere."""
    module = registry.load("models", name)
    untrained = {"pretrained": False} if "pretrained" in module.Params.model_fields else {}
    torch.manual_seed(seed)
    model = module.build(spec, outputs, module.Params(**untrained, **SMALL.get(name, {})))
    if spec.covariates and not takes_covariates(model):
        pytest.skip("it takes nothing beside its input, and a run that wants it to is refused")
    return model


def _inputs(spec: InputSpec, rows: int = 3) -> tuple[torch.Tensor, ...]:
    """What a network is called with: x, and the numbers beside it, where there are some, not all of them known."""
    chance = torch.Generator().manual_seed(0)
    x, covariates = (
        torch.randn(rows, *spec.shape, generator=chance),
        torch.randn(rows, len(spec.covariates), generator=chance),
    )
    covariates[:1, :1] = torch.nan
    return (x, covariates) if spec.covariates else (x,)


@each_spec
def test_examples_become_logits(name: str, spec: InputSpec) -> None:
    for outputs in (6, 1):
        logits = _build(name, spec, outputs).eval()(*_inputs(spec))
        assert logits.shape == (3, outputs) and logits.dtype == torch.float32 and torch.isfinite(logits).all()


@each_spec
def test_every_parameter_and_the_input_get_a_gradient(name: str, spec: InputSpec) -> None:
    model, (x, *covariates) = _build(name, spec).train(), _inputs(spec, 4)
    (model(x.requires_grad_(), *covariates) * torch.arange(24.0).view(4, 6)).sum().backward()
    trained = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    assert trained and [key for key, grad in trained.items() if grad is None] == []
    assert all(torch.isfinite(grad).all() for grad in trained.values())
    assert x.grad.flatten(1).abs().sum(1).min() > 0, "each example counts"


@each_spec
def test_the_seed_decides(name: str, spec: InputSpec) -> None:
    first, again, other = (_build(name, spec, seed=seed).eval()(*_inputs(spec)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@each_spec
def test_in_evaluation_an_example_does_not_see_its_neighbours(name: str, spec: InputSpec) -> None:
    model, given = _build(name, spec).eval(), _inputs(spec)
    alone = model(*(values[1:2] for values in given))
    torch.testing.assert_close(model(*given)[1:2], alone, rtol=1e-3, atol=1e-4)


@each_spec
def test_numbers_beside_the_input_count_but_not_those_that_are_unknown(name: str, spec: InputSpec) -> None:
    if not spec.covariates:
        pytest.skip("this feature has none")
    model, (x, covariates) = _build(name, spec).eval(), _inputs(spec)
    fit_covariates(model, covariates[1:])
    assert not torch.equal(model(x, covariates), model(x, covariates + 1))
    unknown = model(x, torch.full_like(covariates, torch.nan))
    torch.testing.assert_close(unknown, model(x, covariates[1:].mean(0).expand(3, -1)), rtol=1e-4, atol=1e-5)


@each_spec
def test_weights_come_back_from_a_file(name: str, spec: InputSpec, tmp_path: Path) -> None:
    model, twin = _build(name, spec, seed=0), _build(name, spec, seed=1)
    model.train()(*_inputs(spec))  # so that buffers move as well
    (tmp_path / "model.safetensors").write_bytes(checkpoint.pack(model.state_dict()))
    twin.load_state_dict(checkpoint.unpack(tmp_path / "model.safetensors"))
    assert torch.equal(model.eval()(*_inputs(spec)), twin.eval()(*_inputs(spec)))


@each
def test_parameters_are_strict_and_told(name: str) -> None:
    module = registry.load("models", name)
    assert issubclass(module.Params, Params) and module.Params.model_config["extra"] == "forbid"
    with pytest.raises(ConfigError, match=r"model\.no_such_key: unknown key"):
        parse(module.Params, {"no_such_key": 1}, "model")
    assert all(field.description for field in module.Params.model_fields.values())


@each
def test_it_says_what_it_is(name: str) -> None:
    module = registry.load("models", name)
    assert module.LAYOUT in AXES
    assert inspect.getdoc(module) and inspect.getdoc(module.build) and inspect.getdoc(module.Params)
    given = ["weights"] if "pretrained" in module.Params.model_fields else []
    assert list(inspect.signature(module.build).parameters) == ["spec", "n_outputs", "params", *given]


@each
def test_published_weights_have_a_place(name: str) -> None:
    module = registry.load("models", name)
    if "pretrained" not in module.Params.model_fields:
        pytest.skip("it has no published weights")
    assert module.source(module.Params(pretrained=False)) is None
    assert module.source(module.Params(pretrained="hf-hub:owner/name")).key == "hf-hub:owner/name"
    assert module.source(module.Params()).key.startswith(("hf-hub:", "https:"))


@each_spec
def test_layers_are_found(name: str, spec: InputSpec) -> None:
    """For layer-wise rates every parameter has a layer, the head the last, and the first layers come first."""
    model = _build(name, spec)
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(layers) == {key for key, _ in model.named_parameters()}
    head = {id(p) for p in model.get_classifier().parameters()}
    last = max(layers.values())
    assert all(layers[key] == last for key, p in model.named_parameters() if id(p) in head)
    assert last > 0 or not model.group_matcher(), "a network without patterns is all one layer"


def _exempt(model: torch.nn.Module) -> set[str]:
    return set(getattr(model, "no_weight_decay", set)())


@each_spec
def test_what_a_part_exempts_from_weight_decay_is_exempt(name: str, spec: InputSpec) -> None:
    model = _build(name, spec)
    parts = {f"{part}.{key}" for part, inner in model.named_children() for key in _exempt(inner)}
    assert parts <= _exempt(model)


@each_spec
def test_it_can_be_rehearsed_without_any_memory(name: str, spec: InputSpec) -> None:
    with torch.device("meta"):
        more = [torch.empty(2, len(spec.covariates))] if spec.covariates else []
        assert _build(name, spec).eval()(torch.empty(2, *spec.shape), *more).shape == (2, 6)
