"""Spoilt spaces, overrides, folders of data and tables of predictions: each ends in success or in one sentence.

HMS_RAY_FUZZ=5000 makes as many mutants, HMS_RAY_FUZZ_SEED others.
"""

import contextlib
import os
import time
from pathlib import Path

import pytest

from hms_ray.core.errors import ConfigError
from tests.fuzz import fuzzer

MUTANTS = int(os.environ.get("HMS_RAY_FUZZ", 300))
SEED = int(os.environ.get("HMS_RAY_FUZZ_SEED", 0))


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the sound inputs, which are made once."""
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("kind", fuzzer.KINDS)
def test_every_mutant_ends_in_success_or_in_one_sentence(kind: str, bed: Path) -> None:
    found = fuzzer.fuzz(bed, kind, range(round(MUTANTS * fuzzer.SHARES[kind])), SEED)
    assert not found.faults, "\n".join(found.faults)
    assert found.ended["refused"] > 0, "no mutant was spoilt"


def _raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("use", "ended"),
    [
        (lambda: None, "done"),
        (lambda: _raises(ConfigError("space a: b is missing")), "refused"),
        (lambda: Path("/no/such/file").read_text(), "refused"),
        (lambda: _raises(ConfigError("line\n" * 100)), "wordy"),
        (lambda: _raises(ConfigError("x" * 9000)), "wordy"),
        (lambda: _raises(ConfigError("")), "wordy"),
        (lambda: {}["a"], "traceback"),
        (lambda: _raises(OSError("no path")), "traceback"),
    ],
)
def test_what_a_fault_is(use: object, ended: str) -> None:
    assert fuzzer.outcome(use)[0] == ended


def test_what_takes_too_long_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzer, "SECONDS", 0.05)

    def spin() -> None:
        while True:
            with contextlib.suppress(Exception):  # a hang is none of these
                time.perf_counter()

    assert fuzzer.outcome(spin)[0] == "hang"


def test_a_mutant_is_made_again_from_its_name(bed: Path, tmp_path: Path) -> None:
    made = []
    for attempt in ("a", "b"):
        for kind in ("text", "tree", "set"):
            folder = tmp_path / attempt / kind
            folder.mkdir(parents=True)
            fuzzer.KINDS[kind](fuzzer.Bed(bed), folder, fuzzer.Random(f"7/{kind}/3"))
        files = sorted((tmp_path / attempt).rglob("*.*"))
        made.append([(file.name, file.read_bytes()) for file in files])
    assert made[0] == made[1] and len(made[0]) == 3
