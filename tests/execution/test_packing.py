"""How many folds share a GPU: by what was measured, never before, and remembered across a crash."""

import copy

import pytest

from hms_ray.execution.packing import SMALLEST, GpuPacking, architecture
from hms_ray.training.run_config import parse_run

RUN = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "optim": {"batch": 8},
    "stages": [{"epochs": 2, "lr": 0.01}],
}
GB = 10**9


def a_run(**changes):
    return parse_run(copy.deepcopy(RUN) | changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gpu_memory.json"


@pytest.mark.parametrize(
    ("peak_gb", "folds"),
    [
        (0, 8),
        (7.3, 8),  # 8 x (7.3 x 1.15 + 0.6) = 71.96 <= 0.9 x 80
        (7.31, 7),
        (20, 3),
        (30, 2),
        (40, 1),
        (79, 1),
        (200, 1),
    ],
)
def test_the_share_follows_from_the_measurement(path, peak_gb, folds):
    packing = GpuPacking(path)
    assert packing.share(a_run()) == 1.0
    packing.add(a_run(), int(peak_gb * GB), 80 * GB)
    assert packing.share(a_run()) == 1 / folds >= SMALLEST
    assert GpuPacking(path).share(a_run()) == 1 / folds


def test_of_several_measurements_the_most_cautious_counts_in_any_order(tmp_path):
    measured = [(20 * GB, 80 * GB), (10 * GB, 40 * GB), (15 * GB, 80 * GB)]
    seen = []
    for name, order in (("a", measured), ("b", measured[::-1])):
        packing = GpuPacking(tmp_path / name)
        for peak, device in order:
            packing.add(a_run(), peak, device)
        seen.append(packing.share(a_run()))
    assert seen == [1.0, 1.0]  # 20 GB of 40


def test_a_fold_on_a_cpu_measures_nothing(path):
    packing = GpuPacking(path)
    packing.add(a_run(), 0, 0)
    assert packing.share(a_run()) == 1.0
    assert not path.exists()


def test_out_of_memory_halves_down_to_a_gpu_of_its_own(path):
    packing, run = GpuPacking(path), a_run()
    packing.add(run, GB, 80 * GB)
    seen = [packing.share(run)]
    for _ in range(4):
        packing.halve(run, seen[-1])
        seen.append(GpuPacking(path).share(run))
    assert seen == [1 / 8, 1 / 4, 1 / 2, 1.0, 1.0]
    packing.add(run, GB, 80 * GB)
    assert packing.share(run) == 1.0  # what did not fit is not tried again


def test_folds_that_fail_together_halve_once(path):
    packing, run = GpuPacking(path), a_run()
    packing.add(run, GB, 80 * GB)
    for _ in range(8):
        packing.halve(run, 1 / 8)
    assert packing.share(run) == 1 / 4


def test_what_was_never_measured_has_nothing_to_halve(path):
    packing = GpuPacking(path)
    packing.halve(a_run(), 1.0)
    assert packing.share(a_run()) == 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "basic_cnn", "width": 5, "depth": 2}},
        {"model": {"name": "timm_image", "arch": "resnet18", "pretrained": False}},
        {"feature": {"name": "kaggle_spectrogram", "pool": 2}},
        {"optim": {"batch": 9}},
        {"optim": {"batch": 8, "name": "sgd"}},
    ],
)
def test_what_decides_about_memory_is_measured_anew(path, change):
    packing = GpuPacking(path)
    packing.add(a_run(), GB, 80 * GB)
    assert packing.share(a_run(**change)) == 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "basic_cnn", "width": 4, "depth": 2, "drop_rate": 0.3}},
        {"optim": {"batch": 8, "weight_decay": 0.05}},
        {"stages": [{"epochs": 9, "lr": 0.1}]},
        {"augment": {"mixup": {}}},
        {"seed": 3},
    ],
)
def test_what_does_not_shares_the_measurement(path, change):
    packing = GpuPacking(path)
    packing.add(a_run(), GB, 80 * GB)
    assert packing.share(a_run(**change)) == 1 / 8


def test_a_person_can_read_what_is_measured():
    assert architecture(a_run()) == "basic_cnn width=4 depth=2, kaggle_spectrogram 1x100x75, adamw batch 8"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        '{"x": 1}',
        '{"x": {"peak_bytes": -1, "device_bytes": 8}}',
        '{"x": {"peak_bytes": 1, "device_bytes": 0}}',
        '{"x": {"peak_bytes": 1, "device_bytes": 8, "most": 0}}',
        '{"x": {"peak_bytes": 1, "device_bytes": 8, "other": 0}}',
    ],
)
def test_a_damaged_file_is_as_none_and_replaced(path, content, caplog):
    path.write_text(content)
    packing = GpuPacking(path)
    assert "is damaged, so memory is measured again" in caplog.text
    assert packing.share(a_run()) == 1.0
    packing.add(a_run(), GB, 80 * GB)
    assert GpuPacking(path).share(a_run()) == 1 / 8
