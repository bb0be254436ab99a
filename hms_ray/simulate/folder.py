"""Write the competition's folder: first the recordings, last the tables, without which it is incomplete."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hms_ray.core import files, seeds
from hms_ray.simulate import artefacts, panel, plan, recording, scene, spectrogram
from hms_ray.simulate._scalp import CHANNELS, SFREQ

VOTES = [f"{name}_vote" for name in scene.CLASSES]
SPELLINGS = ("Seizure", "LPD", "GPD", "LRDA", "GRDA", "Other")
EEG_COLUMNS = [*CHANNELS, "EKG"]


def write_recording(out: Path, part: str, seed: int, index: int, planned: plan.RecordingPlan) -> pd.DataFrame:
    """Simulate and write one spectrogram file and its EEG files; return its rows of train.csv, without label_id.

    part: "train" or "test"; with the seed and the index it names the random streams, so that order does not matter.
    """
    streams = {name: seeds.stream(seed, part, index, name) for name in ("scene", "signal", "votes", "faults")}
    traps, faults = planned.traps, streams["faults"]
    drawn = scene.draw(streams["scene"], planned.label, "quiet" in traps, "change" in traps)
    rendered = recording.render(streams["signal"], drawn, planned.seconds, planned.labelled_s, planned.onset_s, traps)
    power = spectrogram.compute(rendered.signal)
    if "gap" in traps:
        start = int(faults.integers(5, len(power) // 3))
        power[start : start + int(faults.integers(2, 30))] = np.nan
    time_dtype = np.int16 if "short_time" in traps else np.int64
    time = np.arange(1, 2 * len(power), spectrogram.ROW_S, dtype=time_dtype)
    path = out / f"{part}_spectrograms" / f"{planned.spectrogram_id}.parquet"
    _write(path, ["time", *spectrogram.column_names()], [time, *power.T])
    for eeg in planned.eegs:
        table = rendered.eeg(eeg.start_s, round(eeg.seconds * SFREQ))
        if "dropout" in traps:
            table = artefacts.drop_electrodes(faults, table)
        _write(out / f"{part}_eegs" / f"{eeg.eeg_id}.parquet", EEG_COLUMNS, list(table.T))
    return _rows(planned, drawn, rendered, streams["votes"])


def write_tables(out: Path, seed: int, train: list[pd.DataFrame], test: list[pd.DataFrame]) -> None:
    """Write test.csv, sample_submission.csv and, last of all, train.csv."""
    test_rows = pd.concat(test, ignore_index=True)[["spectrogram_id", "eeg_id", "patient_id"]]
    files.write_text(out / "test.csv", test_rows.to_csv(index=False))
    sample = test_rows[["eeg_id"]].assign(**dict.fromkeys(VOTES, 1 / len(VOTES)))
    files.write_text(out / "sample_submission.csv", sample.to_csv(index=False))
    rows = pd.concat(train, ignore_index=True).sort_values(["eeg_id", "eeg_sub_id"], ignore_index=True)
    ids = seeds.stream(seed, "label_id").choice(plan.MAX_ID, len(rows), replace=False, shuffle=False)
    rows.insert(6, "label_id", ids)
    files.write_text(out / "train.csv", rows.to_csv(index=False))


def _write(path: Path, names: list[str], columns: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = [pa.array(np.ascontiguousarray(column)) for column in columns]
    with files.atomic_path(path) as temporary:
        pq.write_table(pa.table(arrays, names), temporary, row_group_size=1 << 30)


def _rows(
    planned: plan.RecordingPlan, drawn: scene.Scene, rendered: recording.Recording, rng: np.random.Generator
) -> pd.DataFrame:
    """Return a row for each window; the raters vote once on each period, on the 10 s in the middle of its windows."""
    rows = []
    for eeg in planned.eegs:
        count = len(eeg.offsets_s)
        for first, last in pairwise([0, count] if eeg.split is None else [0, eeg.split, count]):
            centres_s = [eeg.centre_s(k) for k in range(first, last)]
            ideal = np.mean([panel.truth(drawn, rendered.presence_at(c - 5, c + 5)) for c in centres_s], axis=0)
            votes = panel.vote(rng, planned.panel, ideal)
            for k in range(first, last):
                window = {
                    "eeg_id": eeg.eeg_id,
                    "eeg_sub_id": k,
                    "eeg_label_offset_seconds": eeg.offsets_s[k],
                    "spectrogram_id": planned.spectrogram_id,
                    "spectrogram_label_offset_seconds": eeg.start_s + eeg.offsets_s[k] - plan.LEAD_S,
                    "patient_id": planned.patient_id,
                    "expert_consensus": SPELLINGS[int(votes.argmax())],
                }
                rows.append(window | dict(zip(VOTES, votes.tolist(), strict=True)))
    table = pd.DataFrame(rows)
    order = table["spectrogram_label_offset_seconds"].rank(method="first").astype(int) - 1
    table.insert(4, "spectrogram_sub_id", order)
    return table
