"""Montages: which electrodes are subtracted from which, and how the channels that result are named.

Channels are picked by index and never by a matrix, for NaN times zero is NaN: one electrode without contact would take
every channel with it.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch

from hms_ray.core.recordings import EEG, LEFT, MIDLINE, RIGHT

Banana = Literal["banana_16", "banana_18"]
Montage = Literal[Banana, "half_chains", "referential", "average"]

KNOT_STEPS = 2000  # of which a channel's level is the median: 10 s
MEDIAN_STRIDE = 5  # every so many-th step is asked for it

ELECTRODES = (*LEFT, *MIDLINE, *RIGHT)  # of the scalp: all channels but EKG
HOMOLOGUES = dict(zip(LEFT, RIGHT, strict=True))
LATERAL, PARASAGITTAL = ("Fp1", "F7", "T3", "T5", "O1"), ("Fp1", "F3", "C3", "P3", "O1")


def _both_sides(lateral: tuple[str, ...], parasagittal: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the four chains that two of the left side make, in the order of `recordings.PANELS`."""
    left = {"L": lateral, "P": parasagittal}
    return {
        **{f"L{place}": chain for place, chain in left.items()},
        **{f"R{place}": tuple(HOMOLOGUES[name] for name in chain) for place, chain in left.items()},
    }


# A chain's pairs are its neighbours. Over a whole chain they add up to Fp1-O1, whichever way it goes: hence halves.
CHAINS: dict[Montage, dict[str, tuple[str, ...]]] = {
    "banana_16": _both_sides(LATERAL, PARASAGITTAL),
    "banana_18": {**_both_sides(LATERAL, PARASAGITTAL), "ZC": MIDLINE},
    "half_chains": _both_sides(("Fp1", "T3", "O1"), ("Fp1", "C3", "O1")),
}


def names(montage: Montage) -> tuple[str, ...]:
    """Return the channels' names: side first, as `specs.Panels` wants them.

    A pair is its chain and its place there (LL1 is Fp1-F7), an electrode its side and the left homologue's name
    (RF7 is F8), one of the midline Z and its region (ZF is Fz).
    """
    if montage in CHAINS:
        return tuple(f"{chain}{i}" for chain, path in CHAINS[montage].items() for i in range(1, len(path)))
    return tuple(f"L{name}" for name in LEFT) + tuple(f"Z{name[0]}" for name in MIDLINE) + tuple(f"R{n}" for n in LEFT)


def apply(eeg: torch.Tensor, montage: Montage) -> torch.Tensor:
    """Return a montage (B, P, T) of recordings (B, 20, T), in microvolts; NaN where an electrode that it needs is."""
    if montage in CHAINS:
        plus, minus = _pairs(montage, eeg.device)
        return eeg.index_select(1, plus).sub_(eeg.index_select(1, minus))
    electrodes = eeg[:, : len(ELECTRODES)]
    return electrodes - electrodes.nanmean(1, keepdim=True) if montage == "average" else electrodes


def waves(eeg: torch.Tensor, montage: Montage, clip_uv: float) -> torch.Tensor:
    """Return the channels (B, P, T) of a montage without their level, between -clip_uv and clip_uv.

    An electrode's offset says nothing, but a limit around zero would cut off all that lies on it. What is limited is
    therefore a channel's distance from its own level: the medians of every ten seconds, joined by straight lines,
    which neither an artefact nor the EEG's waves move. Gaps, and channels without any value, become 0.
    """
    channels = apply(eeg, montage)
    count = max(1, channels.shape[-1] // KNOT_STEPS)
    size = channels.shape[-1] // count
    parts = channels[..., : count * size].unflatten(-1, (count, size))
    knots = parts[..., ::MEDIAN_STRIDE].nanmedian(-1).values  # (B, P, count)
    level = knots.nanmedian(-1, keepdim=True).values.nan_to_num()
    channels = channels - level  # apart from the drift, so that a channel of one value becomes exactly 0
    drift = (knots - level).nan_to_num() @ _lines(count, size, channels.shape[-1], eeg.device)
    return channels.sub_(drift).clamp_(-clip_uv, clip_uv).nan_to_num_()


@lru_cache
def _lines(count: int, size: int, steps: int, device: torch.device) -> torch.Tensor:
    """Return the weights (count, steps) of straight lines through values at the middles of `count` parts."""
    if count == 1:
        return torch.ones(1, steps, device=device)
    place = (torch.arange(steps, dtype=torch.float64) + 0.5) / size - 0.5
    left = place.floor().clamp(0, count - 2)  # beyond the outer middles the outer lines go on
    number = torch.arange(count, dtype=torch.float64)[:, None]
    weights = (number == left) * (1 - (place - left)) + (number == left + 1) * (place - left)
    return weights.to(device, torch.float32)


@lru_cache
def _pairs(montage: Montage, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first and the second electrode of each pair, as indices of channels."""
    pairs = [pair for path in CHAINS[montage].values() for pair in pairwise(path)]
    plus, minus = ([EEG.channels.index(name) for name in side] for side in zip(*pairs, strict=True))
    return torch.tensor(plus, device=device), torch.tensor(minus, device=device)
