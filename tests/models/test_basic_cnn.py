"""The small network: its size is what its parameters say, and it learns."""

import pytest
import torch

from hms_ray.core.specs import InputSpec
from hms_ray.models import basic_cnn

STACK = InputSpec("image", (1, 100, 75), 0.125)


@pytest.mark.parametrize(("width", "depth"), [(4, 2), (16, 4), (8, 6)])
def test_each_block_doubles_the_channels(width: int, depth: int) -> None:
    model = basic_cnn.build(STACK, 6, basic_cnn.Params(width=width, depth=depth))
    channels = [layer.out_channels for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert channels == [width * 2**i for i in range(depth)]
    assert model(torch.zeros(2, 1, 100, 75)).shape == (2, 6)


@pytest.mark.parametrize("shape", [(1, 400, 300), (4, 25, 75), (1, 8, 8), (2, 1, 1)])
def test_any_size_of_image(shape: tuple[int, ...]) -> None:
    model = basic_cnn.build(InputSpec("image", shape, 0.5), 6, basic_cnn.Params(width=4, depth=6)).eval()
    assert torch.isfinite(model(torch.randn(2, *shape))).all()


def test_dropout_acts_in_training_only() -> None:
    model = basic_cnn.build(STACK, 6, basic_cnn.Params(width=4, drop_rate=0.5))
    x = torch.randn(4, 1, 100, 75)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_it_learns_where_the_power_is() -> None:
    torch.manual_seed(0)
    label = torch.arange(24) % 3
    x = torch.randn(24, 1, 48, 32) * 0.5
    for i, k in enumerate(label.tolist()):
        x[i, :, 16 * k : 16 * (k + 1)] += 1.5 * (1 + torch.arange(16)[:, None] % (2 + k))
    model = basic_cnn.build(InputSpec("image", (1, 48, 32), 0.5), 3, basic_cnn.Params(width=8, depth=2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3, "chance is 1.1"
