"""What choosing flatters a score by: found where choices were made of noise, absent where they were clear."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.selection import best_single, optimism_of_choice

PATIENTS = np.repeat(np.arange(40), 3)


def a_gamble(seed, n_members=30, lead=0.0):
    """Losses (120, M) of members that all score 1 in truth, but for a lead of the first."""
    losses = stream(seed, "gamble").gamma(2.0, 0.5, (120, n_members))
    losses[:, 0] -= lead
    return losses


def corrected(losses, seed=0, weight=None):
    return best_single(losses, PATIENTS, np.ones(120) if weight is None else weight, stream(seed, "draws"))


def test_the_best_of_equals_is_as_good_as_any_of_them():
    hindsight = [a_gamble(seed).mean(0).min() for seed in range(10)]
    found = [corrected(a_gamble(seed)) for seed in range(10)]
    assert all(score > best + 0.03 for score, best in zip(found, hindsight, strict=True))
    assert np.mean(hindsight) < 0.9
    assert np.mean(found) == pytest.approx(1, abs=0.05)


def test_a_clear_best_needs_hardly_any_correction():
    losses = a_gamble(0, lead=0.7)
    assert corrected(losses) == pytest.approx(losses[:, 0].mean(), abs=0.01)


def test_one_member_was_not_chosen():
    losses = a_gamble(0, n_members=1)
    assert corrected(losses) == pytest.approx(losses.mean(), abs=0.01)


def test_the_stream_decides_and_units_without_weight_do_not_count():
    losses, weight = a_gamble(0), np.tile([1.0, 1.0, 0.0], 40)
    assert corrected(losses) == corrected(losses) != corrected(losses, seed=1)
    spoilt = losses.copy()
    spoilt[2::3] = 1e3
    assert corrected(spoilt, weight=weight) == corrected(losses, weight=weight)


def test_where_nobody_is_left_out_there_is_no_correction():
    assert best_single(a_gamble(0), np.zeros(120), np.ones(120), stream(0, "draws")) is None
    assert best_single(a_gamble(0), PATIENTS > 19, np.ones(120), stream(0, "draws")) > 0


def the_best(rows, n):
    """The members that score best on these very rows."""
    return np.argsort([rows.score(rows.probs[:, m]) for m in range(rows.n_members)])[:n]


def optimism(rows, kept, seed=0):
    return optimism_of_choice(rows, np.asarray(kept), stream(seed, "draws"))


def of_noise(make_rows, seed=0):
    """Sixteen configurations that are all as good, on few rows."""
    return make_rows(n_groups=20, noise=(1.0,) * 16, seed=seed)


def test_the_best_of_many_alike_are_flattered(make_rows):
    found = []
    for seed in range(3):
        rows = of_noise(make_rows, seed)
        found.append(optimism(rows, the_best(rows, 3)))
    assert min(found) > 0.005


def test_a_pool_of_the_chosen_is_worse_on_new_rows_by_about_so_much(make_rows):
    flattered, found = [], []
    for seed in range(20):
        many = make_rows(n_groups=420, noise=(1.0,) * 16, seed=seed)
        here, later = many.groups < 20, many.groups >= 20
        rows = replace(many, **{n: getattr(many, n)[here] for n in ("probs", "targets", "folds", "groups", "weight")})
        best, any_three = the_best(rows, 3), [0, 1, 2]
        gains = []
        for mask in (here, later):
            scores = [pooled_score(rows, many, mask, kept) for kept in (any_three, best)]
            gains.append(scores[0] - scores[1])
        flattered.append(gains[0] - gains[1])
        if seed < 5:
            found.append(optimism(rows, best))
    assert np.mean(flattered) / 2 < np.mean(found) < 2 * np.mean(flattered)


def pooled_score(rows, many, mask, kept):
    """What a linear pool fitted on the rows scores on the units of the mask."""
    weights = linear.fit(rows.probs[:, kept], rows.targets).weights
    losses = many.losses(linear.pool(many.probs[mask][:, kept], weights), mask)
    return losses.mean()


def test_where_all_are_kept_nothing_was_chosen(make_rows):
    assert optimism(of_noise(make_rows), np.arange(16)) == 0


def test_clear_choices_flatter_hardly(make_rows):
    clear = make_rows(n_groups=100, noise=(0.2, 0.2, 0.2, *(8.0,) * 9))
    alike = make_rows(n_groups=100, noise=(1.0,) * 12)
    assert 0 <= optimism(clear, [0, 1, 2]) < 0.004
    assert optimism(clear, [0, 1, 2]) < optimism(alike, the_best(alike, 3)) / 2


def test_the_optimism_is_of_the_stream_and_of_the_units_that_count(make_rows, other_targets):
    rows = replace(of_noise(make_rows), weight=np.tile([1.0, 0.0], 20))
    kept = the_best(rows, 3)
    assert optimism(rows, kept) == optimism(rows, kept) != optimism(rows, kept, seed=1)
    assert optimism(other_targets(rows, ~rows.scored), kept) == optimism(rows, kept)


def test_one_patient_leaves_nobody_to_compare_with(make_rows):
    assert optimism(replace(of_noise(make_rows), groups=np.zeros(40, int)), [0]) == 0
