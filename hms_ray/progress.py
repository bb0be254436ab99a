"""Progress of long work as log lines with an estimate, a few seconds apart."""

import logging
import time

log = logging.getLogger(__name__)


class Progress:
    """Call it with (done, total) after each step; it logs the first, the last, and one line every `every_s` seconds."""

    def __init__(self, label: str, every_s: float = 5.0) -> None:
        self.label = label
        self.every_s = every_s
        self.start = time.monotonic()
        self.last = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        """Tell how far the work is."""
        now = time.monotonic()
        if done < total and now - self.last < self.every_s:
            return
        self.last = now
        log.info("%s: %d of %d%s", self.label, done, total, self._estimate(done, total, now - self.start))

    @staticmethod
    def _estimate(done: int, total: int, elapsed_s: float) -> str:
        if done >= total:
            return f" in {elapsed_s:.1f} s"
        return f", about {elapsed_s / done * (total - done):.0f} s left" if done else ""
