"""The bench of the convex pools: it runs, on a small scale, and no peer's weights are better than certified ones."""

import numpy as np
import pytest


@pytest.fixture
def ensemble(bench_named, monkeypatch):
    monkeypatch.setattr(bench_named("_peers"), "NELDER_MEAD_ITERATIONS", 20)
    return bench_named("ensemble")


@pytest.fixture
def members(bench_named):
    return bench_named("_members").simulated(200, 5, seed=0)


def test_no_peer_is_better_than_the_linear_pool(ensemble, members):
    probs, targets = members

    def loss(weights):
        return -(targets * np.log(np.einsum("nmk,m->nk", probs, weights))).sum(1).mean()

    methods = ensemble._linear_methods()
    best = loss(methods.pop("linear pool")(probs, targets))
    for method in methods.values():
        weights = method(probs, targets)
        assert weights.sum() == pytest.approx(1)
        assert weights.min() >= 0
        assert loss(weights) >= best - 1e-9


def test_the_log_linear_pool_and_its_peer_find_one_optimum(ensemble, members, bench_named):
    peers = bench_named("_peers")
    loss = peers.log_linear_objective(*members, **ensemble.RIDGE)
    ours, theirs = ensemble._log_linear_pool(*members), peers.lbfgsb(*members, **ensemble.RIDGE)
    assert loss(ours)[0] <= loss(theirs)[0] + 1e-9
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_objective_of_the_peer_has_the_gradient_it_says(bench_named, members):
    loss = bench_named("_peers").log_linear_objective(*members, ridge=0.1, bias_ridge=0.2)
    x, step = np.linspace(0.1, 0.6, 11), 1e-6
    numeric = [(loss(x + step * e)[0] - loss(x - step * e)[0]) / (2 * step) for e in np.eye(11)]
    np.testing.assert_allclose(loss(x)[1], numeric, atol=1e-7)


def test_the_tables_have_a_line_for_each_method(ensemble, members, monkeypatch):
    monkeypatch.setattr(ensemble, "simulated", lambda *_, **__: members)
    lines = list(ensemble.run(["--jittered", "7", "--repetitions", "1"]))
    assert lines[0] == "simulated members, 1 rounds, median seconds"
    assert [line.split(":")[0] for line in lines if "units" in line] == ["linear", "log-linear"] * 2
    assert len(lines) == 1 + 2 * (2 + len(ensemble._linear_methods()) + 2 + 2)


def test_jittered_members_are_probabilities(bench_named, members):
    jittered = bench_named("_members").jittered
    probs = jittered(members[0], 7, seed=0)
    assert probs.shape == (200, 7, 6)
    np.testing.assert_allclose(probs.sum(-1), 1)
    assert not np.allclose(probs, jittered(members[0], 7, seed=1))


def test_an_unknown_bench_is_refused(bench_named, capsys):
    main = bench_named("__main__").main
    assert main(["ensemle"]) == main([]) == 2
    assert "Did you mean 'ensemble'?" in capsys.readouterr().err
