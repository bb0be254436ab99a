"""Whose data a study folder is, and what may be added to it."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from hms_ray import __version__
from hms_ray.core import files, provenance
from hms_ray.core.errors import ConfigError, UserError
from hms_ray.study.folder import LIBRARIES, StudyFolder, check_id

IDENTITY: dict[str, Any] = {
    "task": {"kind": "votes", "classes": ["seizure", "other"]},
    "data": {"name": "hms", "root": "/data", "params": {}, "fingerprint": "ab", "units": 4, "groups": 2},
    "folds": {"k": 2, "seed": 0, "fingerprint": "cd"},
    "score": {"min_votes": 10},
    "epoch": "cross_fitted",
}
SPACE = {
    "description": "a",
    "base": {"model": {"width": 16}},
    "members": {"a": {"model": {"width": 16}}},
    "search": {"model.width": [8, 16]},
    "budget": {"n": 8},
    "race": {"rule": "ensemble"},
    "sampler": {"name": "tpe"},
}


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A claimed study."""
    folder = StudyFolder(tmp_path / "runs" / "demo")
    folder.claim(IDENTITY)
    return folder


def _changed(dotted: str, value: object) -> dict[str, Any]:
    content = copy.deepcopy(IDENTITY)
    *parents, last = dotted.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


def test_a_claim_writes_identity_and_versions(study: StudyFolder) -> None:
    content = study.read_study()
    assert {key: content[key] for key in IDENTITY} == IDENTITY
    assert content["spaces"] == {} and set(content["versions"]) == {"hms_ray", *LIBRARIES}
    assert content["code"] == provenance.files_of_code()


def test_recordings_may_be_fetched_later_but_not_change(study: StudyFolder) -> None:
    def claim(**recordings: str) -> dict[str, str]:
        study.claim(_changed("data.recordings", recordings))
        return study.read_study()["data"]["recordings"]

    assert claim(spectrogram="s1") == {"spectrogram": "s1"}
    assert claim(spectrogram="s1", eeg="e1") == {"spectrogram": "s1", "eeg": "e1"}
    assert claim(eeg="e1") == {"spectrogram": "s1", "eeg": "e1"}, "what a command does not read may be elsewhere"
    with pytest.raises(ConfigError, match=r"its eeg recordings .* differ from this run's"):
        claim(spectrogram="s1", eeg="e2")


@pytest.mark.parametrize(("dotted", "value"), [("data.root", "/moved"), ("data.units", 5), ("folds.seed", None)])
def test_the_same_data_elsewhere_is_the_same_study(study: StudyFolder, dotted: str, value: object) -> None:
    before = study.study.read_bytes()
    study.claim(_changed(dotted, value))
    assert study.study.read_bytes() == before


@pytest.mark.parametrize(
    ("dotted", "value", "named"),
    [
        (
            "data.fingerprint",
            "xx",
            "its labels or units (/data) differ from this run's (/data), though both have 4 units of 2 patients",
        ),
        ("folds.fingerprint", "xx", "its units are dealt to other folds, though the number of folds is the same"),
        ("folds.k", 5, "its folds is 2, this run's is 5"),
        ("task.classes", ["seizure", "lpd"], "its task.classes is ["),
        ("score.min_votes", 1, "its score.min_votes is 10, this run's is 1"),
    ],
)
def test_other_data_folds_or_score_are_refused(study: StudyFolder, dotted: str, value: object, named: str) -> None:
    with pytest.raises(ConfigError, match="is a study of something else; choose another --study") as caught:
        study.claim(_changed(dotted, value))
    assert named in str(caught.value)


def test_a_folder_without_study_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no study: it has no study\.json"):
        StudyFolder(tmp_path).read_study()


def test_a_folder_that_is_not_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^there is no folder .*/nowhere; `hms-ray search` or `train` makes a"):
        StudyFolder(tmp_path / "nowhere").read_study()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", r"study\.json: must hold a mapping, but holds a list"),
        ("{}", r"(?s)study\.json is not as hms-ray wrote it.*data: missing"),
        ('{"task": {}, "data": {}}', r"(?s)study\.json is not as hms-ray wrote it.*data\.fingerprint: missing"),
        ("null", r"study\.json: must hold a mapping, but holds a NoneType"),
    ],
)
def test_a_study_json_of_something_else_is_refused_in_words(study: StudyFolder, content: str, sentence: str) -> None:
    study.study.write_text(content)
    for use in (lambda: study.claim(IDENTITY), study.read_study, lambda: study.add_space("a", SPACE)):
        with pytest.raises(UserError, match=sentence):
            use()


