"""A recording depends on its own streams, not on what was written before it."""

from pathlib import Path

import pandas as pd

from hms_ray.simulate import folder, plan


def test_recordings_do_not_depend_on_their_order(simulated: Path, tmp_path: Path) -> None:
    planned = plan.labelled(0, 12, 6)
    for index in (4, 1):
        rows = folder.write_recording(tmp_path, "train", 0, index, planned[index])
        name = f"train_spectrograms/{planned[index].spectrogram_id}.parquet"
        assert (tmp_path / name).read_bytes() == (simulated / name).read_bytes()
        table = pd.read_csv(simulated / "train.csv")
        there = table[table["spectrogram_id"] == planned[index].spectrogram_id].drop(columns="label_id")
        ordered = rows.sort_values(["eeg_id", "eeg_sub_id"])
        pd.testing.assert_frame_equal(ordered.reset_index(drop=True), there.reset_index(drop=True), check_dtype=False)


def test_the_part_names_the_streams(tmp_path: Path) -> None:
    planned = plan.unlabelled(0, 1, set())[0]
    contents = []
    for part in ("train", "test"):
        folder.write_recording(tmp_path, part, 0, 0, planned)
        contents.append((tmp_path / f"{part}_eegs/{planned.eegs[0].eeg_id}.parquet").read_bytes())
    assert contents[0] != contents[1]
