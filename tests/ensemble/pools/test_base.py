"""A fitted pool of any kind: its name, its JSON, and the change of the members it is over."""

import json

import numpy as np
import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import _base, linear, log_linear, two_level, uniform

LINEAR = linear.Pool(np.array([0.25, 0.0, 0.75]), 1e-12)
OUTER = log_linear.Pool(np.array([0.5, 2.0]), np.zeros(3), 0.0)
TWO_LEVEL = two_level.Pool(np.array([[1.0, 0, 0], [0, 0, 1.0]]), OUTER)


def test_a_pool_goes_by_the_file_of_its_class():
    assert _base.kind(LINEAR) == "linear"
    assert _base.kind(OUTER) == "log_linear"
    assert _base.kind(uniform.fit(np.ones((1, 2, 1)), np.ones((1, 1)))) == "uniform"


def test_the_kind_is_kept_with_the_content():
    content = json.loads(json.dumps(_base.to_dict(TWO_LEVEL), allow_nan=False))
    assert content["kind"] == "two_level"
    found = _base.from_dict(content)
    assert isinstance(found, two_level.Pool)
    np.testing.assert_array_equal(found.inner, TWO_LEVEL.inner)


def test_an_unknown_kind_is_named():
    with pytest.raises(ConfigError, match=r"no pool named 'linaer'.*Did you mean 'linear'"):
        _base.from_dict({"kind": "linaer", "weights": [1.0]})


def test_restricted_keeps_members_in_the_order_given():
    assert _base.restricted(LINEAR, np.array([2, 0])).weights.tolist() == [0.75, 0.25]
    assert _base.restricted(TWO_LEVEL, np.array([0, 2])).inner.tolist() == [[1, 0], [0, 1]]
    assert LINEAR.weights.tolist() == [0.25, 0, 0.75], "a pool is not changed"


def test_spread_puts_members_where_they_are_among_more():
    assert _base.spread(LINEAR, np.array([4, 0, 1]), 5).weights.tolist() == [0, 0.75, 0, 0, 0.25]
    assert _base.spread(TWO_LEVEL, np.array([1, 3, 0]), 4).inner.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("pool", [LINEAR, TWO_LEVEL], ids=_base.kind)
def test_what_a_pool_knows_beside_its_weights_is_kept(pool):
    wide = _base.spread(pool, np.array([0, 1, 2]), 6)
    assert wide.gap == pool.gap
    back = _base.restricted(wide, np.arange(3))
    probs = stream(0, "pool").dirichlet(np.ones(3), (7, 3))
    np.testing.assert_array_equal(back.predict(probs), pool.predict(probs))
