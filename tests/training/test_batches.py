"""Batches: each row once, near-equal sizes, shares that add up, and the device's memory layout."""

import numpy as np
import pytest
import torch

from hms_ray.core.specs import InputSpec
from hms_ray.store.inputs import Prepared, memory_format
from hms_ray.training.batches import StageBatches

CPU = torch.device("cpu")
WINDOWS = np.random.default_rng(0)  # prepared features have one window a unit


def epochs(data, rows, size, targets=None, weights=None):
    targets = data.targets if targets is None else targets
    weights = np.ones(len(data.votes)) if weights is None else weights
    return StageBatches(data, np.asarray(rows), targets, weights, size, CPU)


def marked(data):
    """Targets by which a batch tells its rows: column 0 holds the row's number."""
    targets = np.zeros((len(data.votes), 3))
    targets[:, 0] = np.arange(len(targets))
    return targets


def rows_of(batch):
    return batch.y[:, 0].numpy().astype(int).tolist()


@pytest.mark.parametrize("size", [1, 2, 7, 8, 39, 40, 41, 4096])
def test_an_epoch_holds_each_row_once_in_batches_of_near_equal_size(toy, size):
    rows = np.flatnonzero(toy.data.folds != 0)
    batches = list(epochs(toy.data, rows, size, marked(toy.data)).batches(np.random.default_rng(0), WINDOWS))
    assert sorted(row for batch in batches for row in rows_of(batch)) == rows.tolist()
    sizes = [len(batch.x) for batch in batches]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == epochs(toy.data, rows, size).steps == -(-len(rows) // size)


@pytest.mark.parametrize("workers", [2, 3])
def test_shares_of_several_workers_partition_each_batch(toy, workers):
    stage = epochs(toy.data, np.arange(40), 12, marked(toy.data))
    whole = list(stage.batches(np.random.default_rng(5), WINDOWS))
    shares = [list(stage.batches(np.random.default_rng(5), WINDOWS, rank, workers)) for rank in range(workers)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(row for part in parts for row in rows_of(part)) == sorted(rows_of(batch))
        sizes = [len(part.x) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_order_comes_from_the_generator_alone(toy):
    stage = epochs(toy.data, np.arange(40), 8, marked(toy.data))
    first, again, other = (
        [rows_of(batch) for batch in stage.batches(np.random.default_rng(seed), WINDOWS)] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_batch_holds_its_rows_images_targets_and_weights(toy):
    weights = np.arange(60) / 10
    stage = epochs(toy.data, [3, 11, 42], 3, weights=weights)
    batch = next(stage.batches(np.random.default_rng(0), WINDOWS))
    order = [int(np.flatnonzero(np.isclose(weights, w))[0]) for w in batch.weight.numpy()]
    assert sorted(order) == [3, 11, 42]
    np.testing.assert_array_equal(batch.x.numpy(), toy.data.inputs.x[order].float().numpy())
    np.testing.assert_allclose(batch.y.numpy(), toy.data.targets[order], rtol=1e-7)
    assert {batch.x.dtype, batch.y.dtype, batch.weight.dtype} == {torch.float32}
    assert batch.spec is toy.data.inputs.spec


def test_images_are_gathered_channels_last_and_waves_are_not():
    images = Prepared(torch.zeros(5, 3, 4, 4, dtype=torch.float16), InputSpec("image", (3, 4, 4), 1.0))
    waves = Prepared(torch.zeros(5, 3, 8), InputSpec("wave", (3, 8), 1.0))
    assert images.batch(np.array([4, 0]), CPU).is_contiguous(memory_format=torch.channels_last)
    assert waves.batch(np.array([4, 0]), CPU).is_contiguous()
    assert memory_format(3) == torch.contiguous_format


def test_gathering_changes_nothing_but_the_type(toy):
    rows, inputs = np.array([5, 5, 0]), toy.data.inputs
    np.testing.assert_array_equal(inputs.batch(rows, CPU).numpy(), inputs.x[rows].float().numpy())


def test_data_stays_where_it_is_on_a_cpu(toy):
    assert toy.data.to(CPU) is toy.data


@pytest.mark.parametrize(("rows", "size", "workers"), [(40, 12, 1), (40, 12, 3), (41, 8, 2), (7, 100, 2)])
def test_the_largest_share_has_the_rows_of_the_largest_that_any_worker_gets(toy, rows, size, workers):
    stage = epochs(toy.data, np.arange(rows), size)
    shares = [batch for r in range(workers) for batch in stage.batches(np.random.default_rng(0), WINDOWS, r, workers)]
    assert len(stage.largest(workers).x) == max(len(batch.x) for batch in shares)
