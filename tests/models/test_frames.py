"""Layers mixed and frames pooled: known answers."""

import pytest
import torch

from hms_ray.models._frames import FramePool, LayerMix

FRAMES = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
COUNTS = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]]).bool()


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_it_begins_as_the_mean_of_what_counts(pool: str) -> None:
    found = FramePool(4, pool)(FRAMES, COUNTS)
    expected = torch.stack([frames[counts].mean(0) for frames, counts in zip(FRAMES, COUNTS, strict=True)])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(FramePool(4, pool)(FRAMES), FRAMES.mean(1))


def test_attention_learns_which_frames_count() -> None:
    pool = FramePool(4, "attention")
    pool.score.weight.data = torch.tensor([[100.0, 0, 0, 0]])
    expected = FRAMES[torch.arange(3), FRAMES[..., 0].masked_fill(~COUNTS, -torch.inf).argmax(1)]
    torch.testing.assert_close(pool(FRAMES, COUNTS), expected, rtol=1e-3, atol=1e-3)


def test_what_does_not_count_has_no_gradient() -> None:
    frames = FRAMES.clone().requires_grad_()
    FramePool(4, "attention")(frames, COUNTS).sum().backward()
    assert torch.equal(frames.grad.abs().sum(-1) > 0, COUNTS)


def test_layers_by_a_softmax() -> None:
    mix, layers = LayerMix(3), FRAMES.unbind(0)
    torch.testing.assert_close(mix(layers), FRAMES.mean(0))
    mix.weight.data = torch.tensor([0.0, 50.0, 0.0])
    torch.testing.assert_close(mix(layers), layers[1])
