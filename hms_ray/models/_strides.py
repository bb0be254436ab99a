"""How networks of waves shorten them: every layer takes its share, so that short and long waves end alike."""

import math


def strides(steps: int, layers: int, limit: int) -> list[int]:
    """Return a power of two for each layer, the first the largest, that leave at most `limit` of the steps."""
    halvings = max(0, math.ceil(math.log2(steps / limit)))
    share, rest = divmod(halvings, layers)
    return [2 ** (share + (i < rest)) for i in range(layers)]
