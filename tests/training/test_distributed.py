"""What the workers of a fold decide, they decide together."""

import pytest
import torch

from hms_ray.core.errors import TrialFailed
from hms_ray.training.distributed import Replica, Team

CPU = torch.device("cpu")


class Pair(Team):
    """Two workers, of which the other has met a failure or not."""

    def __init__(self, other_fails):
        self.other_fails = other_fails

    def mean(self, value):
        return (value + float(self.other_fails)) / 2


def failing(replica):
    with replica.together():
        raise TrialFailed("too large")


def passing(replica):
    with replica.together():
        return "done"


@pytest.mark.parametrize("replica", [Replica(CPU), Replica(CPU, 0, 2, Pair(False)), Replica(CPU, 1, 2, Pair(True))])
def test_a_worker_that_fails_says_so_itself(replica, caplog):
    with pytest.raises(TrialFailed, match=r"^too large$"):
        failing(replica)
    assert "too large" in caplog.messages


def test_the_failure_of_another_is_raised_here_too():
    with pytest.raises(TrialFailed, match="another worker of this fold failed"):
        passing(Replica(CPU, 0, 2, Pair(True)))


@pytest.mark.parametrize("replica", [Replica(CPU), Replica(CPU, 0, 2, Pair(False))])
def test_where_none_fails_all_go_on(replica):
    assert passing(replica) == "done"


def test_other_errors_do_not_wait_for_the_others():
    with pytest.raises(OSError, match="disk"), Replica(CPU, 0, 2, Pair(True)).together():
        raise OSError("disk")
