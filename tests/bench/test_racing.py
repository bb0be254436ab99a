"""The replay of searches: its accounts are right, and on real models little is lost at half the folds."""

from functools import partial

import numpy as np
import pytest

from hms_ray.ensemble import bootstrap


@pytest.fixture
def bench(bench_named):
    return bench_named("racing")


@pytest.fixture
def sets(bench_named):
    return bench_named("_race_sets")


@pytest.fixture
def members(sets):
    return sets.simulated(seed=0, n_patients=60, n_members=5)


def test_folds_are_counted_depth_first(bench, members):
    asked = []

    def stops(seen, candidate, kept, look, looks):
        asked.append((candidate, tuple(kept), look, len(np.unique(seen.folds))))
        return candidate == 3 and look == 2

    used, survivors = bench.depth_first(members, [4, 3, 0], [2, 0, 1, 4, 3], stops, 3, lambda seen, kept: kept[:2])
    assert asked == [(4, (), 1, 1), (4, (), 2, 2), (3, (4,), 1, 1), (3, (4,), 2, 2), (0, (4,), 1, 1), (0, (4,), 2, 2)]
    assert survivors == [4, 0]
    assert used == 3 + 2 + 3 + 2 * 2


def test_who_trains_everything_loses_nothing(bench, members):
    outcome = bench.replays(partial(bench.depth_first, stops=bench._never), members, 3, seed=0)
    np.testing.assert_allclose(outcome, [[1, 0, 0]] * 3, atol=1e-9)


def test_the_rules_stop_a_model_that_only_guesses(bench, sets, members):
    guesses = np.random.default_rng(0).permutation(members.probs[:, 0])
    probs = np.concatenate([members.probs, guesses[:, None]], axis=1)
    seen = sets.Members(members.targets, members.groups, members.folds, probs)
    for rule in (
        lambda m, kept: bench.ensemble_rule(seen, m, kept, 1, 5, stop_rate=0.4, min_gain=0.03),
        lambda m, kept: bench.best_rule(seen, m, kept, 1, 5, stop_rate=0.4),
    ):
        assert rule(5, [1, 3, 4])
        assert not rule(5, [])
        assert not rule(1, [5])


def test_the_plain_rule_compares_the_slope_and_its_error(bench, members):
    slope = (members.targets * members.probs[:, 2] / members.probs[:, 1]).sum(-1) - 1
    error = bootstrap.standard_error(slope, members.groups)
    look = bench._Look.of(members)
    for quantile in (-3, 0, 3, -slope.mean() / error - 0.01, -slope.mean() / error + 0.01):
        assert look.stops(2, [1], quantile) == (slope.mean() + quantile * error < 0)


def test_the_plain_rule_keeps_the_first_and_counts_folds(bench, members):
    mild, all_kept = bench.plain_rule(members, [4, 3, 0], [2, 0, 1, 4, 3], quantile=100)
    assert (mild, all_kept) == (15, [4, 3, 0])
    strict, kept = bench.plain_rule(members, [4, 3, 0], [2, 0, 1, 4, 3], quantile=-100)
    assert (strict, kept) == (5 + 1 + 1, [4])


def test_the_allocation_is_replayed_in_any_order(bench, members):
    rule = partial(bench.allocation_rule, price=0.02, budget=1)
    used, survivors = rule(members, [4, 3, 0, 1, 2], [2, 0, 1, 4, 3])
    again, same = rule(members, [0, 1, 2, 3, 4], [2, 0, 1, 4, 3])
    assert (used, sorted(survivors)) == (again, same)
    assert 5 + 4 * len(survivors) <= used < 25


def test_every_fold_comes_first_equally_often(bench, members):
    firsts = []

    def search(members, order, folds):
        firsts.append(int(folds[0]))
        assert sorted(folds) == members.every_fold.tolist()
        return 25, order

    bench.replays(search, members, 10, seed=0)
    assert np.bincount(firsts).tolist() == [2] * 5


def test_the_oracle_loses_less_the_more_it_may_choose(bench, members):
    regrets = bench._oracle(members)
    assert (np.diff(regrets) <= 1e-9).all()
    assert regrets[-1] == 0
    assert regrets[0] == pytest.approx(min(members.ensemble([m]) for m in range(5)) - members.ensemble(range(5)))


def test_the_table_has_the_worst_set_first(bench, sets, members, monkeypatch):
    few = [
        sets.RaceSet("of two copies", lambda rng: members.of([0, 0]), fixed=True),
        sets.RaceSet("half of five", members.half),
        sets.RaceSet("others", lambda rng: pytest.fail("drawn")),
    ]
    monkeypatch.setattr(bench, "made_up_sets", lambda: few)
    lines = list(bench.run(["--oof", "--orders", "1", "--draws", "2", "--sets", "of", "--price", "10"]))
    assert [line[:34].strip() for line in lines[2:5]] == ["half of five", "of two copies", "mean of the sets"]
    assert lines[3].split()[3:7] == ["2", "60.0%", "0.00000", "0.00000"]
    assert lines[-1].startswith("allocation")


def test_patients_stay_together_in_folds_dealt_again(sets, members):
    dealt = members.dealt(3, np.random.default_rng(0))
    assert all(len(set(dealt.folds[dealt.groups == group])) == 1 for group in np.unique(dealt.groups))
    assert np.ptp(np.bincount(dealt.folds)) <= 2
    half = members.half(np.random.default_rng(0))
    assert len(np.unique(half.groups)) == 30
    assert all((half.groups == group).sum() == (members.groups == group).sum() for group in np.unique(half.groups))


def test_made_up_families_are_as_alike_as_they_are_said_to_be(sets):
    made = sets.related(np.random.default_rng(0), families=2, copies=3, own=0.3)
    entropy = -np.where(made.targets > 0, made.targets * np.log(np.maximum(made.targets, 1e-9)), 0).sum(-1).mean()
    assert all(0.2 < score - entropy < 0.55 for score in made.scores)
    logits = np.log(made.probs)
    errors = logits - logits.mean(1, keepdims=True)
    likeness = np.corrcoef((errors - errors.mean(-1, keepdims=True)).swapaxes(0, 1).reshape(6, -1))
    inside, between = likeness[0, 1:3], likeness[0, 3:]
    assert inside.min() > between.max() + 0.2


def test_the_sets_are_drawn_from_any_real_files(sets, members, monkeypatch):
    monkeypatch.setattr(sets, "real", lambda paths, min_votes: members)
    drawn = {one.name: one.draw(np.random.default_rng(0)) for one in sets.real_sets([], 10)}
    assert drawn["5 real models"] is drawn["all counts of votes"] is members
    assert drawn["dealt again in 10 folds"].every_fold.tolist() == list(range(10))
    assert drawn["5 real models, 5 blends"].probs.shape[1] == 10


def test_on_real_models_the_ensemble_loses_little(bench, sets, real_data):
    paths = sorted((real_data / "oof").glob("*.parquet"))
    if not paths:
        pytest.skip(f"no out-of-fold files in {real_data / 'oof'}")
    members = sets.real(paths, min_votes=10)
    rule = partial(bench.allocation_rule, price=bench.allocation.PRICE, budget=1.0)
    used, regret, _ = bench.replays(rule, members, 5, seed=0).mean(0)
    assert used <= 0.6
    assert regret <= 5e-4
    strict, lost, _ = bench.replays(partial(bench.plain_rule, quantile=-1), members, 5, seed=0).mean(0)
    assert used < strict and regret < lost
