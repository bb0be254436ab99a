"""Progress of long work as log lines with an estimate, a few seconds apart."""

import logging
import time

log = logging.getLogger(__name__)


class Progress:
    """Call it with (done, total) after each step; it logs the first, the last, and one line every `every_s` seconds.

    The first call may come with many steps done: those of an earlier run, which say nothing of this one's pace.
    """

    def __init__(self, label: str, every_s: float = 5.0) -> None:
        self.label = label
        self.every_s = every_s
        self.start = time.monotonic()
        self.last = float("-inf")
        self.before: int | None = None

    def __call__(self, done: int, total: int) -> None:
        """Tell how far the work is."""
        now = time.monotonic()
        if self.before is None:
            self.before = max(0, done - 1)
        if done < total and now - self.last < self.every_s:
            return
        self.last = now
        log.info("%s: %d of %d%s", self.label, done, total, self._estimate(done, total, now - self.start))

    def _estimate(self, done: int, total: int, elapsed_s: float) -> str:
        if done >= total:
            return f" in {elapsed_s:.1f} s"
        own = done - (self.before or 0)
        return f", about {elapsed_s / own * (total - done):.0f} s left" if own else ""
