"""The competition's folder: recordings first, the tables that make it complete last."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hms_ray.core import files, seeds
from hms_ray.simulate import artefacts, panel, plan, recording, scene, spectrogram
from hms_ray.simulate._scalp import CHANNELS

VOTES = [f"{name}_vote" for name in scene.CLASSES]
SPELLINGS = ("Seizure", "LPD", "GPD", "LRDA", "GRDA", "Other")
EEG_COLUMNS = [*CHANNELS, "EKG"]


def write_recording(out: Path, part: str, seed: int, index: int, planned: plan.RecordingPlan) -> pd.DataFrame:
    """Simulate and write one spectrogram file and its EEG files; return its rows of train.csv, without label_id.

    part: "train" or "test"; with the seed and the index it names the random streams, so that order does not matter.
    """
    streams = {name: seeds.stream(seed, part, index, name) for name in ("scene", "signal", "votes", "faults")}
    drawn = scene.draw(streams["scene"], planned.label, "quiet" in planned.traps, "change" in planned.traps)
    played = recording.render(
        streams["signal"], drawn, planned.seconds, planned.labelled_s, planned.onset_s, planned.traps
    )
    _write_spectrogram(out / f"{part}_spectrograms", planned, played, streams["faults"])
    for eeg in planned.eegs:
        _write_eeg(out / f"{part}_eegs", eeg, planned, played, streams["faults"])
    return _rows(planned, drawn, played, streams["votes"])


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


def _write_eeg(
    folder: Path,
    eeg: plan.EegPlan,
    planned: plan.RecordingPlan,
    played: recording.Recording,
    rng: np.random.Generator,
) -> None:
    table = played.eeg(eeg.start_s, round(eeg.seconds * recording.SFREQ))
    if "dropout" in planned.traps:
        table = artefacts.drop_electrodes(rng, table)
    _write(folder / f"{eeg.eeg_id}.parquet", EEG_COLUMNS, list(table.T))


def _write_spectrogram(
    folder: Path, planned: plan.RecordingPlan, played: recording.Recording, rng: np.random.Generator
) -> None:
    power = spectrogram.compute(played.signal)
    if "gap" in planned.traps:
        start = int(rng.integers(5, len(power) // 3))
        power[start : start + int(rng.integers(2, 30))] = np.nan
    dtype = np.int16 if "short_time" in planned.traps else np.int64
    time = np.arange(1, 2 * len(power), spectrogram.ROW_S, dtype=dtype)
    names = ["time", *spectrogram.column_names()]
    _write(folder / f"{planned.spectrogram_id}.parquet", names, [time, *power.T])


def _write(path: Path, names: list[str], columns: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = [pa.array(np.ascontiguousarray(column)) for column in columns]
    with files.atomic_path(path) as temporary:
        pq.write_table(pa.table(arrays, names), temporary, row_group_size=1 << 30)


def _rows(
    planned: plan.RecordingPlan, drawn: scene.Scene, played: recording.Recording, rng: np.random.Generator
) -> pd.DataFrame:
    """Return a row for each window, with the votes of its period."""
    rows = []
    for eeg in planned.eegs:
        votes = _votes(eeg, planned.panel, drawn, played, rng)
        for k, offset in enumerate(eeg.offsets_s):
            window = {
                "eeg_id": eeg.eeg_id,
                "eeg_sub_id": k,
                "eeg_label_offset_seconds": offset,
                "spectrogram_id": planned.spectrogram_id,
                "spectrogram_label_offset_seconds": eeg.start_s + offset - plan.LEAD_S,
                "patient_id": planned.patient_id,
                "expert_consensus": SPELLINGS[int(votes[k].argmax())],
            }
            rows.append(window | dict(zip(VOTES, votes[k].tolist(), strict=True)))
    table = pd.DataFrame(rows)
    order = table["spectrogram_label_offset_seconds"].rank(method="first").astype(int) - 1
    table.insert(4, "spectrogram_sub_id", order)
    return table


def _votes(
    eeg: plan.EegPlan, name: str, drawn: scene.Scene, played: recording.Recording, rng: np.random.Generator
) -> np.ndarray:
    """Return each window's votes (windows, K): a period is voted on once, on the 10 s in its windows' middles."""
    count = len(eeg.offsets_s)
    edges = [0, count] if eeg.split is None else [0, eeg.split, count]
    votes = []
    for first, last in pairwise(edges):
        centres = [eeg.centre_s(k) for k in range(first, last)]
        ideal = np.mean([panel.truth(drawn, played.presence_at(c - 5, c + 5)) for c in centres], axis=0)
        votes += [panel.vote(rng, name, ideal)] * (last - first)
    return np.stack(votes)
