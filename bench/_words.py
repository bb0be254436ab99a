"""The words of a bench's lines: ratios with their goals, rates, differences and sizes."""

from collections.abc import Mapping

import numpy as np


def ratio(name: str, value: float, goal: str | None = None) -> str:
    """Return the line of a ratio."""
    return f"  {name}: {value:.2f}" + (f" (goal: {goal})" if goal else "")


def per_second(rates: Mapping[str, float], what: str) -> str:
    """Return the rates behind each other."""
    return f"{what}/s: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())


def differs(difference: np.ndarray) -> str:
    """Return how large differences are."""
    return f"99.9 % differ by at most {np.percentile(difference, 99.9):.1e}, all by at most {difference.max():.1e}"


def mb(count: int) -> str:
    """Return bytes in megabytes."""
    return f"{count / 1e6:.0f} MB"
