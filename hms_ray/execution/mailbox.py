"""How results leave a worker: through an actor that holds them until the driver has written them.

Ray's own reports are no channel for this: Tune writes them as JSON, and in a Train group each is a barrier over all
ranks. The driver is the only writer of the study folder, so that a cluster needs no shared disk for it.
"""

import logging
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from hms_ray.errors import HmsRayError
from hms_ray.training.loop import FoldResult

log = logging.getLogger(__name__)
POLL_S = 0.3


@dataclass(frozen=True)
class EpochDone:
    """One more row of a learning curve."""

    trial: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class FoldDone:
    """A fold is trained."""

    trial: str
    result: FoldResult


@dataclass(frozen=True)
class FoldFailed:
    """A fold cannot be trained, and why."""

    trial: str
    fold: int
    cause: str


Message = EpochDone | FoldDone | FoldFailed


def cause_of(error: Exception) -> str:
    """Return the sentence of our own errors, or the last line and place of a foreign one."""
    if isinstance(error, HmsRayError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds messages in the order they came."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ended: set[tuple[str, int]] = set()

    def post(self, message: Message) -> None:
        """Take a message."""
        self.messages.append(message)
        if isinstance(message, FoldDone):
            self.ended.add((message.trial, message.result.fold))
        if isinstance(message, FoldFailed):
            self.ended.add((message.trial, message.fold))

    def drain(self) -> list[Message]:
        """Give all messages away."""
        messages, self.messages = self.messages, []
        return messages

    def has_ended(self, trial: str, fold: int) -> bool:
        """Whether a fold is done or has failed: a restarted worker need not repeat it."""
        return (trial, fold) in self.ended


class Collector:
    """Hands each message to `handle` while the driver waits for Ray; use it as a context.

    What `handle` raises (a full disk) is raised again by `flush` and on leaving.
    """

    def __init__(self, handle: Callable[[Message], None]) -> None:
        self.mailbox = Mailbox.remote()
        self.handle = handle
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.fault: Exception | None = None
        self.thread = threading.Thread(target=self._poll, name="collector", daemon=True)

    def __enter__(self) -> "Collector":
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.over.set()
        self.thread.join()
        if kind is None:
            self.flush()
        ray.kill(self.mailbox)

    def flush(self) -> None:
        """Handle everything posted so far."""
        self._collect()
        self.check()

    def check(self) -> None:
        """Raise what `handle` raised, if it did."""
        if self.fault:
            raise self.fault

    def _poll(self) -> None:
        while not self.over.wait(POLL_S) and self.fault is None:
            self._collect()

    def _collect(self) -> None:
        with self.lock:
            try:
                for message in ray.get(self.mailbox.drain.remote()):
                    self.handle(message)
            except Exception as error:
                self.fault = self.fault or error
