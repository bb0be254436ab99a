"""Where the windows of units lie: the one that is scored, and those that training may see."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.core import recordings
from hms_ray.core.recordings import RecordingKind
from hms_ray.datasets import Windows, cut, first_step, hms

TINY = RecordingKind("tiny", ("a", "b"), rate_hz=2.0, window_s=3.0, outlier=9.0)

# two units: windows at 0, 4 and 20 s, of which the second follows the first; and one window at 7 s
WINDOWS = Windows(
    names=np.array(["x", "y"]),
    middle_s=np.array([8.0, 7.0]),
    first=np.array([0, 3, 4]),
    start_s=np.array([0.0, 4.0, 20.0, 7.0]),
    slack_s=np.array([4.0, 0.0, 0.0, 0.0]),
)


def _load(folder: Path, offsets: dict[int, list[float]], votes: dict[int, list[int]], rows: str) -> hms.HmsDataset:
    """Load a table of EEGs whose windows have those offsets, and votes for the class of that number."""
    folder.mkdir()
    table = []
    for eeg, starts in offsets.items():
        for sub, (start, vote) in enumerate(zip(starts, votes[eeg], strict=True)):
            keys = dict(zip(hms.KEYS, (eeg, sub, 7, eeg % 100), strict=True))
            counts = {name: 3 * (vote == c) for c, name in enumerate(hms.VOTES)}
            table.append(keys | dict(zip(hms.OFFSETS, (start, start + 100), strict=True)) | counts)
    pd.DataFrame(table).to_csv(folder / "train.csv", index=False)
    return hms.load(folder, hms.Params(rows=rows))


def test_the_last_window_is_the_latest_of_any() -> None:
    np.testing.assert_array_equal(WINDOWS.last_s, [20, 7])


def test_chance_chooses_the_window_and_where_in_its_slack() -> None:
    rows, chosen = np.array([0, 0, 0, 0, 0, 1]), np.array([0, 0.3, 0.34, 0.67, 0.999, 0.5])
    starts = WINDOWS.draw(rows, chosen, np.array([0, 0.5, 0.5, 0.5, 0.999, 0.9]))
    np.testing.assert_allclose(starts, [0, 2, 4, 20, 20, 7])


def test_a_number_that_was_rounded_up_to_one_is_the_last_window() -> None:
    np.testing.assert_array_equal(WINDOWS.draw(np.array([0, 1]), np.array([1.0, 1.0]), np.array([1.0, 1.0])), [20, 7])


def test_the_middle_is_the_mean_and_slack_reaches_to_the_next_window_of_the_unit(tmp_path: Path) -> None:
    dataset = _load(tmp_path / "a", {11: [0, 6, 10.5, 30]}, {11: [0, 0, 1, 0]}, "period")
    windows = dataset.windows["eeg"]
    np.testing.assert_array_equal(windows.middle_s, [3, 10.5, 30])
    np.testing.assert_array_equal(windows.first, [0, 2, 3, 4])
    np.testing.assert_array_equal(windows.start_s, [0, 6, 10.5, 30])
    np.testing.assert_array_equal(windows.slack_s, [6, 0, 0, 0])
    np.testing.assert_array_equal(dataset.windows["spectrogram"].middle_s, [103, 110.5, 130])
    np.testing.assert_array_equal(dataset.windows["spectrogram"].slack_s, windows.slack_s)


def test_a_labels_windows_need_not_follow_each_other(tmp_path: Path) -> None:
    windows = _load(tmp_path / "a", {11: [0, 6, 10.5, 30, 33]}, {11: [0, 0, 1, 0, 0]}, "label").windows["eeg"]
    np.testing.assert_array_equal(windows.first, [0, 4, 5])
    np.testing.assert_array_equal(windows.start_s, [0, 6, 30, 33, 10.5])
    np.testing.assert_array_equal(windows.slack_s, [6, 0, 3, 0, 0], "none from 6 s to 30 s: others lie between")
    np.testing.assert_allclose(windows.middle_s, [3, 10.5], err_msg="of its first longest run")
    later = _load(tmp_path / "b", {11: [0, 6, 30, 33, 39]}, {11: [0, 1, 0, 0, 0]}, "label").windows["eeg"]
    np.testing.assert_allclose(later.middle_s, [34, 6], err_msg="of its longest run")


def test_offsets_that_fall_give_no_slack(tmp_path: Path) -> None:
    windows = _load(tmp_path / "a", {11: [8, 2, 5]}, {11: [0, 0, 0]}, "eeg").windows["eeg"]
    np.testing.assert_array_equal(windows.slack_s, [0, 3, 0])
    np.testing.assert_array_equal(windows.last_s, [8])


@pytest.mark.parametrize("rows", ["period", "label", "eeg"])
@pytest.mark.parametrize("seed", range(5))
def test_drawn_windows_lie_in_runs_of_the_units_own(tmp_path: Path, rows: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = {eeg: int(rng.integers(1, 12)) for eeg in range(1000, 1030)}
    offsets = {eeg: np.sort(rng.integers(0, 400, n) / 2).tolist() for eeg, n in count.items()}
    votes = {eeg: rng.integers(0, 3, n).tolist() for eeg, n in count.items()}
    dataset = _load(tmp_path / "a", offsets, votes, rows)
    epochs = np.arange(len(dataset.units)).repeat(200)
    chosen, shift = rng.random((2, len(epochs)))
    drawn = {kind: windows.draw(epochs, chosen, shift) for kind, windows in dataset.windows.items()}
    np.testing.assert_allclose(drawn["spectrogram"] - drawn["eeg"], 100, err_msg="both kinds show the same moment")
    for unit, starts in zip(dataset.units["unit_id"], drawn["eeg"].reshape(-1, 200), strict=True):
        eeg, first = int(unit.split("-")[0]), int(unit.split("-")[1]) if "-" in unit else 0
        runs = _runs(offsets[eeg], votes[eeg], first, rows)
        inside = np.array([(starts >= low) & (starts <= high) for low, high in runs])
        assert inside.any(0).all(), unit
        assert inside.any(1).all(), f"{unit}: each run is drawn from"


def _runs(offsets: list[float], votes: list[int], first: int, rows: str) -> list[tuple[float, float]]:
    """Return from where to where the unit that begins with window `first` has windows without others between."""
    mine = [rows == "eeg" or vote == votes[first] for vote in votes]
    if rows == "period":
        end = next((i for i in range(first, len(votes)) if not mine[i]), len(votes))
        return [(offsets[first], offsets[end - 1])]
    edges = np.flatnonzero(np.diff([0, *mine, 0])).reshape(-1, 2)
    return [(offsets[low], offsets[high - 1]) for low, high in edges]


def test_each_window_and_all_of_its_slack_are_drawn() -> None:
    rng = np.random.default_rng(0)
    starts = WINDOWS.draw(np.zeros(3000, int), *rng.random((2, 3000)))
    shares = [(starts < 4).mean(), (starts == 4).mean(), (starts == 20).mean()]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)
    assert np.ptp(starts[starts < 4]) > 3.9


def test_a_window_is_cut_from_its_step_and_padded() -> None:
    recording = np.arange(20, dtype=np.float32).reshape(2, 10)
    np.testing.assert_array_equal(cut(recording, TINY, 1.5), recording[:, 3:9])
    np.testing.assert_array_equal(cut(recording, TINY, 4.0), [[8, 9, *[np.nan] * 4], [18, 19, *[np.nan] * 4]])
    assert np.isnan(cut(recording, TINY, 9.0)).all()
    assert cut(recording, TINY, 1.5).base is None or not np.shares_memory(cut(recording, TINY, 1.5), recording)


def test_every_hundredth_of_a_second_finds_its_sample() -> None:
    hundredths = np.arange(0, 500_000)
    np.testing.assert_array_equal(first_step(recordings.EEG, hundredths / 100), 2 * hundredths)
    np.testing.assert_array_equal(first_step(recordings.SPECTROGRAM, hundredths / 100), hundredths // 200)
