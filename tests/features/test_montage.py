"""Montages: which electrode is subtracted from which, how pairs are named and mirrored, and what a gap reaches."""

from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch

from hms_ray.core.recordings import EEG
from hms_ray.core.specs import Panels
from hms_ray.features import _montage

CHAINS = {
    "banana_16": ("Fp1 F7 T3 T5 O1", "Fp1 F3 C3 P3 O1", "Fp2 F8 T4 T6 O2", "Fp2 F4 C4 P4 O2"),
    "banana_18": ("Fp1 F7 T3 T5 O1", "Fp1 F3 C3 P3 O1", "Fp2 F8 T4 T6 O2", "Fp2 F4 C4 P4 O2", "Fz Cz Pz"),
    "half_chains": ("Fp1 T3 O1", "Fp1 C3 O1", "Fp2 T4 O2", "Fp2 C4 O2"),
}
PAIRS = {montage: [pair for chain in chains for pair in pairwise(chain.split())] for montage, chains in CHAINS.items()}
each = pytest.mark.parametrize("montage", get_args(_montage.Montage))


@pytest.fixture
def eeg() -> torch.Tensor:
    """Two recordings (2, 20, 50) of noise."""
    return torch.randn(2, len(EEG.channels), 50, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("montage", PAIRS)
def test_a_pair_is_the_difference_of_its_electrodes(montage: _montage.Montage, eeg: torch.Tensor) -> None:
    waves = _montage.apply(eeg, montage)
    assert waves.shape[1] == len(PAIRS[montage]) == len(_montage.names(montage))
    for i, pair in enumerate(PAIRS[montage]):
        plus, minus = (EEG.channels.index(name) for name in pair)
        torch.testing.assert_close(waves[:, i], eeg[:, plus] - eeg[:, minus])


def test_a_pair_is_named_by_its_chain_and_place() -> None:
    chains = [f"{chain}{i}" for chain in ("LL", "LP", "RL", "RP") for i in range(1, 5)]
    assert _montage.names("banana_18") == (*chains, "ZC1", "ZC2")
    assert _montage.names("half_chains") == ("LL1", "LL2", "LP1", "LP2", "RL1", "RL2", "RP1", "RP2")


def test_an_electrode_is_named_by_its_side_and_the_left_one_of_its_kind() -> None:
    named = dict(zip(EEG.channels, _montage.names("referential"), strict=False))
    assert len(named) == 19 and "EKG" not in named
    assert [named[name] for name in ("F7", "F8", "T6", "O2", "Fz")] == ["LF7", "RF7", "RT5", "RO1", "ZF"]


def test_the_electrodes_as_recorded_and_against_their_mean(eeg: torch.Tensor) -> None:
    torch.testing.assert_close(_montage.apply(eeg, "referential"), eeg[:, :19])
    eeg[0, 3] = torch.nan
    average = _montage.apply(eeg, "average")
    present = [i for i in range(19) if i != 3]
    torch.testing.assert_close(average[0, present], eeg[0, present] - eeg[0, present].mean(0))
    assert average[0, 3].isnan().all() and not average[1].isnan().any()


@each
def test_a_mirrored_head_gives_the_mirrored_channels(
    montage: _montage.Montage, eeg: torch.Tensor, mirrored_head: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    order = Panels("C", _montage.names(montage)).mirrored()
    torch.testing.assert_close(
        _montage.apply(mirrored_head(eeg), montage), _montage.apply(eeg, montage)[:, list(order)]
    )


@each
def test_an_electrode_without_values_takes_only_its_channels_along(
    montage: _montage.Montage, eeg: torch.Tensor
) -> None:
    eeg[:, EEG.channels.index("T3"), :20] = torch.nan
    lost = _montage.apply(eeg, montage).isnan().any(-1)[0]
    channels = PAIRS.get(montage, [(name,) for name in EEG.channels[:19]])
    assert lost.tolist() == ["T3" in electrodes for electrodes in channels]


@pytest.mark.parametrize("steps", [10_000, 5_999, 4_321, 1_999, 100, 1])
@each
def test_the_waves_are_without_level_and_clipped(
    montage: _montage.Montage, steps: int, levelled: Callable[..., np.ndarray]
) -> None:
    eeg = 300 * torch.randn(1, 20, steps, generator=torch.Generator().manual_seed(0)).cumsum(-1) / steps**0.5
    eeg += torch.linspace(0, 6000, 20)[:, None]
    eeg[:, 3, : steps // 3], eeg[:, 5] = torch.nan, torch.nan
    kept = eeg.clone()
    found = _montage.waves(eeg, montage, 200.0)
    assert torch.equal(found, found.clamp(-200, 200)) and ((found.abs() == 200).any() or steps < 1000)
    np.testing.assert_allclose(found.numpy(), levelled(eeg, montage, 200.0), atol=0.02)
    assert torch.equal(eeg.nan_to_num(7), kept.nan_to_num(7)), "what was given stays as it was"


def test_what_is_flat_becomes_exactly_zero_whatever_its_offset() -> None:
    eeg = torch.full((1, 20, 10_000), 0.1) + torch.linspace(-9000, 9000, 20)[:, None]
    assert not _montage.waves(eeg, "banana_18", 1024.0).any()


def test_an_offset_a_drift_and_an_artefact_leave_the_rest_of_a_channel_as_it_is() -> None:
    t = torch.arange(10_000) / 200
    eeg = torch.zeros(1, 20, 10_000)
    eeg[0, 5] = 40 * torch.sin(2 * torch.pi * 3 * t)
    plain = _montage.waves(eeg, "referential", 1024.0)[0, 5]
    assert (plain - eeg[0, 5]).abs().max() < 4
    other = eeg.clone()
    other[0, 5] += 1500 + 60 * t
    other[0, 5, 5000:5020] += 8000
    found = _montage.waves(other, "referential", 1024.0)[0, 5]
    rest = torch.ones(10_000, dtype=torch.bool)
    rest[5000:5020] = False
    assert (found - plain)[rest].abs().max() < 8 and (found[5000:5020] == 1024).all()
