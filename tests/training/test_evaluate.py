"""Predictions do not depend on how rows are batched, and leave the network as it was but in evaluation mode."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hms_ray.core.errors import TrialFailed
from hms_ray.training.evaluate import predict

CPU = torch.device("cpu")


@pytest.fixture
def model(toy):
    torch.manual_seed(0)
    return toy.recipe().build()


@pytest.mark.parametrize("batch", [1, 7, 59, 60, 1000])
def test_predictions_are_independent_of_the_batch_size(toy, model, batch):
    rows = np.arange(60)
    whole = predict(model, toy.data.inputs, rows, toy.data.task, CPU, 60)
    np.testing.assert_allclose(predict(model, toy.data.inputs, rows, toy.data.task, CPU, batch), whole, atol=1e-6)


def test_rows_are_predicted_in_their_order(toy, model):
    rows = np.array([9, 3, 9, 0])
    whole = predict(model, toy.data.inputs, np.arange(60), toy.data.task, CPU, 60)
    np.testing.assert_allclose(predict(model, toy.data.inputs, rows, toy.data.task, CPU, 3), whole[rows], atol=1e-6)


def test_predictions_are_float64_rows_that_sum_to_one_and_no_rows_give_none(toy, model):
    probs = predict(model, toy.data.inputs, np.arange(10), toy.data.task, CPU, 4)
    assert (probs.dtype, probs.shape) == (np.float64, (10, 3))
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-12)
    assert predict(model, toy.data.inputs, np.arange(0), toy.data.task, CPU, 4).shape == (0, 3)


def test_predicting_changes_nothing(toy, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    predict(model, toy.data.inputs, np.arange(10), toy.data.task, CPU, 4)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_network_predicts_in_the_given_precision(toy, model, dtype):
    seen = []
    model.register_forward_hook(lambda module, inputs, logits: seen.append(logits.dtype))
    probs = predict(model, toy.data.inputs, np.arange(60), toy.data.task, CPU, 32, precision=dtype)
    assert seen == [dtype] * 2
    assert probs.dtype == np.float64
    exact = predict(model, toy.data.inputs, np.arange(60), toy.data.task, CPU, 32)
    np.testing.assert_allclose(probs, exact, atol=0.02)
    assert (probs != exact).any() == (dtype != torch.float32)


@pytest.mark.parametrize("most", [60, 16, 5, 1])
def test_predictions_go_on_in_halves_where_memory_is_short(toy, model, most):
    seen = []

    def limited(module, inputs):
        seen.append(len(inputs[0]))
        if seen[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    whole = predict(model, toy.data.inputs, np.arange(60), toy.data.task, CPU, 60)
    model.register_forward_pre_hook(limited)
    probs = predict(model, toy.data.inputs, np.arange(60), toy.data.task, CPU, 64)
    np.testing.assert_allclose(probs, whole, atol=1e-6)
    assert sorted(seen, reverse=True) == seen  # no batch is larger again
    assert sum(rows for rows in seen if rows <= most) == 60


def test_where_not_one_row_fits_the_prediction_fails(toy, model):
    def limited(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(limited)
    with pytest.raises(TrialFailed, match="not even one example fits"):
        predict(model, toy.data.inputs, np.arange(60), toy.data.task, CPU, 64)


def test_a_view_that_is_the_example_itself_is_predicted_once(toy, model):
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    plain = predict(model, toy.data.inputs, np.arange(10), toy.data.task, CPU, 10)
    symmetric = SimpleNamespace(variant=lambda x, spec: x)
    mirrored = predict(model, toy.data.inputs, np.arange(10), toy.data.task, CPU, 10, (symmetric,))
    assert seen == [10, 10] and np.array_equal(mirrored, plain)
