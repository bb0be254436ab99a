"""The bench of small studies: pools see the patients drawn alone, and are scored on the others alone."""

import numpy as np
import pytest

from hms_ray.core.seeds import stream


@pytest.fixture
def small(bench_named):
    return bench_named("small")


@pytest.fixture
def members(small):
    return small.Members(*small.clustered(60, 4, stream(0, "test")))


def test_each_number_of_patients_and_members_has_a_line(small, monkeypatch):
    monkeypatch.setattr(small, "MADE_UP", (40, 4))
    arguments = ["--oof", "--patients", "10", "35", "--members", "2", "9", "--draws", "2"]
    first, _, header, *lines = small.run(arguments)
    assert first.endswith("40 patients; 2 draws each")
    assert [line.split()[:2] for line in lines[:2]] == [["10", "2"], ["10", "4"]]
    assert lines[2].strip() == "35: too many of 40 patients, as the others would be too few to score on"
    assert len(lines[0].split()) == len(header.replace("auto - mean", "a").replace("- best baseline", "b").split()) - 3


def test_the_plain_mean_is_not_apart_from_itself(small, members):
    units, apart, error = small.draw(members, 20, 3, ["uniform"], stream(0, "draw"))
    assert 20 <= units < len(members.groups)
    assert abs(apart[0]) < 1e-12 > error


def test_a_pool_is_fitted_to_the_drawn_and_scored_on_the_others(small, members):
    """Whoever is not drawn is given targets that nobody could foresee: pools stay as they are, and score badly."""
    rng = stream(0, "draw")
    drawn = np.isin(members.groups, rng.permutation(np.unique(members.groups))[:20])
    _, before, _ = small.draw(members, 20, 4, ["best_single", "prior"], stream(0, "draw"))
    targets = members.targets.copy()
    targets[~drawn] = np.roll(targets[~drawn], 1, axis=1)
    other = small.Members(members.probs, targets, members.groups)
    _, after, _ = small.draw(other, 20, 4, ["best_single", "prior"], stream(0, "draw"))
    assert after[1] < 0 < before[1], "of shuffled targets, the classes' shares know more than the members"
