"""Which code made a study."""

from hms_ray import sources


def test_what_decides_about_numbers_is_among_the_files_and_what_shows_them_is_not() -> None:
    found = sources.files_of_code()
    assert {"training/loop.py", "models/basic_cnn.py", "folds.py", "tasks/votes.py", "search/racing.py"} <= set(found)
    assert not [path for path in found if path.startswith(("report", "cli"))]
    assert all(len(mark) == 16 for mark in found.values())


def test_changed_and_removed_files_differ_and_new_ones_do_not() -> None:
    known = dict(sources.files_of_code())
    assert sources.differing(known) == []
    known["folds.py"] = "0" * 16
    known["models/gone.py"] = known.pop("models/basic_cnn.py")
    assert sources.differing(known) == ["folds.py", "models/gone.py"]