def test_a_file_in_place_of_the_folder_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    study = StudyFolder(tmp_path / "demo")
    for use in (lambda: study.claim(IDENTITY), study.read_study):
        with pytest.raises(ConfigError, match="demo is a file; a study is a folder"):
            use()


def _made_by(study: StudyFolder, **changes: Any) -> None:
    files.write_json(study.study, study.read_study() | changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"versions": {"hms_ray": "0.0.1"}}, rf"it is of hms_ray 0\.0\.1, this is {__version__}"),
        ({"code": {"training/loop.py": "0" * 16}}, r"training/loop\.py has changed"),
        ({"code": {"models/gone.py": "0" * 16}}, r"models/gone\.py has changed"),
    ],
)
def test_other_code_goes_on_only_by_force(study: StudyFolder, changes: dict[str, Any], named: str) -> None:
    study.add_space("a", SPACE)
    _made_by(study, **changes)
    before = study.read_study()
    with pytest.raises(ConfigError, match=f"was made by other code: {named}.*With --force it goes on"):
        study.claim(IDENTITY)
    assert study.read_study() == before
    study.claim(IDENTITY, force=True)
    after = study.read_study()
    assert after["earlier_code"] == [{"versions": before["versions"], "code": before["code"]}]
    study.claim(IDENTITY)
    assert study.read_study() == after, "what was forced once is known"


def test_code_does_not_matter_where_nothing_was_trained(study: StudyFolder) -> None:
    _made_by(study, code={"training/loop.py": "0" * 16})
    study.claim(IDENTITY)


def test_spaces_are_added_and_found_again(study: StudyFolder) -> None:
    study.add_space("a", SPACE)
    study.add_space("b", SPACE | {"description": "b"})
    study.add_space("a", SPACE)
    assert study.read_study()["spaces"] == {"a": SPACE, "b": SPACE | {"description": "b"}}


def test_another_budget_replaces_the_old(study: StudyFolder) -> None:
    study.add_space("a", SPACE)
    study.add_space("a", SPACE | {"budget": {"n": 20}})
    assert study.read_study()["spaces"]["a"]["budget"] == {"n": 20}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base": {"model": {"width": 8}}}, "base.model.width"),
        ({"base": {"model": {"width": 16, "depth": 2}}}, "base.model.depth"),
        ({"members": {"a": {"model": {"width": 8}}}}, "members.a.model.width"),
        ({"search": {}}, "search.model.width"),
        ({"race": {"rule": "none"}}, "race.rule"),
        ({"sampler": {"name": "gp"}}, "sampler.name"),
        ({"budget": {"n": 8, "trial_folds": 2}}, "budget.trial_folds"),
    ],
)
def test_another_space_of_the_same_name_is_refused(study: StudyFolder, change: dict[str, Any], named: str) -> None:
    study.add_space("a", SPACE)
    with pytest.raises(ConfigError, match=f"already holds a space 'a' that differs in {named} \\(.* there, .* now\\);"):
        study.add_space("a", SPACE | change)
    assert study.read_study()["spaces"] == {"a": SPACE}


def test_a_key_that_is_new_and_null_changes_nothing(study: StudyFolder) -> None:
    study.add_space("a", SPACE)
    study.add_space("a", SPACE | {"base": {"model": {"width": 16, "resize": None}}})


@pytest.mark.parametrize("name", ["a", "cnn-0003", "0", "A.b_c-d", "x" * 100])
def test_ids_that_can_name_a_file(name: str) -> None:
    assert check_id(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "a\\b", "a\n", ".hidden", "-a", "é", "a b", "x" * 101])
def test_ids_that_cannot(name: str, tmp_path: Path) -> None:
    for use in (check_id, StudyFolder(tmp_path).trial, StudyFolder(tmp_path).oof):
        with pytest.raises(ConfigError, match="cannot name a file"):
            use(name)


