"""What every augmentation keeps, for files that nobody has written yet as well."""

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_ray import registry
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params, parse
from hms_ray.core.specs import InputSpec, Panels

REGIONS = ("LL", "LP", "RL", "RP")
PAIRS = tuple(f"{chain}{i}" for chain in REGIONS for i in range(1, 5))
SPECS = {
    "stack": InputSpec("image", (1, 40, 30), 0.5, Panels("F", REGIONS)),
    "channels": InputSpec("image", (4, 10, 30), 0.5, Panels("C", REGIONS)),
    "image": InputSpec("image", (1, 40, 30), 0.5),
    "two pictures": InputSpec("image", (1, 40, 50), 0.5, Panels("F", REGIONS), spans=(30, 20)),
    "image of pairs": InputSpec("image", (1, 64, 30), 4.0, Panels("F", PAIRS)),
    "folded wave": InputSpec("image", (1, 64, 30), 50.0, Panels("F", PAIRS), folded=True),
    "wave": InputSpec("wave", (4, 200), 200.0, Panels("C", REGIONS)),
    "wave of pairs": InputSpec("wave", (16, 200), 50.0, Panels("C", PAIRS)),
    "plain wave": InputSpec("wave", (4, 200), 200.0),
    "slow wave": InputSpec("wave", (4, 200), 0.5, Panels("C", REGIONS)),
    "embedding": InputSpec("embedding", (3, 4, 64), 0.2),
    "two waves": InputSpec("wave", (4, 200), 200.0, Panels("C", REGIONS), spans=(140, 60)),
}
NAMES = registry.names("augment")


