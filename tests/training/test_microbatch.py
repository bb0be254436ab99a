"""The gradient in parts is the gradient, alone and in a team whose workers have different memory."""

import multiprocessing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import distributed, nn

from hms_ray import tasks
from hms_ray.augment._compose import Batch
from hms_ray.core.errors import TrialFailed
from hms_ray.core.specs import InputSpec
from hms_ray.training import optim
from hms_ray.training.distributed import Replica, Team
from hms_ray.training.fold_model import FoldModel
from hms_ray.training.loop import clip_and_step, forward_backward, rehearse

CPU = torch.device("cpu")
TASK = tasks.from_dict({"kind": "votes", "classes": ["a", "b", "c"]})
ROWS = 10
SPEC = InputSpec("image", (1, 2, 3), 1.0)
ALONE = Replica(CPU)


class Limited(nn.Module):
    """A network that has memory for so many rows."""

    def __init__(self, most=1000, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.Tanh(), nn.Linear(8, 3))
        self.register_buffer("one", torch.ones(()))  # what DDP sends from the first worker to the others
        self.most, self.seen = most, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.one * self.body(x.flatten(1))


def make_batch(rows=ROWS):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((rows, 1, 2, 3)), rng.dirichlet(np.ones(3), rows)
    tensors = (torch.from_numpy(v.astype(np.float32)) for v in (x, y, rng.uniform(0.1, 2, rows)))
    return Batch(*tensors, SPEC)


def a_model(network, rows=ROWS, precision="float32", replica=ALONE):
    """What trains a network, so many rows of which pass through it at a time."""
    data = SimpleNamespace(inputs=SimpleNamespace(covariates=None, spec=SPEC))
    recipe = SimpleNamespace(
        build=lambda: network, seed=0, optim=optim.Params(batch=rows * replica.size, ema=0.0, precision=precision)
    )
    return FoldModel(SimpleNamespace(recipe=recipe, data=data, replica=replica))


def gradients(network):
    return [p.grad.clone() for p in network.parameters()]


def whole():
    """Return loss and gradients of the batch by the definition."""
    network, batch = Limited(), make_batch()
    loss = (batch.weight * TASK.loss(network(batch.x), batch.y)).mean()
    loss.backward()
    return loss.detach(), gradients(network)


@pytest.mark.parametrize("most", [10, 9, 4, 3, 1])
def test_the_parts_add_up_to_the_gradient_and_loss_of_the_batch(most):
    network = Limited(most)
    loss = forward_backward(a_model(network), make_batch(), TASK.loss)
    torch.testing.assert_close((loss, gradients(network)), whole())


def test_what_was_learnt_is_remembered_and_parts_are_of_near_equal_size():
    network = Limited(4)
    model = a_model(network)
    forward_backward(model, make_batch(), TASK.loss)
    assert (network.seen, model.rows) == ([10, 5, 2, 2, 2, 2, 2], 2)
    network.seen.clear()
    forward_backward(model, make_batch(7), TASK.loss)
    assert network.seen == [2, 2, 2, 1]


def test_a_small_batch_that_fits_does_not_make_others_smaller():
    model = a_model(Limited(8), 8)
    forward_backward(model, make_batch(3), TASK.loss)
    assert model.rows == 8


def test_a_part_that_fails_after_others_leaves_nothing_of_them():
    network, calls = Limited(), []

    def spoilt(grad):
        calls.append(len(grad))
        if len(calls) == 2:  # the second of two parts, in its backward pass
            raise torch.OutOfMemoryError("CUDA out of memory")

    network.body[-1].register_full_backward_hook(lambda *args: spoilt(args[2][0]))
    model = a_model(network, 5)
    loss = forward_backward(model, make_batch(), TASK.loss)
    assert model.rows == 2
    torch.testing.assert_close((loss, gradients(network)), whole())


def test_where_not_one_row_fits_the_trial_fails():
    with pytest.raises(TrialFailed, match="not even one example fits"):
        forward_backward(a_model(Limited(0)), make_batch(), TASK.loss)


