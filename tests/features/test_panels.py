"""Images side by side: which part stands where, what is refused, and the trip through YAML."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import yaml

from hms_ray import registry
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.features import kaggle_spectrogram
from hms_ray.features import panels as feature
from hms_ray.search.space import space
from hms_ray.training import run_config

PLAIN = {"name": "kaggle_spectrogram"}
TALL = PLAIN | {"bins": 128, "columns": 256}
RUN = {
    "data": {"name": "hms"},
    "feature": {"name": "panels", "parts": [PLAIN, TALL]},
    "model": {"name": "basic_cnn"},
    "stages": [{"epochs": 1, "lr": 0.01}],
}


def params_of(*parts: object) -> feature.Params:
    return parse(feature.Params, {"parts": list(parts)}, "feature")


def channels(**params: object) -> dict[str, object]:
    return PLAIN | {"arrange": "channels"} | params


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two windows of made-up power, with gaps."""
    power = np.exp(np.random.default_rng(0).normal(size=(2, 400, 300)) * 2 - 1)
    power[1, 120:, :30] = np.nan
    return {"spectrogram": torch.from_numpy(power.astype(np.float32))}


def own(batch: dict[str, torch.Tensor], **params: object) -> np.ndarray:
    """The panels of one part, (B, 4, F, T)."""
    return kaggle_spectrogram.compute(batch, kaggle_spectrogram.Params(arrange="channels", **params)).numpy()


@pytest.mark.parametrize("arrange", ["stack", "channels"])
def test_each_region_stands_beside_itself(batch: dict[str, torch.Tensor], arrange: str) -> None:
    last = {"bins": 103, "columns": 40, "standardise": "none"}
    parts = [part | {"arrange": arrange} for part in (PLAIN, TALL, PLAIN | last)]
    expected = np.full((2, 4, 128, 300 + 256 + 40), -4.0)  # the last part's smallest log power
    expected[..., :300] = own(batch).min((1, 2, 3), keepdims=True)
    expected[:, :, 14:-14, :300] = own(batch)  # centred
    expected[:, :, :, 300:556] = own(batch, bins=128, columns=256)
    expected[:, :, 13:-12, 556:] = own(batch, **last)  # of odd rows the low frequencies get one more
    image = feature.compute(batch, params_of(*parts)).numpy()
    shape = (2, 1, 512, 596) if arrange == "stack" else (2, 4, 128, 596)
    np.testing.assert_array_equal(image, expected.reshape(shape))


def test_features_without_regions_are_one_block(batch: dict[str, torch.Tensor]) -> None:
    stats = {"name": "global_stats"}
    params = params_of(stats, stats | {"pool": 2})
    module = registry.load("features", "global_stats")
    image = feature.compute(batch, params)
    assert feature.spec(params).shape == image.shape[1:] == (4, 100, 450) and feature.spec(params).panels is None
    assert feature.spec(params).symmetric and not feature.spec(params_of(PLAIN, TALL)).symmetric
    assert torch.equal(image[:, :, 25:75, 300:], module.compute(batch, module.Params(pool=2)))
    lowest = image[:, :, 25:75, 300:].amin((2, 3), keepdim=True)
    assert (image[:, :, :25, 300:] == lowest).all() and (image[:, :, 75:, 300:] == lowest).all()


def test_the_spec_tells_the_pictures() -> None:
    spec = feature.spec(params_of(PLAIN | {"pool": 2}, TALL, PLAIN | {"columns": 60}))
    assert (spec.layout, spec.shape, spec.spans) == ("image", (1, 512, 466), (150, 256, 60))
    assert (spec.rate_hz, spec.kinds) == (0.25, ("spectrogram",)), "the rate is the first part's"
    assert spec.panels.axis == "F" and spec.panels.names == ("LL", "LP", "RL", "RP")
    assert feature.spec(params_of(channels(), channels(bins=128))).shape == (4, 128, 600)


def test_each_picture_has_its_own_value_of_nothing() -> None:
    eeg = {"name": "eeg_spectrogram", "windows_s": [50.0, 10.0]}
    spec = feature.spec(params_of(PLAIN, PLAIN | {"standardise": "none"}, eeg))
    assert spec.empty == (None, -4.0, -1.0, -1.0)


def test_pictures_of_a_part_stay_apart_and_kinds_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    params = params_of(TALL, PLAIN)
    wide = kaggle_spectrogram.spec(params.parts[0].params)
    specs = {128: wide.__class__("image", wide.shape, 5.0, wide.panels, ("eeg", "spectrogram"), (56, 200))}
    plain = kaggle_spectrogram.spec
    monkeypatch.setattr(kaggle_spectrogram, "spec", lambda p: specs.get(p.bins) or plain(p))
    spec = feature.spec(params)
    assert (spec.spans, spec.kinds, spec.rate_hz) == ((56, 200, 300), ("eeg", "spectrogram"), 5.0)


