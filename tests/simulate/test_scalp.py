"""The head is symmetric, and a source is seen best where it lies."""

from itertools import pairwise

import numpy as np
import pytest

from hms_ray.simulate import _scalp


def test_sides_are_mirror_images() -> None:
    for left, right in (("Fp1", "Fp2"), ("F7", "F8"), ("T3", "T4"), ("T5", "T6"), ("O1", "O2"), ("P3", "P4")):
        x, y = _scalp.POSITIONS[_scalp.index(left)]
        assert _scalp.POSITIONS[_scalp.index(right)].tolist() == [-x, y]
        assert x < 0


@pytest.mark.parametrize("name", ["T3", "C4", "O2"])
def test_a_source_is_strongest_under_its_electrode(name: str) -> None:
    focus = tuple(_scalp.POSITIONS[_scalp.index(name)])
    field = _scalp.gains(focus, 0.4, laterality=1.0)
    assert field.argmax() == _scalp.index(name)
    assert field.max() == pytest.approx(1)
    assert _scalp.delays(focus, 30.0, 1.0)[_scalp.index(name)] == 0


def test_without_laterality_both_sides_are_alike() -> None:
    field = _scalp.gains((-0.7, 0.1), 0.4, laterality=0.0)
    assert field[_scalp.index("T3")] == pytest.approx(field[_scalp.index("T4")])


def test_chain_pairs_are_neighbours_front_to_back() -> None:
    signal = np.arange(19.0)[:, None]
    pairs = _scalp.chain_pairs(signal, "LL")[:, 0]
    names = ["Fp1", "F7", "T3", "T5", "O1"]
    assert pairs.tolist() == [_scalp.index(a) - _scalp.index(b) for a, b in pairwise(names)]


def test_neighbours_share_background_and_far_electrodes_do_not() -> None:
    mixing = _scalp.volume_conduction()
    alike = mixing @ mixing.T
    np.testing.assert_allclose(np.diag(alike), 1, rtol=1e-5)
    assert alike[_scalp.index("C3"), _scalp.index("Cz")] > 0.4 > 0.05 > alike[_scalp.index("Fp1"), _scalp.index("O2")]


def test_mixing_is_a_matrix_product() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((5, 3)) * (rng.random((5, 3)) < 0.6)
    sources = rng.standard_normal((3, 40))
    np.testing.assert_allclose(_scalp.mix(matrix, sources), matrix @ sources, atol=1e-5)