def test_a_rehearsal_finds_what_fits_and_leaves_the_network_as_it_was():
    network = Limited(3, norm=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = a_model(network)
    rehearse(model, make_batch(), TASK.loss)
    assert model.rows == 2
    assert all(p.grad is None for p in network.parameters())
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def losses_of(seen):
    """The task's loss, which remembers the types of what it gets."""

    def loss(logits, targets):
        seen.append(logits.dtype)
        return TASK.loss(logits, targets)

    return loss


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_network_computes_in_the_given_precision_and_the_loss_in_float32(precision):
    network, seen, in_loss = Limited(), [], []
    network.body.register_forward_hook(lambda module, inputs, logits: seen.append(logits.dtype))
    model = a_model(network, 5, precision)
    loss = forward_backward(model, make_batch(), losses_of(in_loss))
    model.scaler.unscale_(torch.optim.SGD(network.parameters()))
    assert seen == [getattr(torch, precision)] * 2
    assert in_loss == [torch.float32] * 2 and loss.dtype == torch.float32
    assert {p.grad.dtype for p in network.parameters()} == {torch.float32}
    torch.testing.assert_close((loss, gradients(network)), whole(), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_recipe_is_trained_and_predicted_in_its_precision(toy, tmp_path, precision):
    seen, build = set(), toy.recipe().build

    def spied():
        network = build()
        network.register_forward_hook(lambda module, inputs, logits: seen.add((module.training, logits.dtype)))
        return network

    recipe = replace(toy.recipe(optim={"precision": precision, "ema": 0.0}), build=spied)
    toy.train(recipe, toy.data, tmp_path)
    assert seen == {(training, getattr(torch, precision)) for training in (True, False)}


class Gloo(Team):
    """Two real processes."""

    def wrap(self, model):
        return nn.parallel.DistributedDataParallel(model)

    def mean(self, value):
        total = value.clone()
        distributed.all_reduce(total)
        return total / 2


def work(rank, most, address, answers):
    """Send a worker's gradient after a rehearsal, what a worker without any memory makes both raise, and whether a step
    in float16 is taken whose loss is too large on the first worker."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    network, replica, batch = Limited(most[rank]), Replica(CPU, rank, 2, Gloo()), make_batch()
    mine = replace(batch, x=batch.x[rank::2], y=batch.y[rank::2], weight=batch.weight[rank::2])
    model = a_model(network, 5, replica=replica)
    rehearse(model, mine, TASK.loss)
    for _ in range(2):
        forward_backward(model, mine, TASK.loss)
    found = [p.grad.tolist() for p in network.parameters()]
    network.most = 5 * rank  # nothing fits rank 0 any more
    try:
        rehearse(model, mine, TASK.loss)
        failure = ""
    except TrialFailed as error:
        failure = str(error)
    network.most = 1000
    half = a_model(network, 5, "float16", replica)
    large = replace(mine, weight=mine.weight * 1e6 ** (1 - rank))  # infinite on the first worker alone
    forward_backward(half, large, TASK.loss)
    taken = clip_and_step(half, torch.optim.SGD(network.parameters()), 1.0)
    answers.put((rank, model.rows, found, failure, (taken, half.scaler.get_scale())))
    distributed.destroy_process_group()


def test_workers_agree_on_the_gradient_on_failure_and_on_a_skipped_step(tmp_path):
    processes = multiprocessing.get_context("spawn")
    answers = processes.Queue()
    start = processes.Process
    workers = [start(target=work, args=(r, (5, 2), tmp_path / "meet", answers), daemon=True) for r in range(2)]
    for worker in workers:
        worker.start()
    first, second = sorted(answers.get(timeout=100) for _ in workers)
    for worker in workers:
        worker.join(100)
    assert second[1] == 2  # as many rows as it has memory for
    for found in (first[2], second[2]):
        torch.testing.assert_close([torch.tensor(g) for g in found], whole()[1])
    assert "not even one example fits" in first[3]
    assert "another worker of this fold failed" in second[3]
    assert first[4] == second[4] == (False, 2.0**15)
