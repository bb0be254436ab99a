"""The actor between workers and the driver: it holds messages of workers until the driver has written them, and answers
of the driver until a worker asks for them.

Ray's own reports are no channel for this: Tune writes them as JSON, and in a Train group each is a barrier over all
ranks. The driver is the only writer of the study folder, so that a cluster needs no shared disk for it.
"""

import asyncio
from collections.abc import Callable

import ray

from hms_ray.execution.events import Ended, EpochWeights, Message

Fold = tuple[str, int]  # trial and number


@ray.remote(num_cpus=0)
class Mailbox:
    """Messages to the driver in the order they came; its answers by trial and fold, or by question."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.outcomes: dict[Fold, bool] = {}
        self.decisions: dict[Fold, bool] = {}
        self.answers: dict[str, bytes | None] = {}
        self.changed = asyncio.Condition()

    async def post(self, message: Message) -> None:
        """Take a message; weights only once the driver has those that came before, since they are large."""
        async with self.changed:
            if isinstance(message, EpochWeights):
                await self.changed.wait_for(lambda: not any(isinstance(m, EpochWeights) for m in self.messages))
            self.messages.append(message)
            if isinstance(message, Ended) and message.is_trained is not None:
                self.outcomes[message.trial, message.fold] = message.is_trained
            self.changed.notify_all()

    async def drain(self, wait_s: float) -> list[Message]:
        """Return all messages and forget them; wait for one if there is none."""
        await self._until(lambda: bool(self.messages), wait_s)
        async with self.changed:
            messages, self.messages = self.messages, []
            self.changed.notify_all()
        return messages

    async def outcome(self, trial: str, fold: int) -> bool | None:
        """Whether a fold is trained; None: it has not ended, or its worker was lost and another shall begin it."""
        return self.outcomes.get((trial, fold))

    async def close(self, trial: str, fold: int) -> None:
        """Record a fold as failed, whatever its worker still does."""
        self.outcomes[trial, fold] = False

    async def decide(self, trial: str, fold: int, goes_on: bool) -> None:
        """Record whether a trial continues after a fold."""
        async with self.changed:
            self.decisions[trial, fold] = goes_on
            self.changed.notify_all()

    async def goes_on(self, trial: str, fold: int) -> bool:
        """Wait for the driver's decision."""
        async with self.changed:
            await self.changed.wait_for(lambda: (trial, fold) in self.decisions)
        return self.decisions[trial, fold]

    async def give(self, question: str, work: bytes | None) -> None:
        """Answer a request with pickled work, so that this process need not load what a worker loads; None: no more."""
        async with self.changed:
            self.answers[question] = work
            self.changed.notify_all()

    async def take(self, question: str, wait_s: float) -> tuple[bool, bytes | None]:
        """Return whether there is an answer, and the work, pickled."""
        await self._until(lambda: question in self.answers, wait_s)
        return question in self.answers, self.answers.pop(question, None)

    async def _until(self, condition: Callable[[], bool], wait_s: float) -> None:
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(condition), wait_s)
            except TimeoutError:
                return
