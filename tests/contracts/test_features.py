"""What every feature keeps, for files that nobody has written yet as well."""

import inspect
import itertools
from collections.abc import Callable
from typing import Literal, get_args, get_origin

import pytest
import torch

from hms_ray import registry
from hms_ray.core import recordings
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params, parse
from hms_ray.core.specs import InputSpec
from hms_ray.features._feature import FeatureRef

MakeRecordings = Callable[..., dict[str, torch.Tensor]]
MOST = 64  # combinations of choices that are tried of a feature
# where the default has weights from elsewhere, and a hundred million of them
SMALL = {"speech_embedding": {"arch": "wav2vec2-tiny", "pretrained": False, "seconds": 4.0, "segments": 3}}


def _each_choice(name: str) -> list[Params]:
    """The parameters with every combination of the fields that are a choice; combinations that are refused are left
    out."""
    kind, small = registry.load("features", name).Params, SMALL.get(name, {})
    fields = {key: field.annotation for key, field in kind.model_fields.items() if key not in small}
    choices = {key: get_args(of) for key, of in fields.items() if get_origin(of) is Literal}
    every = itertools.product(*choices.values())
    wanted = [dict(zip(choices, values, strict=True)) for values in itertools.islice(every, MOST)]
    found = []
    for values in wanted:
        try:
            found.append(parse(kind, {**values, **small}, "feature"))
        except ConfigError:
            continue
    assert found, "some combination works"
    return found


NAMES = registry.names("features")
EACH = [(name, params) for name in NAMES for params in _each_choice(name)]
each_choice = pytest.mark.parametrize(("name", "params"), EACH, ids=[f"{name}-{params}" for name, params in EACH])
each = pytest.mark.parametrize("name", NAMES)


def _small(name: str) -> Params:
    return registry.load("features", name).Params(**SMALL.get(name, {}))


def _compute(name: str, batch: dict[str, torch.Tensor], params: Params) -> torch.Tensor:
    return registry.load("features", name).compute(batch, params)


@each_choice
def test_examples_are_as_the_spec_says(name: str, params: Params, made_up_recordings: MakeRecordings) -> None:
    spec = registry.load("features", name).spec(params)
    assert isinstance(spec, InputSpec) and spec.rate_hz > 0 and spec.kinds and set(spec.kinds) <= set(recordings.KINDS)
    if spec.panels is not None:
        assert spec.shape[spec.axis(spec.panels.axis)] % len(spec.panels.names) == 0
        assert sorted(spec.panels.mirrored()) == list(range(len(spec.panels.names)))
    batch = made_up_recordings(spec.kinds, 3)  # the last one has gaps, and one channel without any value
    x = _compute(name, batch, params)
    assert x.shape == (3, *spec.shape) and x.dtype == torch.float32
    assert x.isfinite().all() and x.abs().max() < torch.finfo(torch.float16).max, "it is kept in float16"
    nothing = {kind: torch.full_like(values, torch.nan) for kind, values in batch.items()}
    assert _compute(name, nothing, params).isfinite().all(), "a recording may hold nothing at all"


@each
def test_a_row_is_computed_alike_in_any_batch(name: str, made_up_recordings: MakeRecordings) -> None:
    module = registry.load("features", name)
    params = _small(name)
    batch = made_up_recordings(module.spec(params).kinds, 3)
    whole = _compute(name, batch, params)
    assert torch.equal(whole, _compute(name, batch, params)) and not torch.equal(whole[0], whole[1])
    alone = _compute(name, {kind: values[1:2] for kind, values in batch.items()}, params)
    torch.testing.assert_close(alone[0], whole[1], rtol=1e-4, atol=1e-4)


@each
def test_the_recordings_given_are_not_written_to(name: str, made_up_recordings: MakeRecordings) -> None:
    module = registry.load("features", name)
    batch = made_up_recordings(module.spec(_small(name)).kinds, 3)
    before = {kind: values.clone() for kind, values in batch.items()}
    _compute(name, batch, _small(name))
    assert all(torch.equal(batch[kind].nan_to_num(7), before[kind].nan_to_num(7)) for kind in batch)


@each
def test_parameters_are_strict_and_told(name: str) -> None:
    kind = registry.load("features", name).Params
    assert issubclass(kind, Params) and kind.model_config["extra"] == "forbid"
    with pytest.raises(ConfigError, match=r"feature\.no_such_key: unknown key"):
        parse(kind, {"no_such_key": 1}, "feature")
    assert all(field.description for field in kind.model_fields.values())


@each
def test_it_says_what_it_is(name: str) -> None:
    module = registry.load("features", name)
    assert all(inspect.getdoc(thing) for thing in (module, module.Params, module.spec, module.compute))
    given = ["weights"] if "pretrained" in module.Params.model_fields else []
    assert list(inspect.signature(module.compute).parameters) == ["recordings", "params", *given]


@each
def test_published_weights_have_a_place(name: str) -> None:
    module = registry.load("features", name)
    if "pretrained" not in module.Params.model_fields:
        assert not hasattr(module, "source") and FeatureRef(name, module.Params()).origin is None
        return
    assert FeatureRef(name, module.Params(pretrained=False)).origin is None
    assert FeatureRef(name, module.Params(pretrained="hf-hub:owner/name")).origin == "hf-hub:owner/name"
    assert FeatureRef(name, module.Params()).origin.startswith(("hf-hub:", "https:"))