def _batch(spec: InputSpec, rows: int = 32) -> Batch:
    """Random rows, most of them with a class that has half of the target."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((rows, *spec.shape), dtype=np.float32))
    y = torch.from_numpy(rng.dirichlet(np.full(6, 0.3), rows).astype(np.float32))
    return Batch(x, y, torch.from_numpy(rng.uniform(0.1, 1, rows).astype(np.float32)), spec)


def _apply(name: str, batch: Batch, seed: int = 0, **params: float) -> Batch:
    module = registry.load("augment", name)
    return module.apply(batch, seeds.stream(seed, "augment"), module.Params(**params))


def _refusal(name: str, spec: InputSpec, p: float) -> str | None:
    try:
        _apply(name, _batch(spec, rows=2), p=p)
    except ConfigError as error:
        return str(error)
    return None


TAKEN = [pytest.param(n, s, id=f"{n}-{k}") for n in NAMES for k, s in SPECS.items() if _refusal(n, s, 1) is None]
REFUSED = [pytest.param(n, s, id=f"{n}-{k}") for n in NAMES for k, s in SPECS.items() if _refusal(n, s, 1) is not None]
VARIANTS = [case for case in TAKEN if hasattr(registry.load("augment", case.values[0]), "variant")]
each = pytest.mark.parametrize("name", NAMES)
each_taken = pytest.mark.parametrize(("name", "spec"), TAKEN)
each_refused = pytest.mark.parametrize(("name", "spec"), REFUSED)
each_variant = pytest.mark.parametrize(("name", "spec"), VARIANTS)


@each
def test_it_takes_some_features(name: str) -> None:
    assert any(case.values[0] == name for case in TAKEN)


@each
def test_embeddings_are_mixed_and_nothing_else_is_done_to_them(name: str) -> None:
    assert (_refusal(name, SPECS["embedding"], 1) is None) == (name == "mixup")


@each_taken
def test_what_says_that_a_wave_has_ended_stays(name: str, spec: InputSpec) -> None:
    """Zeros at either end of a wave are where there is nothing."""
    batch = _batch(spec)
    if spec.layout != "wave" or spec.spans:
        return
    batch.x[..., -60:] = 0
    done = _apply(name, batch, p=1).x
    assert not done[..., -30:].any() or not done[..., :30].any()


@each_taken
def test_a_feature_is_taken_whichever_rows_chance_chooses(name: str, spec: InputSpec) -> None:
    assert _refusal(name, spec, 0) is None


@each_refused
def test_a_feature_is_refused_in_one_sentence_whichever_rows_chance_chooses(name: str, spec: InputSpec) -> None:
    sentence = _refusal(name, spec, 1)
    assert re.fullmatch(rf"augment\.{name} needs [^\n]+[^.\n]", sentence)
    assert _refusal(name, spec, 0) == sentence


@each_taken
def test_shapes_types_and_targets_are_kept(name: str, spec: InputSpec) -> None:
    batch = _batch(spec)
    done = _apply(name, batch, p=1)
    for old, new in ((batch.x, done.x), (batch.y, done.y), (batch.weight, done.weight)):
        assert old.shape == new.shape and old.dtype == new.dtype and torch.isfinite(new).all()
    assert done.spec == spec
    assert (done.y >= 0).all() and (done.weight >= 0).all()
    torch.testing.assert_close(done.y.sum(1), torch.ones(len(done.y)))


@each_taken
def test_the_batch_given_is_not_written_to(name: str, spec: InputSpec) -> None:
    batch, untouched = _batch(spec), _batch(spec)
    _apply(name, batch, p=1)
    assert torch.equal(batch.x, untouched.x) and torch.equal(batch.y, untouched.y)
    assert torch.equal(batch.weight, untouched.weight)


@each_taken
def test_a_batch_that_owns_its_x_becomes_the_same(name: str, spec: InputSpec) -> None:
    kept, owned = _apply(name, _batch(spec), p=1), _apply(name, replace(_batch(spec), owned=True), p=1)
    assert all(torch.equal(getattr(kept, key), getattr(owned, key)) for key in ("x", "y", "weight"))


@each_taken
def test_the_seed_decides(name: str, spec: InputSpec) -> None:
    first, *others = (_apply(name, _batch(spec), seed).x for seed in range(8))
    assert torch.equal(first, _apply(name, _batch(spec), 0).x)
    assert not all(torch.equal(first, other) for other in others)
    assert not all(torch.equal(x, _batch(spec).x) for x in (first, *others)), "by default it does something"


@each_taken
def test_without_rows_to_change_nothing_changes(name: str, spec: InputSpec) -> None:
    batch = _batch(spec)
    done = _apply(name, batch, p=0)
    assert torch.equal(done.x, batch.x) and torch.equal(done.y, batch.y) and torch.equal(done.weight, batch.weight)


@each_taken
def test_a_single_row_and_half_precision_pass(name: str, spec: InputSpec) -> None:
    one = _batch(spec, rows=1)
    assert _apply(name, one, p=1).x.shape == one.x.shape
    for kind in (torch.float16, torch.bfloat16):
        assert _apply(name, replace(one, x=one.x.to(kind)), p=1).x.dtype == kind


@each_taken
def test_channels_last_changes_nothing_but_the_layout_in_memory(name: str, spec: InputSpec) -> None:
    batch = _batch(spec)
    if batch.x.ndim == 4:
        last = replace(batch, x=batch.x.contiguous(memory_format=torch.channels_last))
        assert torch.equal(_apply(name, last, p=1).x, _apply(name, batch, p=1).x)
        assert _apply(name, last, p=1).x.is_contiguous(memory_format=torch.channels_last)


@each_variant
def test_a_variant_changes_every_row_and_twice_is_the_original(name: str, spec: InputSpec) -> None:
    module, batch = registry.load("augment", name), _batch(spec)
    once = module.variant(batch.x, spec)
    assert once.dtype == batch.x.dtype and (once != batch.x).flatten(1).any(1).all()
    assert torch.equal(module.variant(once, spec), batch.x)
    assert torch.equal(batch.x, _batch(spec).x), "what was given is not written to"


@each_variant
def test_a_variant_is_what_is_applied_to_the_chosen_rows(name: str, spec: InputSpec) -> None:
    batch = _batch(spec)
    variant = registry.load("augment", name).variant(batch.x, spec)
    assert torch.equal(_apply(name, batch, p=1).x, variant)
    some = _apply(name, batch, p=0.5).x
    kept, changed = ((some == x).flatten(1).all(1) for x in (batch.x, variant))
    assert (kept ^ changed).all() and kept.any() and changed.any()


@each_refused
def test_a_variant_refuses_what_its_augmentation_refuses(name: str, spec: InputSpec) -> None:
    module = registry.load("augment", name)
    if hasattr(module, "variant"):
        with pytest.raises(ConfigError) as error:
            module.variant(_batch(spec).x, spec)
        assert str(error.value) == _refusal(name, spec, 1)


@each
def test_parameters_are_strict_bounded_and_told(name: str) -> None:
    module = registry.load("augment", name)
    assert issubclass(module.Params, Params) and module.Params.model_config["extra"] == "forbid"
    with pytest.raises(ConfigError, match=f"augment.{name}.no_such_key: unknown key"):
        parse(module.Params, {"no_such_key": 1}, f"augment.{name}")
    for p in (-0.1, 1.1):
        with pytest.raises(ConfigError, match=f"augment.{name}.p: "):
            parse(module.Params, {"p": p}, f"augment.{name}")
    assert all(field.description for field in module.Params.model_fields.values())


@each
def test_it_says_what_it_is(name: str) -> None:
    module = registry.load("augment", name)
    assert inspect.getdoc(module) and inspect.getdoc(module.apply) and inspect.getdoc(module.Params)
    assert list(inspect.signature(module.apply).parameters) == ["batch", "rng", "params"]
    if hasattr(module, "variant"):
        assert inspect.getdoc(module.variant) and list(inspect.signature(module.variant).parameters) == ["x", "spec"]
