"""Time alternatives in turns, so that whatever else the machine does falls on all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def side_by_side(candidates: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, tuple[float, Any]]:
    """Run every candidate once a round; return the median seconds and the last result of each."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    results = {}
    for _ in range(repetitions):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            results[name] = candidate()
            seconds[name].append(time.perf_counter() - start)
    return {name: (statistics.median(seconds[name]), results[name]) for name in candidates}
