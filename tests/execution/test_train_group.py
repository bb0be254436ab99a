"""What a rank of the worker group does with a fold that fails; tests/search/test_driver.py runs whole groups."""

from types import SimpleNamespace

import pytest
import torch

from hms_ray.crossval import FoldJob
from hms_ray.errors import TrialFailed
from hms_ray.execution import train_group
from hms_ray.execution.mailbox import FoldFailed
from hms_ray.training.loop import Replica

JOB = FoldJob("toy-0000", {}, 1, None, None)
MAILBOX = SimpleNamespace()


def failing(error):
    """Return a training that fails."""

    def train_job(*_):
        raise error

    return train_job


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TrialFailed("the training loss became nan in epoch 3"), "the training loss became nan in epoch 3"),
        (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory (test_train_group.py:"),
    ],
)
def test_a_fold_that_fails_alone_is_posted_with_its_cause(monkeypatch, error, cause):
    monkeypatch.setattr(train_group, "train_job", failing(error))
    message = train_group._train(JOB, None, Replica(torch.device("cpu")), MAILBOX)
    assert isinstance(message, FoldFailed)
    assert (message.trial, message.fold) == ("toy-0000", 1)
    assert message.cause.startswith(cause)


def test_ranks_that_wait_for_each_other_need_a_new_group(monkeypatch):
    monkeypatch.setattr(train_group, "train_job", failing(RuntimeError("CUDA out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        train_group._train(JOB, None, Replica(torch.device("cpu"), rank=1, size=2), MAILBOX)


def test_a_fold_that_all_ranks_give_up_is_posted(monkeypatch):
    monkeypatch.setattr(train_group, "train_job", failing(TrialFailed("no")))
    message = train_group._train(JOB, None, Replica(torch.device("cpu"), rank=1, size=2), MAILBOX)
    assert message == FoldFailed("toy-0000", 1, "no")
