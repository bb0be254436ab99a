"""What every augmentation keeps, for files that nobody has written yet as well."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_ray import lookup, seeds
from hms_ray.augment._compose import Batch
from hms_ray.errors import ConfigError
from hms_ray.features import kaggle_spectrogram
from hms_ray.params import Params, parse
from hms_ray.specs import InputSpec, Panels

SPECS = {
    "stack": kaggle_spectrogram.spec(kaggle_spectrogram.Params(pool=4)),
    "channels": kaggle_spectrogram.spec(kaggle_spectrogram.Params(arrange="channels", pool=4)),
    "wave": InputSpec("wave", (4, 200), 200.0, Panels("C", ("LL", "LP", "RL", "RP"))),
}

pytestmark = pytest.mark.parametrize("name", lookup.names("augment"))
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def _batch(spec: InputSpec, rows: int = 32) -> Batch:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((rows, *spec.shape), dtype=np.float32))
    y = torch.from_numpy(rng.dirichlet(np.ones(6), rows).astype(np.float32))
    return Batch(x, y, torch.from_numpy(rng.uniform(0.1, 1, rows).astype(np.float32)), spec)


def _apply(name: str, batch: Batch, seed: int, **params: float) -> Batch:
    module = lookup.load("augment", name)
    return module.apply(batch, seeds.stream(seed, "augment"), module.Params(**params))


@each_spec
def test_shapes_types_and_targets_are_kept(name: str, spec: InputSpec) -> None:
    batch = _batch(spec)
    done = _apply(name, batch, 0)
    for old, new in ((batch.x, done.x), (batch.y, done.y), (batch.weight, done.weight)):
        assert old.shape == new.shape and old.dtype == new.dtype and torch.isfinite(new).all()
    assert done.spec == spec
    assert (done.y >= 0).all() and (done.weight >= 0).all()
    torch.testing.assert_close(done.y.sum(1), torch.ones(len(done.y)))


@each_spec
def test_the_batch_given_is_not_written_to(name: str, spec: InputSpec) -> None:
    batch, untouched = _batch(spec), _batch(spec)
    _apply(name, batch, 0)
    assert torch.equal(batch.x, untouched.x) and torch.equal(batch.y, untouched.y)
    assert torch.equal(batch.weight, untouched.weight)


@each_spec
def test_the_seed_decides(name: str, spec: InputSpec) -> None:
    first, again, other = (_apply(name, _batch(spec), seed).x for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first, _batch(spec).x), "by default it does something"


def test_without_rows_to_change_nothing_changes(name: str) -> None:
    if "p" not in lookup.load("augment", name).Params.model_fields:
        pytest.skip(f"{name} has no p")
    batch = _batch(SPECS["stack"])
    done = _apply(name, batch, 0, p=0)
    assert torch.equal(done.x, batch.x) and torch.equal(done.y, batch.y) and torch.equal(done.weight, batch.weight)


def test_a_single_row_and_half_precision_pass(name: str) -> None:
    one = _batch(SPECS["stack"], rows=1)
    assert _apply(name, one, 0).x.shape == one.x.shape
    assert _apply(name, replace(one, x=one.x.half()), 0).x.dtype == torch.float16


def test_parameters_are_strict_bounded_and_told(name: str) -> None:
    module = lookup.load("augment", name)
    assert issubclass(module.Params, Params) and module.Params.model_config["extra"] == "forbid"
    with pytest.raises(ConfigError, match=f"augment.{name}.no_such_key: unknown key"):
        parse(module.Params, {"no_such_key": 1}, f"augment.{name}")
    assert all(field.description for field in module.Params.model_fields.values())


def test_it_says_what_it_is(name: str) -> None:
    module = lookup.load("augment", name)
    assert inspect.getdoc(module) and inspect.getdoc(module.apply) and inspect.getdoc(module.Params)
    assert list(inspect.signature(module.apply).parameters) == ["batch", "rng", "params"]
