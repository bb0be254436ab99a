"""The bench of copying a store to a node: it runs, on a small scale, by both ways in which chunks travel."""

import os
import re

import pytest


@pytest.mark.skipif(not os.environ.get("HMS_RAY_CHAOS"), reason="starts a cluster; HMS_RAY_CHAOS=1 runs it")
def test_both_ways_copy_the_store_beside_a_plain_copy(bench_named, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    options = ["--gb", "0.02", "--rounds", "1", "--folder", str(tmp_path), "--ways", "connection", "objects"]
    lines = list(bench_named("store_copy").run(options))
    assert lines[0] == "a store of 0.02 GB, copied 1 times"
    for way in ("connection", "objects"):
        assert any(re.fullmatch(rf"{way}: [\d.]+ s, plain socket [\d.]+ s, ratio [\d.]+", line) for line in lines), (
            lines
        )
    assert not list(tmp_path.iterdir()), "it leaves nothing"
