"""The bench of all pools: a table for each population, from files of the form that foreign predictions have."""

import numpy as np
import pandas as pd
import pytest

from hms_ray.core.errors import ConfigError

CLASSES = ["seizure", "lpd", "gpd", "lrda", "grda", "other"]


@pytest.fixture
def paths(tmp_path, bench_named):
    probs, targets = bench_named("_members").simulated(120, 4, seed=0)
    ids = pd.DataFrame({"eeg_id": np.arange(120), "patient_id": np.arange(120) // 2, "fold": np.arange(120) // 2 % 3})
    votes = pd.DataFrame(np.round(targets * 10).astype(int), columns=[f"{c}_vote" for c in CLASSES])
    frames = {"labels": pd.concat([ids, votes], axis=1)}
    frames |= {f"m{m}": ids[["eeg_id"]].join(pd.DataFrame(probs[:, m], columns=CLASSES)) for m in range(4)}
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    return [str(tmp_path / f"{name}.csv") for name in frames]


def test_every_pool_has_a_line_and_two_levels_need_families(bench_named, paths):
    pools = bench_named("pools")
    lines = list(pools.run(["--oof", *paths, "--min-votes", "10"]))
    assert lines[0] == ">= 10 votes: 120 units, 60 patients, 4 members"
    names = [line.split()[0] for line in lines[2:]]
    assert "auto" in names and "two_level" not in names
    with_families = list(pools.run(["--oof", *paths, "--min-votes", "10", "--families", "2,2"]))
    assert [line.split()[0] for line in with_families[2:]] == sorted([*names, "two_level"])


def test_no_files_and_sizes_that_do_not_sum_are_refused(bench_named, paths):
    with pytest.raises(ConfigError, match="no out-of-fold files"):
        list(bench_named("pools").run([]))
    with pytest.raises(ConfigError, match="sum to 3, but there are 4 members"):
        list(bench_named("pools").run(["--oof", *paths, "--families", "1,2"]))
