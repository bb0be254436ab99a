"""Who is recorded, and which traps: exact shares, ids that overflow, windows inside their image."""

import numpy as np
import pytest

from hms_ray.simulate import plan


@pytest.fixture(scope="module")
def planned() -> list[plan.RecordingPlan]:
    return plan.labelled(0, 240, 60)


def test_numbers_are_those_asked_for(planned: list[plan.RecordingPlan]) -> None:
    eegs = [eeg.eeg_id for recording in planned for eeg in recording.eegs]
    assert len(eegs) == len(set(eegs)) == 240
    assert len({recording.patient_id for recording in planned}) == 60
    assert len({recording.spectrogram_id for recording in planned}) == len(planned) < 240
    assert max(len(recording.eegs) for recording in planned) == 2


def test_experts_label_more_than_a_third(planned: list[plan.RecordingPlan]) -> None:
    panels = [recording.panel for recording in planned for _ in recording.eegs]
    assert panels.count("expert") / len(panels) > 0.35
    assert {"few", "wide"} < set(panels)


@pytest.mark.parametrize("eegs", [12, 240])
def test_every_trap_occurs_at_its_rate(eegs: int) -> None:
    recordings = plan.labelled(1, eegs, 6)
    for name, share in plan.TRAPS.items():
        count = sum(name in recording.traps for recording in recordings)
        assert count == max(1, round(share * len(recordings)))


def test_ids_reach_beyond_31_bits_and_stay_below_the_real_maximum(planned: list[plan.RecordingPlan]) -> None:
    for ids in ([r.spectrogram_id for r in planned], [eeg.eeg_id for r in planned for eeg in r.eegs]):
        assert 2**31 < max(ids) <= plan.MAX_ID


def test_images_lie_inside_the_spectrogram_and_share_the_label(planned: list[plan.RecordingPlan]) -> None:
    for recording in planned:
        assert recording.seconds % 2 == 0
        for eeg in recording.eegs:
            for k, offset in enumerate(eeg.offsets_s):
                image_s = eeg.start_s + offset - plan.LEAD_S
                assert 0 <= image_s <= recording.seconds - 600
                assert eeg.centre_s(k) == image_s + 300


def test_most_files_are_short_and_some_offsets_odd(planned: list[plan.RecordingPlan]) -> None:
    eegs = [eeg for recording in planned for eeg in recording.eegs]
    seconds = np.array([eeg.seconds for eeg in eegs])
    assert seconds.min() == 50
    assert np.mean(seconds <= 120) > 0.9
    assert any(offset % 2 for eeg in eegs for offset in eeg.offsets_s)
    assert all((eeg.seconds * 200).is_integer() for eeg in eegs)


def test_a_change_lies_between_its_periods(planned: list[plan.RecordingPlan]) -> None:
    changing = [recording for recording in planned if recording.onset_s is not None]
    assert changing
    for recording in changing:
        eeg = recording.eegs[0]
        assert recording.label != "other"
        assert eeg.centre_s(eeg.split - 1) + 10 == recording.onset_s == eeg.centre_s(eeg.split) - 10


def test_the_unlabelled_part_takes_other_patients() -> None:
    taken = {recording.patient_id for recording in plan.unlabelled(3, 30, set())}
    recordings = plan.unlabelled(3, 20, taken)
    assert len({recording.patient_id for recording in recordings} - taken) == 20
    assert {recording.seconds for recording in recordings} == {600}
    assert {eeg.seconds for recording in recordings for eeg in recording.eegs} == {50.0}


def test_more_patients_than_usual_ids_still_get_one_each() -> None:
    assert len(set(plan._ids(np.random.default_rng(0), 3000, 4 * 3000))) == 3000
