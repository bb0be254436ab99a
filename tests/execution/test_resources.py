"""How many folds fit a cluster, and the arithmetic where none does."""

import pytest

from hms_ray.errors import ConfigError
from hms_ray.execution.resources import Request, fitted, folds_at_once


@pytest.mark.parametrize(
    ("request_", "cluster", "expected"),
    [
        (Request(1, 0), {"CPU": 2}, 2),
        (Request(1, 0), {"CPU": 2.9}, 2),
        (Request(2, 0), {"CPU": 7, "GPU": 1}, 3),
        (Request(0.5, 0), {"CPU": 2}, 4),
        (Request(1, 1), {"CPU": 64, "GPU": 8}, 8),
        (Request(16, 1), {"CPU": 64, "GPU": 8}, 4),
        (Request(1, 0.1), {"CPU": 64, "GPU": 1}, 10),
        (Request(1, 0.3), {"CPU": 64, "GPU": 0.9}, 3),
        (Request(1, 1 / 3), {"CPU": 64, "GPU": 1}, 3),
        (Request(1, 1, 4), {"CPU": 64, "GPU": 8}, 2),
        (Request(1, 0, 2), {"CPU": 2}, 1),
        (Request(1, 0.1, 3), {"CPU": 64, "GPU": 0.3}, 1),
    ],
)
def test_the_scarcer_resource_decides(request_, cluster, expected):
    assert folds_at_once(request_, cluster) == expected


@pytest.mark.parametrize(
    ("request_", "cluster", "sentence"),
    [
        (Request(4, 0), {"CPU": 2}, r"1 workers x 4 CPU = 4 CPU, but the cluster has 2"),
        (Request(1, 1), {"CPU": 2}, r"1 workers x 1 GPU = 1 GPU, but the cluster has 0"),
        (Request(1, 0.5, 4), {"CPU": 8, "GPU": 1}, r"4 workers x 0.5 GPU = 2 GPU, but the cluster has 1"),
        (Request(1, 0), {}, r"but the cluster has 0"),
    ],
)
def test_the_impossible_is_refused_with_the_arithmetic(request_, cluster, sentence):
    with pytest.raises(ConfigError, match=sentence):
        folds_at_once(request_, cluster)


@pytest.mark.parametrize(
    ("gpus", "cluster", "expected"),
    [
        (None, {"CPU": 2}, 0.0),
        (None, {"CPU": 2, "GPU": 4}, 1.0),
        (None, {"CPU": 2, "GPU": 0}, 0.0),
        (0, {"CPU": 2, "GPU": 4}, 0),
        (0.25, {"CPU": 2, "GPU": 4}, 0.25),
    ],
)
def test_a_worker_takes_a_gpu_where_there_are_any_unless_told(gpus, cluster, expected):
    assert fitted(1, gpus, 2, cluster) == Request(1, expected, 2)
