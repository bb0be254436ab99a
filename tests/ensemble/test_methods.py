"""What `pool=` may be, and which candidates each method is chosen from."""

import numpy as np
import pytest

from hms_ray import registry
from hms_ray.core.errors import ConfigError
from hms_ray.ensemble import methods
from hms_ray.ensemble.methods import Candidate
from hms_ray.ensemble.pools import log_linear

TWO_LEVELS = ("a", "a", "b", "b")


def test_each_pool_file_is_a_method_and_auto_comes_first():
    files = set(registry.names("pools"))
    assert methods.names()[0] == "auto"
    assert set(methods.names()) == {"auto", *files}
    assert set(methods.CHOSEN_FROM) < files


def test_an_unknown_pool_is_named_with_those_that_exist():
    assert methods.check("greedy") == "greedy"
    with pytest.raises(ConfigError, match=r"no pool named 'gredy'; there are: auto, .*linear.* Did you mean 'greedy'"):
        methods.check("gredy")


@pytest.mark.parametrize("families", [("",) * 4, ("a", "b", "c", "d"), ("a",)])
def test_two_levels_need_families_of_which_one_has_several(families):
    assert "two_level" not in methods.methods_for(families)
    assert all(candidate.method != "two_level" for candidate in methods.candidates("auto", families))
    assert "two_level" in methods.methods_for(TWO_LEVELS)
    assert "two_level" in {candidate.method for candidate in methods.candidates("auto", TWO_LEVELS)}


@pytest.mark.parametrize("method", methods.names()[1:])
def test_a_methods_candidates_differ_in_their_hyper_parameters(method):
    found = methods.candidates(method, TWO_LEVELS)
    chosen = {tuple(sorted(c.options.items())) for c in found}
    assert len(chosen) == len(found)
    assert (len(found) > 1) == (method in ("log_linear", "calibrated"))
    assert [c.number for c in found] == list(range(len(found)))
    assert {c.method for c in found} == {method}


def test_auto_is_chosen_from_all_candidates_of_its_methods_the_plain_mean_first():
    apart = [c for name in methods.CHOSEN_FROM for c in methods.candidates(name, TWO_LEVELS)]
    found = methods.candidates("auto", TWO_LEVELS)
    assert list(found) == apart
    assert len(set(found)) == len(found), "each is a key of its own"
    assert found[0] == Candidate("uniform")


@pytest.mark.parametrize("candidate", methods.candidates("auto", TWO_LEVELS), ids=lambda c: f"{c.method}-{c.number}")
def test_each_candidate_can_be_fitted(candidate, make_rows):
    rows = make_rows(families=TWO_LEVELS)
    pooled = candidate.fit(rows.probs, rows.targets, rows.weight, groups=24).predict(rows.probs)
    np.testing.assert_allclose(pooled.sum(-1), 1, atol=1e-12)
    members = [rows.score(rows.probs[:, m]) for m in range(4)]
    assert rows.score(pooled) < (2 if candidate.method == "prior" else 1) * np.mean(members)


def test_ridges_are_for_one_group(make_rows):
    rows = make_rows(n_members=2)
    [first, second] = methods.candidates("log_linear", rows.families)
    given = rows.probs, rows.targets, rows.weight
    expected = log_linear.fit(*given, ridge=first.options["ridge"] / 5, bias_ridge=first.options["bias_ridge"] / 5)
    np.testing.assert_array_equal(first.fit(*given, groups=5).weights, expected.weights)
    even = [abs(np.diff(candidate.fit(*given, groups=5).weights)[0]) for candidate in (first, second)]
    assert even[1] < even[0], "more ridge, more alike"
    assert abs(np.diff(first.fit(*given, groups=500).weights)[0]) > even[0], "many groups outweigh it"


def test_fewer_members_keep_their_families():
    candidate = methods.candidates("two_level", ("a", "b", "a", "c"))[0]
    fewer = candidate.only(np.array([1, 2]))
    assert fewer.options == candidate.options | {"families": ("b", "a")}
    assert fewer == candidate
    assert candidate.options["families"] == ("a", "b", "a", "c")
    assert Candidate("linear").only(np.array([0])).options == {}
