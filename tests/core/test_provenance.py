"""Which code made a study."""

import pytest

from hms_ray.core import provenance
from hms_ray.store.prepare import CODE


def test_what_decides_about_numbers_is_among_the_files_and_what_shows_them_is_not() -> None:
    found = provenance.files_of_code()
    assert {
        "training/loop.py",
        "models/basic_cnn.py",
        "study/folds.py",
        "tasks/votes.py",
        "search/pruning/ensemble_gain.py",
    } <= set(found)
    assert not [path for path in found if path.startswith(("report", "cli"))]
    assert all(len(mark) == 16 for mark in found.values())


def test_changed_and_removed_files_differ_and_new_ones_do_not() -> None:
    known = dict(provenance.files_of_code())
    assert provenance.differing(known) == []
    known["study/folds.py"] = "0" * 16
    known["models/gone.py"] = known.pop("models/basic_cnn.py")
    assert sorted(provenance.differing(known)) == ["models/gone.py", "study/folds.py"]


def test_how_a_recording_is_read_is_part_of_a_stores_name() -> None:
    assert {"core/files.py", "core/recordings.py", "datasets/hms.py", "store/_work.py"} <= set(
        provenance.files_of_code(CODE)
    )


def test_a_file_that_was_moved_away_is_not_passed_over() -> None:
    with pytest.raises(FileNotFoundError, match=r"recordings\.py"):
        provenance.files_of_code(("recordings.py",))
