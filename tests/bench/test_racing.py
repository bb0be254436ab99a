"""The replay of searches: its accounts are right, and on real models racing keeps what the ensemble needs."""

import numpy as np
import pytest


@pytest.fixture
def bench(repository, monkeypatch):
    """The bench, which is no part of the installed package."""
    monkeypatch.syspath_prepend(repository)
    monkeypatch.delenv("HMS_RAY_REAL", raising=False)
    from bench import racing

    monkeypatch.setattr(racing, "STOP_RATES", (1e-6, 0.1))
    return racing


@pytest.fixture
def members(bench):
    return bench.simulated(seed=0, n_patients=60, n_members=5)


def test_folds_are_counted_depth_first(bench, members):
    asked = []

    def stops(seen, candidate, kept, look, looks):
        asked.append((candidate, tuple(kept), look, len(np.unique(seen.folds))))
        return candidate == 3 and look == 2

    policy = bench.Policy("third", stops, 3, lambda seen, kept: kept[:2])
    used, survivors = bench.replay(policy, members, [4, 3, 0], [2, 0, 1, 4, 3])
    assert asked == [(4, (), 1, 1), (4, (), 2, 2), (3, (4,), 1, 1), (3, (4,), 2, 2), (0, (4,), 1, 1), (0, (4,), 2, 2)]
    assert survivors == [4, 0]
    assert used == 3 + 2 + 3 + 2 * 2


def test_who_trains_everything_loses_nothing(bench, members):
    outcome = bench.replays(bench.Policy("all", bench._never), members, 3, seed=0)
    np.testing.assert_allclose(outcome, [[1, 0, 0]] * 3, atol=1e-9)


def test_the_rules_stop_a_model_that_only_guesses(bench, members):
    guesses = np.random.default_rng(0).permutation(members.probs[:, 0])
    probs = np.concatenate([members.probs, guesses[:, None]], axis=1)
    seen = bench.Members(members.targets, members.groups, members.folds, probs)
    for rule in (
        lambda m, kept: bench.ensemble_rule(seen, m, kept, 1, 5, stop_rate=0.4, min_gain=0.03),
        lambda m, kept: bench.best_rule(seen, m, kept, 1, 5, stop_rate=0.4),
    ):
        assert rule(5, [1, 3, 4])
        assert not rule(5, [])
        assert not rule(1, [5])


def test_the_plain_rule_compares_the_slope_and_its_error(bench, members):
    slope = (members.targets * members.probs[:, 2] / members.probs[:, 1]).sum(-1) - 1
    error = bench.racing.clustered_error(slope, members.groups)
    for quantile in (-3, 0, 3, -slope.mean() / error - 0.01, -slope.mean() / error + 0.01):
        expected = slope.mean() + quantile * error < 0
        assert bench.plain_rule(members, 2, [1], 1, 5, quantile) == expected
    assert not bench.plain_rule(members, 2, [], 1, 5, -100)


def test_every_fold_comes_first_equally_often(bench, members):
    firsts = []

    def chooses(seen, kept):
        firsts.append(int(seen.folds[0]))
        return kept

    bench.replays(bench.Policy("watch", bench._never, 1, chooses), members, 10, seed=0)
    assert np.bincount(firsts).tolist() == [2] * 5


def test_the_table_has_a_line_for_each_rule(bench, members, monkeypatch):
    monkeypatch.setattr(bench, "simulated", lambda **_: members)
    lines = list(bench.run(["--orders", "2", "--finalists", "3"]))
    assert lines[0] == f"5 models x 5 folds, {len(members.targets)} units, 2 random orders"
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "train everything",
        "best, stop_rate 0.1",
        "plain ensemble rule, z 0",
        "plain ensemble rule, z -1",
        "best 3 models after 1",
        "ours, every fold a trial fold",
        "ours, trial_folds 2, finalists 3",
        "ours, trial_folds 3, finalists 3",
        "ours, trial_folds 1, finalists 3",
    ]
    assert "100.0% +-0.0%   0.00000" in lines[2]


def test_the_frontier_rises_to_the_search_that_stops_nobody(bench, members):
    frontier = bench.best_frontier(members, 2, seed=0)
    assert frontier.shape == (3, 2)
    assert (np.diff(frontier[:, 0]) >= 0).all()
    assert frontier[-1].tolist() == [1, 0]


def test_on_real_models_the_ensemble_loses_little_at_half_the_folds(bench, real_data):
    paths = sorted((real_data / "oof").glob("*.parquet"))
    if not paths:
        pytest.skip(f"no out-of-fold files in {real_data / 'oof'}")
    members = bench._real(paths, min_votes=10)
    options = bench._options([])
    named = bench._policies(options, n_folds=5)[-1]
    used, regret, _ = bench.replays(named, members, options.orders, seed=0).mean(0)
    assert used <= 0.55
    assert regret <= 3e-4
    equal = np.interp(used, *bench.best_frontier(members, 4, seed=0).T)
    assert regret < equal
