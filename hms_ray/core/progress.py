"""Log the progress of long work, with an estimate of the remaining time, every few seconds."""

import logging
import time

log = logging.getLogger(__name__)


class Progress:
    """Call it with (done, total) after each step; it logs the first, the last, and one line every `every_s` seconds.

    Steps done before the first call, in an earlier run, do not count for the estimate.
    """

    def __init__(self, label: str, every_s: float = 5.0) -> None:
        self.label = label
        self.every_s = every_s
        self.start = time.monotonic()
        self.last = float("-inf")
        self.before: int | None = None

    def __call__(self, done: int, total: int) -> None:
        """Log that `done` of `total` steps are done, if it is time."""
        now = time.monotonic()
        if self.before is None:
            self.before = max(0, done - 1)
        if done < total and now - self.last < self.every_s:
            return
        self.last = now
        elapsed_s, steps, estimate = now - self.start, done - self.before, ""
        if done >= total:
            estimate = f" in {elapsed_s:.1f} s"
        elif steps:
            estimate = f", about {elapsed_s / steps * (total - done):.0f} s left"
        log.info("%s: %d of %d%s", self.label, done, total, estimate)
