"""Strides of networks for waves: chosen by the length of the wave, so that all waves end with a similar length."""

import math


def strides(steps: int, layers: int, limit: int) -> list[int]:
    """Return a stride for each layer, powers of two in descending order, that leave at most `limit` steps."""
    halvings = max(0, math.ceil(math.log2(steps / limit)))
    share, rest = divmod(halvings, layers)
    return [2 ** (share + (i < rest)) for i in range(layers)]
