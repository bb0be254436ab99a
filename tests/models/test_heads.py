"""What networks share at their end: numbers beside the input, and heads."""

import pytest
import torch
from torch import nn

from hms_ray.models._heads import Classifier, Covariates, fit_covariates, takes_covariates
from hms_ray.training import checkpoint

NAN = float("nan")
VALUES = torch.tensor([[20.0, 1.0, 5.0], [40.0, NAN, 5.0], [60.0, 0.0, 5.0], [NAN, 1.0, 5.0]])


def _classifier(covariates: int = 3, hidden: int = 0) -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Flatten(), 4, 2, 0.0, {"blocks": r"(\d+)"}, covariates, hidden)


def test_numbers_are_standardised_by_those_that_are_known() -> None:
    covariates = Covariates(3)
    covariates.fit(VALUES)
    assert covariates.mean.tolist() == pytest.approx([40, 2 / 3, 5])
    found = covariates(VALUES)
    assert found[:3, 0].tolist() == pytest.approx([-1.2247, 0, 1.2247], abs=1e-4)
    assert found[3, 0] == 0 and found[1, 1] == 0, "what is not known counts as the mean"
    assert (found[:, 2] == 0).all(), "what never changes says nothing, and divides by nothing"


def test_a_number_that_nobody_has_says_nothing() -> None:
    covariates = Covariates(1)
    covariates.fit(torch.full((3, 1), NAN))
    assert covariates(torch.tensor([[NAN], [0.0]])).tolist() == [[0], [0]]


def test_only_the_numbers_of_the_training_data_are_known() -> None:
    network = nn.Sequential(nn.Flatten(), _classifier())
    fit_covariates(network, VALUES)
    assert takes_covariates(network) and network[1].covariates.mean[0] == 40
    assert not takes_covariates(_classifier(covariates=0))


def test_numbers_reach_the_logits_and_their_scale_travels_with_the_weights() -> None:
    network, twin, x = _classifier().eval(), _classifier().eval(), torch.randn(4, 2, 2)
    fit_covariates(network, VALUES)
    logits = network(x, VALUES)
    assert not torch.allclose(logits, network(x, VALUES.flip(0)))
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(x, VALUES), logits)
    assert set(network.state_dict()) == {"head.weight", "head.bias", "covariates.mean", "covariates.scale"}
    assert checkpoint.pack(network.state_dict())


def test_a_hidden_layer_has_batch_norm_and_dropout() -> None:
    network = _classifier(hidden=8)
    assert [type(part) for part in network.head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert network.eval()(torch.randn(4, 2, 2), VALUES).shape == (4, 2)


def test_what_rounding_makes_of_one_value_is_one_value() -> None:
    covariates = Covariates(2)
    covariates.fit(torch.tensor([[0.1, NAN]]).repeat(648, 1))
    assert covariates(torch.tensor([[0.2, 50.0]])).tolist() == [[0, 0]], "nor does a number that nobody had in training"
