"""What a line without Ray does about a fold that takes too long."""

import pytest

from hms_ray.core.errors import TrialFailed
from hms_ray.execution.events import EpochDone, FoldBegun, Message, TeacherEpochDone
from hms_ray.execution.local import LocalChannel


class Source:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[Message] = []

    def handle(self, message: Message) -> None:
        self.told.append(message)


@pytest.mark.parametrize("epoch", [EpochDone("toy-0000", {}), TeacherEpochDone("toy-0000", 0)])
@pytest.mark.parametrize("fold_s", [None, 0.0, 60.0])
def test_a_fold_that_takes_too_long_fails_after_an_epoch_its_teachers_too(epoch: Message, fold_s: float | None) -> None:
    channel = LocalChannel(Source(), fold_s)
    channel.post(FoldBegun("toy-0000", 0, 3, None))
    if fold_s == 0:
        with pytest.raises(TrialFailed, match=r"had not ended after 0 minutes \(budget\.fold_minutes\)"):
            channel.post(epoch)
    else:
        channel.post(epoch)
    assert channel.source.told == [FoldBegun("toy-0000", 0, 3, None), epoch]
