"""Time to an ensemble of a given KL: what is read from the files of a search."""

import numpy as np
import pytest
import yaml

from bench import time_to_kl
from bench.time_to_kl import Course
from hms_ray.core.errors import ConfigError

SPACE = {
    "base": {
        "data": {"name": "hms"},
        "feature": {"name": "kaggle_spectrogram", "pool": 4},
        "model": {"name": "basic_cnn", "width": 4, "depth": 2},
        "stages": [{"epochs": 1, "lr": 0.01}],
        "folds": 3,
    },
    "search": {"stages.0.lr": {"log_uniform": [1e-3, 1e-1]}},
    "budget": {"finalists": 2},
}


def test_the_time_is_that_from_which_the_ensemble_stays_as_good():
    course = Course(np.array([3.0, 7.0, 9.0, 12.0]), np.array([0.5, 0.4, 0.45, 0.42]), 15.0)
    assert [course.time_to(target) for target in (0.6, 0.5, 0.45, 0.42)] == [3.0, 3.0, 7.0, 12.0]
    assert [course.first(target) for target in (0.6, 0.45, 0.42)] == [3.0, 7.0, 7.0]
    assert course.time_to(0.41) == float("inf") and course.first(0.39) == float("inf")


def test_both_arms_train_what_they_say(hms_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    options = ["--data", str(hms_folder), "--space", str(path), "--trials", "3", "--seeds", "0", "--tolerance", "9"]
    lines = list(time_to_kl.run(options))
    alone, racing = (line for line in lines if "members" in line)
    assert "9.0 folds" in alone and "of 3 members" in alone, "three trials of three folds"
    folds, members = (float(racing.split(word)[0].split()[-1]) for word in (" folds", " members"))
    assert members <= 2 and folds == 3 + 2 * members, "one fold of each trial, two more of each finalist"
    assert lines[-1].startswith("median time ratio ")


def test_without_data_it_says_how_to_get_some(monkeypatch):
    monkeypatch.delenv("HMS_RAY_DATA", raising=False)
    with pytest.raises(ConfigError, match="no data: give --data DIR"):
        list(time_to_kl.run([]))
