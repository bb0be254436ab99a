"""Montages: which electrodes are subtracted from which, and how the channels that result are named.

Channels are picked by index and never by a matrix, for NaN times zero is NaN: one electrode without contact would take
every channel with it.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch

from hms_ray.recordings import EEG, LEFT, MIDLINE, RIGHT

Banana = Literal["banana_16", "banana_18"]
Montage = Literal[Banana, "half_chains", "referential", "average"]

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


def fill_gaps(wave: torch.Tensor) -> torch.Tensor:
    """Put a channel's mean where (..., T) is NaN; a channel without any value becomes 0."""
    return torch.where(wave.isnan(), wave.nanmean(-1, keepdim=True).nan_to_num(), wave)


@lru_cache
def _pairs(montage: Montage, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first and the second electrode of each pair, as indices of channels."""
    pairs = [pair for path in CHAINS[montage].values() for pair in pairwise(path)]
    plus, minus = ([EEG.channels.index(name) for name in side] for side in zip(*pairs, strict=True))
    return torch.tensor(plus, device=device), torch.tensor(minus, device=device)
