"""Whole panels or channels fall silent: one at least, the share allowed at most, and nothing else is touched."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_ray import registry
from hms_ray.augment import drop_channels
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.recordings import EEG
from hms_ray.core.specs import InputSpec, Panels
from hms_ray.features._feature import FeatureRef


def _lost(batch: Batch, axis: int, count: int) -> np.ndarray:
    """Return (B, count): which blocks along the axis are 0, each wholly or not at all."""
    zero = (batch.x == 0).movedim(axis, 1).unflatten(1, (count, -1)).flatten(2)
    assert torch.equal(zero.any(2), zero.all(2))
    return zero.all(2).numpy()


@pytest.mark.parametrize(("arrange", "axis"), [("stack", 2), ("channels", 1), ("wave", 1)])
def test_whole_panels_are_zeroed_and_the_rest_is_kept(
    make_batch: Callable[..., Batch], arrange: str, axis: int
) -> None:
    batch = make_batch(arrange, rows=300)
    done = drop_channels.apply(batch, seeds.stream(0), drop_channels.Params(p=1))
    lost = _lost(done, axis, 4)
    assert set(lost.sum(1)) == {1, 2} and lost.any(0).all()
    assert torch.equal(done.x[done.x != 0], batch.x[done.x != 0])
    assert done.y is batch.y and done.weight is batch.weight


@pytest.mark.parametrize(("most", "counts"), [(0.01, {1}), (0.25, {1, 2, 3, 4}), (0.99, set(range(1, 16)))])
def test_one_at_least_and_most_at_most(most: float, counts: set[int]) -> None:
    names = tuple(f"{chain}{i}" for chain in ("LL", "LP", "RL", "RP") for i in range(1, 5))
    spec = InputSpec("wave", (16, 3), 1.0, Panels("C", names))
    batch = Batch(torch.ones(2000, 16, 3), torch.ones(2000, 6) / 6, torch.ones(2000), spec)
    lost = _lost(drop_channels.apply(batch, seeds.stream(0), drop_channels.Params(p=1, most=most)), 1, 16)
    assert set(lost.sum(1)) == counts
    np.testing.assert_allclose(lost.mean(0), lost.mean(), atol=0.06)  # each as often as the others


def test_waves_without_panels_lose_channels(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("wave")
    batch = replace(batch, spec=replace(batch.spec, panels=None))
    assert set(_lost(drop_channels.apply(batch, seeds.stream(0), drop_channels.Params(p=1)), 1, 4).sum(1)) == {1, 2}


def test_about_p_of_the_rows(make_batch: Callable[..., Batch]) -> None:
    done = drop_channels.apply(make_batch("wave", rows=2000), seeds.stream(0), drop_channels.Params(p=0.3))
    assert _lost(done, 1, 4).any(1).mean() == pytest.approx(0.3, abs=0.05)


LATERAL = ("Fp1", "F7", "T3", "T5", "O1")
EACH = [
    ("eeg_spectrogram", {}),
    ("eeg_spectrogram", {"amplitude": "log1p", "arrange": "channels"}),
    ("eeg_cwt", {"montage": "banana_16", "scales": 4, "stride": 50}),
    ("raw_eeg", {}),
    ("raw_image", {"decimate": 5}),
    *(("kaggle_spectrogram", {"standardise": how}) for how in ("image", "panel", "global", "none")),
    ("kaggle_spectrogram", {"arrange": "channels", "bins": 128, "pool": 2}),
    ("panels", {}),
]


@pytest.mark.parametrize(("name", "params"), EACH, ids=[f"{name}-{params}" for name, params in EACH])
def test_a_dropped_panel_is_as_one_without_signal(
    name: str, params: dict[str, object], made_up_recordings: Callable[..., dict[str, torch.Tensor]]
) -> None:
    """One meaning of "no signal": the augmentation makes what loose electrodes and empty regions become."""
    feature = FeatureRef(name, parse(registry.load("features", name).Params, params, "feature"))
    recordings = {kind: values[:1] for kind, values in made_up_recordings(feature.spec.kinds, 2).items()}
    if "eeg" in recordings:
        for i, electrode in enumerate(LATERAL):
            recordings["eeg"][0, EEG.channels.index(electrode)] = 100.0 * i
    if "spectrogram" in recordings:
        recordings["spectrogram"][0, :100] = 0
    x, panels = feature.compute(recordings), feature.spec.panels
    lost = np.array([[panel.startswith("LL") for panel in panels.names]])
    dropped = drop_channels._silenced(x.clone(), feature.spec, feature.spec.axis(panels.axis), lost)
    torch.testing.assert_close(dropped, x, atol=1e-5, rtol=0)
    others = drop_channels._silenced(x.clone(), feature.spec, feature.spec.axis(panels.axis), ~lost)
    blocks = others.unflatten(feature.spec.axis(panels.axis), (lost.shape[1], -1))
    blocks = blocks.movedim(2 if panels.axis == "F" else 1, 0)
    torch.testing.assert_close(blocks[0], blocks[-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (InputSpec("image", (4, 8, 8), 1.0), "drop_channels needs waves or panels"),
        (InputSpec("wave", (1, 8), 1.0), "drop_channels needs two panels or channels at least"),
        (InputSpec("image", (1, 8, 8), 1.0, Panels("F", ("ZC",))), "drop_channels needs two panels or channels"),
    ],
)
def test_nothing_to_drop_is_refused(spec: InputSpec, sentence: str) -> None:
    batch = Batch(torch.ones(2, *spec.shape), torch.ones(2, 6), torch.ones(2), spec)
    with pytest.raises(ConfigError, match=sentence):
        drop_channels.apply(batch, seeds.stream(0), drop_channels.Params(p=0))
