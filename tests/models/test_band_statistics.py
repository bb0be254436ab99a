"""Band statistics: what each says of a band, and that they know nothing of when."""

import numpy as np
import pytest
import torch

from hms_ray.core.specs import InputSpec
from hms_ray.models import band_statistics
from hms_ray.models.band_statistics import Params, Statistics

SPEC = InputSpec("image", (2, 3, 101), 10.0)


def _images(rows: int = 8) -> torch.Tensor:
    return torch.randn(rows, *SPEC.shape, generator=torch.Generator().manual_seed(0))


def _statistics(x: torch.Tensor) -> np.ndarray:
    body = Statistics(6).eval()  # without a batch behind it, the norm leaves them as they are
    return body(x).detach().numpy().reshape(len(x), 6, 6)  # (B, statistic, band)


def test_the_statistics_are_numpy_s() -> None:
    x = _images()
    bands, found = x.flatten(1, 2).numpy(), _statistics(x)
    expected = [bands.mean(-1), bands.std(-1), *np.percentile(bands, (10, 50, 90), axis=-1), np.diff(bands).std(-1)]
    np.testing.assert_allclose(found, np.stack(expected, 1), rtol=1e-4, atol=1e-4)


def test_a_band_that_never_changes_has_a_finite_gradient() -> None:
    x = torch.ones(4, *SPEC.shape, requires_grad=True)
    band_statistics.build(SPEC, 2, Params()).eval()(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_when_does_not_matter_but_for_unrest() -> None:
    x, order = _images(), torch.randperm(101, generator=torch.Generator().manual_seed(1))
    before, after = _statistics(x), _statistics(x[..., order])
    np.testing.assert_allclose(before[:, :5], after[:, :5], rtol=1e-5, atol=1e-5)
    assert np.abs(before[:, 5] - after[:, 5]).max() > 1e-3


@pytest.mark.parametrize("hidden", [0, 16])
def test_it_learns_what_a_band_s_level_says(hidden: int) -> None:
    torch.manual_seed(0)
    x = _images(200)
    y = (torch.arange(200) % 2).float()[:, None]
    x[:, 1, 2] += 1.5 * y
    network = band_statistics.build(SPEC, 1, Params(hidden=hidden, drop_rate=0.1)).train()
    optimiser = torch.optim.AdamW(network.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(x[:100]), y[:100]).backward()
        optimiser.step()
    right = (network.eval()(x[100:]) > 0) == (y[100:] > 0)
    assert right.float().mean() > 0.9