def test_paths_are_those_of_the_drawing(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path / "demo")
    fold = study.trial("cnn-0003").fold(1)
    assert study.name == "demo"
    assert {str(path.relative_to(study.root)) for path in (study.study, study.folds, study.journal)} == {
        "study.json",
        "folds.parquet",
        "journal.log",
    }
    paths = (fold.oof, fold.by_epoch, fold.weights(7), fold.checkpoint)
    assert [str(path.relative_to(study.root)) for path in paths] == [
        f"trials/cnn-0003/folds/1/{name}"
        for name in ("oof.parquet", "epochs.npy", "weights/7.safetensors", "state/checkpoint.pt")
    ]


def test_dropped_weights_leave_the_predictions(study: StudyFolder) -> None:
    fold = study.trial("cnn-0003").fold(1)
    for path in (
        fold.oof,
        fold.weights(1),
        fold.weights(2),
        fold.checkpoint,
        fold.checkpoint.parent / "teacher-1-0" / "x.pt",
    ):
        files.write_bytes(path, b"x")
    fold.drop_weights(but=2)
    left = {path.relative_to(fold.root) for path in fold.root.rglob("*") if path.is_file()}
    assert left == {Path("oof.parquet"), Path("weights/2.safetensors")}
    fold.drop_weights()
    fold.drop_weights()
    assert [path.name for path in fold.root.rglob("*") if path.is_file()] == ["oof.parquet"]


def test_oof_ids_are_sorted_and_without_half_written_files(study: StudyFolder) -> None:
    assert study.oof_ids() == []
    for name in ("b-0001.parquet", "a-base.parquet", ".c.parquet.1234.tmp", ".d.parquet", "notes.txt"):
        files.write_text(study.root / "oof" / name, "")
    assert study.oof_ids() == ["a-base", "b-0001"]
    assert study.oof("a-base").is_file()


def test_study_json_is_plain_json(study: StudyFolder) -> None:
    assert json.loads(study.study.read_text()) == study.read_study()


def test_weights_are_known_by_the_digest_of_what_was_written(study: StudyFolder) -> None:
    fold = study.trial("a-0001").fold(2)
    for epoch, content in ((3, b"three"), (4, b"four")):
        fold.write_weights(epoch, content)
    assert fold.weights(3).read_bytes() == b"three" and fold.weights_are_intact(3) and fold.weights_are_intact(4)
    assert files.read_json(fold.digests)["4"] == hashlib.sha256(b"four").hexdigest()
    fold.weights(3).write_bytes(b"other")
    assert fold.weights_are_intact(3) is False and fold.weights_are_intact(5) is None
    fold.drop_weights(but=4)
    assert fold.weights_are_intact(4) and not fold.weights(3).exists()
    fold.drop_weights()
    assert not fold.digests.exists()


def test_a_study_from_before_candidates_takes_those_of_the_run_that_goes_on(study: StudyFolder) -> None:
    """It lacks the key; from then on it has it, and refuses others."""
    third, half = ({"epoch_candidates": {"share": share, "most": 8}} for share in (1 / 3, 0.5))
    study.claim(IDENTITY | third)
    assert study.read_study()["epoch_candidates"] == third["epoch_candidates"]
    with pytest.raises(ConfigError, match=r"candidates"):
        study.claim(IDENTITY | half)
    study.add_space("a", SPACE)
    study.add_space("a", SPACE | {"base": SPACE["base"] | third})
    with pytest.raises(ConfigError, match=r"differs in base\.epoch_candidates\.share"):
        study.add_space("a", SPACE | {"base": SPACE["base"] | half})


@pytest.mark.parametrize(("added", "named"), [("files", "net.py"), ("packages", "models.net")])
def test_changed_code_of_a_component_needs_force(study: StudyFolder, added: str, named: str) -> None:
    def space(mark: str) -> dict[str, Any]:
        content = {"fingerprint": mark, "source": mark} if added == "files" else mark
        return SPACE | {"base": {"model": {"width": 16}, added: {named: content}}}

    study.add_space("a", space("ab"))
    study.add_space("a", space("ab"))
    message = f"was made by other code: {named} has changed. With --force it goes on"
    with pytest.raises(ConfigError, match=message):
        study.add_space("a", space("cd"))
    study.add_space("a", space("cd"), force=True)
    assert study.read_study()["spaces"]["a"] == space("cd")
    with pytest.raises(ConfigError, match=r"differs in base\.model\.width \(16 there, 8 now\)"):
        study.add_space("a", space("cd") | {"base": {**space("cd")["base"], "model": {"width": 8}}}, force=True)
