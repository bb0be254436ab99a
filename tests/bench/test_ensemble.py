"""The bench of ensemble methods: it runs, on a small scale, and every method returns weights of a pool."""

import numpy as np
import pytest


@pytest.fixture
def bench(repository, monkeypatch):
    """The bench, which is no part of the installed package."""
    monkeypatch.syspath_prepend(repository)
    monkeypatch.delenv("HMS_RAY_REAL", raising=False)
    from bench import ensemble

    monkeypatch.setattr(ensemble, "NELDER_MEAD_ITERATIONS", 20)
    return ensemble


@pytest.fixture
def members(bench):
    return bench.simulated(200, 5, seed=0)


@pytest.mark.parametrize("method", ["_linear_pool", "slsqp", "slsqp_terms", "nelder_mead", "greedy"])
def test_every_method_returns_weights_that_are_no_better_than_the_certified_ones(bench, members, method):
    probs, targets = members

    def loss(weights):
        return -(targets * np.log(np.einsum("nmk,m->nk", probs, weights))).sum(1).mean()

    weights = getattr(bench, method)(probs, targets)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 0
    assert loss(weights) >= loss(bench._linear_pool(probs, targets)) - 1e-9


def test_the_table_has_a_line_for_each_method(bench, members, monkeypatch):
    monkeypatch.setattr(bench, "simulated", lambda *_, **__: members)
    lines = list(bench.run(["--jittered", "7", "--repetitions", "1"]))
    assert lines[0] == "simulated members, 1 rounds, median seconds"
    assert [line for line in lines if "units" in line] == ["5 members x 200 units", "7 members x 200 units"]
    assert len(lines) == 1 + 2 * 7


def test_jittered_members_are_probabilities(bench, members):
    probs = bench.jittered(members[0], 7, seed=0)
    assert probs.shape == (200, 7, 6)
    np.testing.assert_allclose(probs.sum(-1), 1)
    assert not np.allclose(probs, bench.jittered(members[0], 7, seed=1))


def test_an_unknown_bench_is_refused(bench, capsys):
    from bench.__main__ import main

    assert main(["ensemle"]) == main([]) == 2
    assert "Did you mean 'ensemble'?" in capsys.readouterr().err
