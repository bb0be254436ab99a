"""What a fold keeps beside its checkpoint, and that nothing else is ever removed."""

from pathlib import Path

import pytest

from hms_ray.training.history import discard


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The checkpoint of a fold with weights and a teacher, among files that are not its own."""
    saved = tmp_path / "state" / "checkpoint.pt"
    own = [saved, saved.parent / "weights" / "3.safetensors"]
    teacher = saved.parent / "teacher-1-0"
    own += [teacher / saved.name, teacher / "weights" / "2.safetensors"]
    for path in [*own, tmp_path / "oof.parquet", tmp_path / "weights" / "3.safetensors"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return saved


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_all_that_a_fold_kept_is_removed_and_nothing_else(state: Path, tmp_path: Path) -> None:
    discard(state)
    assert not state.parent.exists()
    assert left(tmp_path) == ["oof.parquet", "weights/3.safetensors"]
    discard(state)  # there is nothing left to remove, and that is no fault


def test_a_stranger_beside_the_checkpoint_stays(state: Path, tmp_path: Path) -> None:
    (state.parent / "notes.txt").write_text("mine")
    (state.parent / "weights" / "mine.bin").write_bytes(b"x")
    discard(state)
    assert left(state.parent) == ["notes.txt", "weights/mine.bin"]


def test_a_checkpoint_without_a_folder_of_its_own_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious.txt").write_text("x")
    discard(Path("checkpoint.pt"))
    assert left(tmp_path) == ["precious.txt"]
