"""The bench of features: each part runs, on a small scale, and the numbers it compares are the same."""

import os
import re

import pytest

from hms_ray.core.errors import ConfigError

PERCENTILE = re.compile(r"99\.9 % differ by at most ([0-9.e+-]+), all by at most ([0-9.e+-]+)")


@pytest.fixture
def lines_of(bench_named, hms_folder, tmp_path, monkeypatch):
    """Return the lines of one part: few recordings, small batches, one round."""
    features = bench_named("features")
    monkeypatch.setattr(bench_named("_mel"), "COMPARED", 2)
    monkeypatch.setattr(bench_named("_preparing").workers, "THREADS", 2)
    small = [
        "--data",
        str(hms_folder),
        "--rounds",
        "1",
        "--eegs",
        "4",
        "--batch",
        "4",
        "--steps",
        "1",
        "--passes",
        "1",
        "--threads",
        "1",
    ]
    return lambda part: list(features.run([*small, "--part", part]))


def ratios(lines: list[str]) -> dict[str, float]:
    """Return the ratios by what is compared."""
    found = [re.fullmatch(r"  (.+ / .+): ([0-9.]+)(?: \(goal: .+\))?", line) for line in lines]
    return {match[1]: float(match[2]) for match in found if match}


def differences(lines: list[str], name: str) -> tuple[float, float]:
    """Return the 99.9th percentile and the largest difference of the line that begins so."""
    line = next(line for line in lines if line.startswith(f"  {name}"))
    return tuple(float(number) for number in PERCENTILE.search(line).groups())


def test_the_numbers_are_those_of_scipy(lines_of):
    lines = lines_of("mel")
    assert differences(lines, "stft bank")[0] < 1e-2, "quiet bins beside loud ones, in float32"
    assert differences(lines, "eeg_cwt")[0] < 1e-2
    assert differences(lines, "raw_eeg")[1] < 1e-4


def test_the_image_is_that_of_librosa(lines_of):
    pytest.importorskip("librosa")
    lines = lines_of("mel")
    assert differences(lines, "ours from librosa")[0] < 1e-3
    assert differences(lines, "torch.stft from librosa")[1] < 1e-3, "the peer computes the same"
    assert "the bank from librosa's, of its largest weight: at most 0.0e+00" in lines[-4]
    assert len(ratios(lines)) == 2


def test_without_librosa_it_says_how_to_get_it(bench_named, lines_of, monkeypatch):
    monkeypatch.setattr(bench_named("_mel"), "_has_librosa", lambda: False)
    lines = lines_of("mel")
    assert "librosa is not installed" in lines[2] and "pip install" in lines[2]
    assert len(lines) == 6


@pytest.mark.parametrize(("part", "count"), [("read", 8), ("prepare", 14), ("input", 3)])
def test_a_part_has_its_ratios(lines_of, part, count):
    lines = lines_of(part)
    assert lines[1] == part
    assert len(ratios(lines)) == count
    assert min(ratios(lines).values()) > 0


def test_training_is_set_beside_bare_steps(lines_of):
    assert "training / bare steps, cpu" in ratios(lines_of("pipeline"))


@pytest.mark.skipif(not os.environ.get("HMS_RAY_CHAOS"), reason="starts processes; HMS_RAY_CHAOS=1 runs it")
def test_memory_has_the_peaks_of_few_and_of_many(bench_named, lines_of, monkeypatch):
    monkeypatch.setattr(bench_named("_preparing"), "PEAKS", {"recordings": "batch"})
    lines = lines_of("memory")
    assert len(lines) == 3 and lines[2].startswith("  preparing recordings: peak of 4 EEGs")
    few, more = re.search(r"EEGs ([0-9]+) MB, .* ([+-][0-9]+) MB", lines[2]).groups()
    assert int(few) > 50 and abs(int(more)) < int(few)


def test_a_linked_folder_repeats_the_recordings(bench_named, hms_folder, tmp_path):
    place = bench_named("_place")
    dataset = place.hms.load(place.linked(hms_folder, tmp_path / "linked", 15), place.hms.Params())
    assert len(dataset.files("eeg")) == 15
    assert dataset.lengths("eeg")["14"] == 13_200
    assert len(set(dataset.units["unit_id"])) == len(dataset.units)


def test_a_folder_of_different_recordings_repeats_none(bench_named, hms_folder, tmp_path):
    folder = bench_named("_place").linked(hms_folder, tmp_path / "linked", 15, different=True)
    for kind in ("eeg", "spectrogram"):
        files = [link.resolve() for link in (folder / f"train_{kind}s").iterdir()]
        assert len(files) == len(set(files)) == 6, "a spectrogram of each patient, an EEG of each spectrogram"


def test_an_unknown_part_is_refused(bench_named):
    with pytest.raises(ConfigError, match="Did you mean 'memory'"):
        list(bench_named("features").run(["--part", "memry"]))
