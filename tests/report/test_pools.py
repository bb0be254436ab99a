"""Methods in words: each has a name, and its certificate says what holds for its kind and no more."""

from types import SimpleNamespace

import numpy as np
import pytest

from hms_ray import registry
from hms_ray.ensemble import methods
from hms_ray.ensemble.members import Limits
from hms_ray.ensemble.pools import _base
from hms_ray.ensemble.pools.average import Pool as Average
from hms_ray.ensemble.result import EnsembleResult
from hms_ray.report import pools

POPULATION = "everyone"
GAP = '<span class="whole">2.4e-11</span>'


def pool_of(kind, gap=2.31e-11):
    """A pool of two members with this gap."""
    weights = [0.5, 0.5]
    log_linear = {"weights": weights, "bias": [0.0, 0.0], "gap": gap}
    content = {"inner": [weights], "outer": {**log_linear, "weights": [1.0]}} if kind == "two_level" else log_linear
    return _base.from_dict({"kind": kind, "exponent": 1.0, "shares": weights, **content})


def content(kind, gap=2.31e-11, pool=None, limits=None):
    """The parts of a result that the sentences on pools are made of."""
    fitted = pool_of(kind, gap) if isinstance(kind, str) else kind
    pool = pool or _base.kind(fitted)
    return SimpleNamespace(pool=pool, fitted=fitted, duality_gap=gap, gap_by_fold=gap, limits=limits, methods=[])


def average(*gaps, kinds=("linear", "calibrated"), pool="auto"):
    parts = tuple(pool_of(kind, gap) for kind, gap in zip(kinds, gaps, strict=True))
    largest = max((gap for gap in gaps if gap), default=None)
    return content(Average(parts, np.array([0.25, 0.75])), largest, pool)


def said(found):
    return " ".join(pools.certificate(found, POPULATION))


def test_every_method_has_a_name():
    assert all(methods.label(name) for name in ("auto", *registry.names("pools")))
    assert methods.label("log_linear") == "log-linear" and methods.label("auto").startswith("several pools")
    assert methods.label("of a later version") == "of a later version"


@pytest.mark.parametrize(
    ("kind", "phrase"),
    [
        ("linear", "No weights on the simplex can score more than"),
        ("tempered", "Before the temperature, no weights on the simplex"),
        ("log_linear", "the score plus a penalty"),
        ("two_level", "For fixed pools within the spaces"),
    ],
)
def test_a_convex_pool_names_what_its_gap_bounds(kind, phrase):
    sentence = said(content(kind))
    assert phrase in sentence and GAP in sentence and POPULATION in sentence
    assert f"The largest gap of a cross-fitting fit is {GAP}." in sentence


@pytest.mark.parametrize("pool", ["calibrated", "greedy", "uniform", "best_single", "prior"])
def test_other_methods_say_that_they_have_no_certificate(pool):
    sentence = said(content(pool, None))
    reason = registry.load("pools", pool).SENTENCES.no_bound
    assert sentence == f"There is no certificate for this method: {reason}"


def test_where_auto_is_the_plain_mean_it_says_so_and_why():
    sentence = said(content("uniform", None, "auto"))
    assert "the weights are equal; nothing is fitted. No other pool was better than the plain mean by more" in sentence


def test_an_average_is_certified_in_its_convex_parts_only():
    sentence = said(average(2.31e-11, None))
    assert "1 of the 2 pools averaged here have a certificate (linear): each is within " + GAP in sentence
    assert "not their average. The others (calibrated) have none." in sentence
    assert "The others" not in said(average(2.31e-11, 1e-12, kinds=("linear", "log_linear")))
    assert said(average(None, None)).startswith("There is no certificate")


def test_an_open_certificate_and_limits_are_named():
    assert "The certificate is open" in said(content("linear", 3e-6)) and "open" not in said(content("linear"))
    limited = content("linear", limits=Limits(members=3, seconds=1.5, tolerance=0.001))
    assert "among the members that the limits leave" in said(limited)
    assert pools.describe_limits(limited.limits) == (
        "Limits: at most 3 members with weight; at most 1.5 s for one prediction of all members; "
        "members dropped while the linear pool stays within 0.001 nats of its optimum."
    )
    assert pools.describe_limits(None) == ""


def test_what_an_average_is_made_of_and_what_weights_mean():
    assert _base.explain(average(1e-12, None).fitted).composition == (
        "An average of 2 pools: 75.0\u00a0% calibrated; 25.0\u00a0% linear."
    )
    assert _base.explain(content("linear").fitted).composition == ""
    assert "cannot reproduce the prediction" in _base.explain(average(1e-12, None).fitted).weights
    assert "inverse temperature" in _base.explain(content("log_linear").fitted).weights
    assert _base.explain(content("linear").fitted).weights == "Weights sum to 1."


def test_gaps_of_all_methods_are_gathered(complete):
    assert sorted(set(EnsembleResult.load(complete.folder.ensemble).gaps)) == [2.31e-11, 4.07e-11]