def test_a_recording_of_nothing_is_an_empty_image() -> None:
    assert not feature.compute({"spectrogram": torch.full((1, 400, 300), torch.nan)}, params_of(PLAIN, TALL)).any()


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([PLAIN], r"feature.parts: must be 2 to 4 features, but got \["),
        ([PLAIN] * 5, r"feature.parts: must be 2 to 4 features, but got \["),
        ([PLAIN, {}], r"feature.parts.1.name: missing"),
        ([PLAIN, 3], r"feature.parts.1: must be a mapping: the name of a feature and its parameters, but got 3"),
        ([PLAIN, {"name": 3}], r"feature.parts.1.name: Input should be a valid string, but got 3"),
        ([PLAIN, {"name": "kagle"}], r"feature.parts.1.name: must be one of .*kaggle_spectrogram.*, but got 'kagle'"),
        ([PLAIN, {"name": "panels"}], r"feature.parts.1.name: must be one of .*, but got 'panels'"),
        ([PLAIN, PLAIN | {"bins": 1}], r"feature.parts.1.bins: Input should be greater than or equal to 100"),
        ([PLAIN | {"n_mels": 1}, PLAIN], r"feature.parts.0.n_mels: unknown key \(value 1\)"),
        (
            [PLAIN, channels()],
            r"feature.parts: kaggle_spectrogram and kaggle_spectrogram cannot stand side by side: the first has"
            r" regions LL LP RL RP along F, C = 1, the second has regions LL LP RL RP along C, C = 4; both must",
        ),
        (
            [PLAIN, {"name": "global_stats"}],
            r"kaggle_spectrogram and global_stats cannot .* the second has no regions, C = 4; both must have the same",
        ),
    ],
)
def test_what_does_not_fit_is_refused(parts: list[object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^configuration: .*{sentence}") as caught:
        params_of(*parts)
    assert "\n" not in str(caught.value), "one fault, one line"


def test_faults_of_all_parts_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"feature\.parts\.0\.pool: (.|\n)*feature\.parts\.2\.columns: "):
        params_of(PLAIN | {"pool": 3}, PLAIN, PLAIN | {"columns": 1})


def test_a_feature_that_is_no_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = kaggle_spectrogram.spec(kaggle_spectrogram.Params()).__class__("wave", (20, 100), 1.0)
    monkeypatch.setattr(kaggle_spectrogram, "spec", lambda params: spec)
    with pytest.raises(ConfigError, match="kaggle_spectrogram is no image that others can stand beside"):
        params_of(PLAIN, PLAIN)


def test_parameters_make_the_trip_through_yaml() -> None:
    params = params_of(PLAIN, TALL)
    dumped = params.model_dump()
    assert yaml.safe_load(yaml.safe_dump(dumped)) == dumped
    assert dumped["parts"][1] == {"name": "kaggle_spectrogram", **params.parts[1].params.model_dump()}
    again = feature.Params.model_validate(dumped)
    assert again == params and hash(again) == hash(params) and feature.Params(parts=params.parts) == params
    assert again != params_of(TALL, PLAIN)


def test_a_run_with_parts_makes_the_trip_through_yaml() -> None:
    run = run_config.parse_run(RUN)
    again = run_config.parse_run(yaml.safe_load(yaml.safe_dump(run.content)))
    assert again == run and again.content == run.content
    assert run.content["feature"]["parts"][0]["columns"] == 300, "defaults are written out"


def test_the_parts_can_be_searched() -> None:
    searched = {"feature.parts.1.columns": {"choice": [128, 256]}, "feature.parts.0.pool": {"choice": [1, 2]}}
    found = space.parse("sides", {"base": RUN, "search": searched, "budget": {"trials": 2}})
    assert found.base_params() is not None
    searched["feature.parts.1.columns"]["choice"][0] = 1
    with pytest.raises(ConfigError, match=r"search.feature.parts.1.columns = 1: feature.parts.1.columns: Input should"):
        space.parse("sides", {"base": RUN, "search": searched, "budget": {"trials": 2}})


def test_by_default_the_eeg_stands_beside_the_supplied_spectrogram(
    made_up_recordings: Callable[..., dict[str, torch.Tensor]],
) -> None:
    params, eeg = feature.Params(), registry.load("features", "eeg_spectrogram")
    assert [part.name for part in params.parts] == ["kaggle_spectrogram", "eeg_spectrogram"]
    assert parse(feature.Params, yaml.safe_load(yaml.safe_dump(params.model_dump())), "feature") == params
    spec, own_spec = feature.spec(params), eeg.spec(eeg.Params())
    assert spec.kinds == ("spectrogram", "eeg") and spec.panels == own_spec.panels
    assert spec.shape == (1, 512, 300 + own_spec.shape[2]) and sum(spec.spans) == spec.shape[2]
    batch = made_up_recordings(spec.kinds, 2)
    image = feature.compute(batch, params).unflatten(2, (4, 128))
    assert torch.equal(image[:, 0, :, 14:-14, :300].flatten(1, 2), _plain(batch))
    assert torch.equal(image[..., 300:].flatten(2, 3), eeg.compute(batch, eeg.Params()))


def _plain(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The supplied spectrogram's stacked image, (B, 400, 300)."""
    return kaggle_spectrogram.compute(batch, kaggle_spectrogram.Params())[:, 0]
