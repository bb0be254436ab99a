"""Checkpoints: round trip, nothing hostile runs, nothing broken is read, weights as safetensors."""

import io
import os
import pickle

import numpy as np
import pytest
import torch

from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.training import checkpoint

STATE = {"of": "run", "epoch": 3, "curve": [{"score": float("nan"), "fold": 1}], "model": {"w": torch.arange(6.0)}}


def test_a_state_comes_back_as_it_was(tmp_path):
    path = tmp_path / "new folder" / "checkpoint.pt"
    checkpoint.save(path, STATE)
    state = checkpoint.load(path, "run")
    assert (state["epoch"], state["curve"][0]["fold"]) == (3, 1)
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_an_optimisers_state_comes_back(tmp_path):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path / "c", {"of": "run", "optimizer": optimizer.state_dict()})
    fresh = torch.optim.AdamW([weight], lr=0.5)
    fresh.load_state_dict(checkpoint.load(tmp_path / "c", "run")["optimizer"])
    assert fresh.param_groups[0]["lr"] == 0.1
    assert torch.equal(fresh.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg"])


def test_no_file_and_another_runs_file_are_no_state(tmp_path):
    assert checkpoint.load(tmp_path / "none", "run") is None
    checkpoint.save(tmp_path / "c", STATE)
    assert checkpoint.load(tmp_path / "c", "other run") is None


def test_a_checkpoint_cut_anywhere_is_no_state(tmp_path):
    checkpoint.save(tmp_path / "whole", STATE)
    content = (tmp_path / "whole").read_bytes()
    for size in [*range(0, 80), *range(80, len(content) - 1, 97)]:
        (tmp_path / "cut").write_bytes(content[:size])
        assert checkpoint.load(tmp_path / "cut", "run") is None, f"{size} of {len(content)} bytes"


def test_a_checkpoint_with_a_changed_byte_is_no_state(tmp_path):
    checkpoint.save(tmp_path / "whole", STATE)
    content = (tmp_path / "whole").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
        (tmp_path / "cut").write_bytes(damaged)
        assert checkpoint.load(tmp_path / "cut", "run") is None


@pytest.mark.parametrize("content", [b"", b"\x80", b"hello", b"PK\x03\x04", bytes(1000), pickle.dumps([1, 2])])
def test_other_files_are_no_state(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    assert checkpoint.load(tmp_path / "c", "run") is None


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"PK\x03\x04" + bytes(100), pickle.dumps([1, 2])])
def test_a_right_digest_of_no_state_is_no_state_and_is_named(tmp_path, caplog, content):
    (tmp_path / "c").write_bytes(files.fingerprint(content).encode() + content)
    assert checkpoint.load(tmp_path / "c", "run") is None
    assert f"{tmp_path / 'c'} holds no state that hms-ray wrote; the fold begins anew" in caplog.text


class Hostile:
    """What runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_never_runs(tmp_path):
    trap, path = tmp_path / "ran", tmp_path / "c"
    checkpoint.save(path, {"of": "run", "model": Hostile(trap)})  # as someone would who knows the format
    assert checkpoint.load(path, "run") is None
    assert not trap.exists()
    torch.load(io.BytesIO(path.read_bytes()[checkpoint.DIGEST_BYTES :]), weights_only=False)
    assert trap.exists(), "the trap works: what is tested above is that nobody stepped on it"


def test_a_folder_in_the_place_of_a_checkpoint_is_no_state(tmp_path):
    assert checkpoint.load(tmp_path, "run") is None


def test_weights_come_back_bit_for_bit(tmp_path):
    image = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    weights = {"a": image, "n": torch.tensor(3), "h": torch.randn(3).half(), "p": torch.nn.Parameter(torch.ones(2))}
    (tmp_path / "w").write_bytes(checkpoint.pack(weights))
    back = checkpoint.unpack(tmp_path / "w")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) and back[name].dtype == weights[name].dtype for name in weights)


def test_tensors_that_share_memory_are_kept_and_others_are_not_copied(tmp_path, monkeypatch):
    base, cloned = torch.arange(12.0).reshape(3, 4), []
    weights = {"own": torch.ones(3), "tied": base, "twin": torch.nn.Parameter(base), "part": base[1:], "none": base[:0]}
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, **how: cloned.append(self.shape) or clone(self, **how))
    (tmp_path / "w").write_bytes(checkpoint.pack(weights))
    assert cloned == [weights[name].shape for name in ("twin", "part", "none")]
    back = checkpoint.unpack(tmp_path / "w")
    assert back.keys() == weights.keys() and all(torch.equal(back[name], weights[name]) for name in weights)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(DataError, match=r"model.safetensors: no such file; the weights of this fold were not kept"):
        checkpoint.unpack(tmp_path / "model.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_broken_weights_are_named(tmp_path, keep):
    path = tmp_path / "model.safetensors"
    path.write_bytes(checkpoint.pack({"a": torch.ones(30)})[:keep])
    with pytest.raises(DataError, match=r"model.safetensors: broken weights"):
        checkpoint.unpack(path)
