"""Methods in words: each has a name, and its certificate says what holds for its kind and no more."""

import pytest

from hms_ray import registry
from hms_ray.core import files
from hms_ray.report import pools

POPULATION = "everyone"
GAP = '<span class="whole">2.4e-11</span>'


def content(kind, gap=2.31e-11, pool=None, **changes):
    found = {"pool": pool or kind, "fitted": {"kind": kind, "gap": gap}, "duality_gap": gap, "gap_by_fold": gap}
    return found | {"limits": None, "methods": []} | changes


def average(*gaps, kinds=("linear", "calibrated"), pool="auto", **changes):
    parts = [{"kind": kind, "gap": gap} for kind, gap in zip(kinds, gaps, strict=True)]
    fitted = {"kind": "average", "pools": parts, "shares": [0.25, 0.75]}
    return content("average", max((gap for gap in gaps if gap), default=None), pool, **changes) | {"fitted": fitted}


def said(found):
    return " ".join(pools.certificate(found, POPULATION))


def test_every_method_has_a_name():
    assert {*registry.names("pools"), "auto"} == set(pools.NAMES)
    assert pools.name("of a later version") == "of a later version"


@pytest.mark.parametrize(
    ("kind", "phrase"),
    [
        ("linear", "No weights on the simplex can score more than"),
        ("tempered", "Before the temperature, no weights on the simplex"),
        ("log_linear", "the score plus a penalty"),
        ("two_level", "The pools within the spaces taken as they are"),
    ],
)
def test_a_convex_pool_names_what_its_gap_bounds(kind, phrase):
    sentence = said(content(kind))
    assert phrase in sentence and GAP in sentence and POPULATION in sentence
    assert f"The largest gap of a cross-fitting fit is {GAP}." in sentence


@pytest.mark.parametrize("pool", ["calibrated", "greedy", "uniform", "best_single", "prior"])
def test_other_methods_say_that_they_have_no_certificate(pool):
    sentence = said(content(pool, None))
    assert sentence == f"There is no certificate for this method: {pools.WITHOUT_BOUND[pool]}"


def test_where_auto_is_the_plain_mean_it_says_so_and_why():
    sentence = said(content("uniform", None, "auto"))
    assert (
        "the weights are equal, and nothing is fitted. No other pool was better than the plain mean by more" in sentence
    )


def test_an_average_is_certified_in_its_convex_parts_only():
    sentence = said(average(2.31e-11, None))
    assert "1 of the 2 pools averaged here have a certificate (linear): each is within " + GAP in sentence
    assert "not their average. The others (calibrated) have none." in sentence
    assert "The others" not in said(average(2.31e-11, 1e-12, kinds=("linear", "log_linear")))
    assert said(average(None, None)).startswith("There is no certificate")


def test_an_open_certificate_and_limits_are_named():
    assert "leaves the certificate open" in said(content("linear", 3e-6)) and "open" not in said(content("linear"))
    limited = content("linear", limits={"members": 3, "per_family": None, "seconds": 1.5, "tolerance": 0.001})
    assert "among the members that the limits leave" in said(limited)
    assert pools.limits(limited) == (
        "Limits: at most 3 members with weight; at most 1.5 s for one prediction of all members; "
        "members dropped while the linear pool stays within 0.001 nats of its optimum."
    )
    assert pools.limits(content("linear")) == ""


def test_what_an_average_is_made_of_and_what_weights_mean():
    assert pools.composition(average(1e-12, None)["fitted"]) == (
        "An average of 2 pools: 75.0\u00a0% calibrated; 25.0\u00a0% linear."
    )
    assert pools.composition(content("linear")["fitted"]) == ""
    assert "no recipe" in pools.meaning(average(1e-12, None)["fitted"])
    assert "inverse temperature" in pools.meaning(content("log_linear")["fitted"])
    assert pools.meaning(content("linear")["fitted"]) == "Weights sum to 1."


def test_gaps_of_all_methods_are_gathered(complete):
    assert sorted(set(pools.gaps(files.read_json(complete.folder.ensemble)))) == [2.31e-11, 4.07e-11]
