"""Probes: known answers, what is standardised by what, and that they learn which layer counts."""

import pytest
import torch
from torch import nn

from hms_ray.core.params import parse
from hms_ray.core.specs import InputSpec
from hms_ray.models import probe

SPEC = InputSpec("embedding", (3, 4, 32), 0.2)


def _build(spec: InputSpec = SPEC, outputs: int = 5, **params: object) -> nn.Module:
    torch.manual_seed(0)
    return probe.build(spec, outputs, parse(probe.Params, params, "model"))


def _x(rows: int = 64, spec: InputSpec = SPEC) -> torch.Tensor:
    return torch.randn(rows, *spec.shape, generator=torch.Generator().manual_seed(0)) * 7 + 3


def test_it_begins_as_the_mean_over_layers_and_time() -> None:
    for pool in ("mean", "attention"):
        model = _build(pool=pool, standardise="none").eval()
        torch.testing.assert_close(model.body(_x()), _x().mean((1, 2)))
        torch.testing.assert_close(model(_x()), model.head(_x().mean((1, 2))))


def test_numbers_are_standardised_by_the_training_data() -> None:
    model, x = _build().train(), _x(256)
    for _ in range(100):
        model(x)
    vectors = model.eval().body(x)
    assert vectors.mean(0).abs().max() < 0.02 and (vectors.std(0) - 1).abs().max() < 0.02
    assert not list(model.body.norm.parameters())


def test_or_each_by_its_own() -> None:
    vectors = _build(standardise="layer").eval().body(_x())
    assert vectors.mean(1).abs().max() < 1e-4 and (vectors.std(1, correction=0) - 1).abs().max() < 1e-3


def test_one_layer_has_nothing_to_mix() -> None:
    spec = InputSpec("embedding", (1, 1, 32), 0.05)
    assert {name for name, _ in _build(spec).named_parameters()} == {"head.weight", "head.bias"}
    assert "body.mix.weight" in dict(_build().named_parameters())


@pytest.mark.parametrize("hidden", [0, 16])
def test_numbers_beside_go_to_the_head(hidden: int) -> None:
    spec = InputSpec("embedding", (3, 4, 32), 0.2, covariates=("age", "gender"))
    model = _build(spec, hidden=hidden)
    first = model.head if not hidden else model.head[0]
    assert first.in_features == 34
    assert model.eval()(_x(), torch.full((64, 2), torch.nan)).isfinite().all()


def test_it_learns_which_layer_knows() -> None:
    x, label = _x(256), torch.arange(256) % 5
    x[:, 1] += 20 * torch.nn.functional.one_hot(label, 32)[:, None]
    model = _build(drop_rate=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(100):
        loss = nn.functional.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 and model.body.mix.weight.argmax() == 1
