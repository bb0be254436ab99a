"""The second task, heart sounds, from start to report: both label modes, encoders on disk, predictions, refusals."""

import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from hms_ray.cli import main
from hms_ray.core import files
from hms_ray.core.plain_yaml import load_yaml
from hms_ray.encoders.speech import ENCODERS
from hms_ray.simulate import simulate_hearts
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable
from hms_ray.study.trials_table import trials_table

SUBJECTS, RECORDINGS, SECONDS = 16, 8, 4.0
FIVE = ("AS", "AR", "MR", "MS", "N")
FEW = ("stages.0.epochs=2", "folds=2", "budget.trials=2", "feature.frames=100")


@dataclass(frozen=True)
class Ran:
    """What a command of the command line left: its exit status, what it printed, and its study."""

    code: int
    out: str
    err: str
    study: StudyFolder

    @property
    def ensemble(self) -> dict[str, Any]:
        return files.read_json(self.study.ensemble)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The full run of each trial."""
        return [load_yaml(self.study.trial(trial).config) for trial in trials_table(self.study)["trial"]]

    @property
    def page(self) -> str:
        return (self.study.root.parent.parent / "reports" / self.study.name / "index.html").read_text()

    @property
    def words(self) -> str:
        """What a reader of the report sees."""
        text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", self.page, flags=re.DOTALL)
        return re.sub(r"\s+", " ", unescape(text))


def options(*overrides: str) -> list[str]:
    """Return what the command line is told, to override so much of a space."""
    return [word for override in overrides for word in ("--set", override)]


def hms_ray(folder: Path, *argv: object) -> Ran:
    """Run the command line in a folder, as a user does who has set nothing but the cache."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setenv("HMS_RAY_CACHE", str(folder / "cache"))
        patch.delenv("HMS_RAY_DATA", raising=False)
        patch.setattr(logging.root, "handlers", [])  # the command line sets its own
        patch.setattr("hms_ray.execution.session.ray.init", lambda *_, **__: pytest.fail("Ray was started"))
        code = main([str(word) for word in argv])
    return Ran(code, out.getvalue(), err.getvalue(), StudyFolder(folder / "runs" / "study"))


def search(folder: Path, space: str, data: Path, *more: object) -> Ran:
    """Search a space in this process."""
    ran = hms_ray(folder, "search", "--space", space, "--data", data, "--study", "runs/study", "--here", *more)
    assert ran.code == 0, ran.err
    return ran


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated subjects, shared by tests that only read them."""
    folder = tmp_path_factory.mktemp("hearts") / "data"
    simulate_hearts(folder, SUBJECTS, seconds=SECONDS)
    return folder


MakeEncoder = Callable[[int], Path]


@pytest.fixture(scope="module")
def make_encoder(tmp_path_factory: pytest.TempPathFactory) -> MakeEncoder:
    """Return a function that writes a small random encoder in the hub's own format, and returns its folder."""

    def make(seed: int) -> Path:
        folder = tmp_path_factory.mktemp("encoder")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            Wav2Vec2Model(Wav2Vec2Config(**ENCODERS["wav2vec2-tiny"].sizes)).save_pretrained(folder)
        assert {"config.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}
        return folder

    return make


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, hearts: Path, make_encoder: MakeEncoder) -> tuple[Ran, Path]:
    """A search of probes on an encoder from a folder, and that folder."""
    encoder = make_encoder(0)
    small = options("feature.seconds=2.0", "feature.segments=2", "stages.0.epochs=2")
    pretrained = options(f"feature.pretrained={encoder}")
    return search(tmp_path_factory.mktemp("probe"), "heart_probe", hearts, "--smoke", *small, *pretrained), encoder


def written(folder: Path) -> set[Path]:
    """Return the files in a folder."""
    return {path for path in folder.rglob("*") if path.is_file()}


def confusions(page: str) -> Counter[str]:
    """Count the confusion tables of each class."""
    captions = re.findall(r'<table class="matrix">\s*<caption>(.*?)</caption>', page)
    return Counter(caption.partition(" ")[0] for caption in captions)


@pytest.mark.parametrize(("labels", "classes"), [("multilabel", FIVE), ("binary", ("disease",))])
def test_a_search_of_images_ends_with_a_report_on_yes_or_no_questions(tmp_path, hearts, labels, classes):
    ran = search(tmp_path, "heart_cnn", hearts, *options(*FEW, f"data.labels={labels}"))
    assert ran.out.splitlines()[-1] == "reports/study/index.html"
    for part in ("log loss", "AUROC", "Plain baseline logistic regression"):
        assert part in ran.words
    assert not re.search(r"\bKL\b|Kullback|\bvotes?\b|seizure|\bEEGs?\b", ran.words)
    decisions = 2  # at 0.5, and at the thresholds that were chosen on other folds
    assert confusions(ran.page) == dict.fromkeys(classes, decisions)
    fitted = ran.ensemble
    thresholds = fitted["metrics"]["thresholds"]
    assert {fold: len(of_fold) for fold, of_fold in thresholds.items()} == dict.fromkeys("01", len(classes))
    assert 0 < fitted["baselines"]["plain"] < 5 and "logistic regression" in fitted["baselines"]["plain_is"]
    subjects = pd.read_csv(hearts / "train.csv")["patient_id"].tolist()
    for trial in ran.study.oof_ids():
        table = OofTable.read(ran.study.oof(trial))
        assert sorted(table.unit_ids) == subjects and table.probs.shape == (SUBJECTS, len(classes))


def test_an_embedding_is_computed_once_whatever_is_trained_on_it(probed):
    ran, encoder = probed
    assert ran.err.count(f"fetching the weights file:{encoder}/model.safetensors") == 1
    assert len(re.findall(r"prepare speech_embedding: 128 of 128 in", ran.err)) == 1
    trials = trials_table(ran.study)
    assert len(trials) == 2 and set(trials["state"]) == {"COMPLETE"}
    first, second = ran.runs
    assert first["feature"] == second["feature"] and first["optim"] != second["optim"]
    assert first["feature"]["pretrained"] == f"{encoder}/model.safetensors"


def test_predictions_of_new_subjects_are_probabilities_of_each_label(probed, hearts):
    ran, _ = probed
    folder = ran.study.root.parent.parent
    out = folder / "submission.csv"
    assert hms_ray(folder, "predict", "--study", "runs/study", "--data", hearts, "--out", out).code == 0
    table = pd.read_csv(out)
    assert list(table) == ["patient_id", *FIVE]
    assert table["patient_id"].tolist() == pd.read_csv(hearts / "test.csv")["patient_id"].tolist()
    assert table[list(FIVE)].map(lambda prob: 0 <= prob <= 1).all(axis=None)


def test_an_encoder_from_a_folder_is_fine_tuned(tmp_path, hearts, make_encoder):
    encoder = make_encoder(1)
    overrides = options(f"model.pretrained={encoder}", "stages.0.epochs=1")
    ran = search(tmp_path, "heart_finetune", hearts, "--smoke", *overrides)
    assert f"fetching the weights file:{encoder}/model.safetensors" in ran.err
    assert [run["model"]["pretrained"] for run in ran.runs] == [f"{encoder}/model.safetensors"] * 2
    assert ran.ensemble["population"]["units"] == SUBJECTS


def test_one_space_of_all_has_an_encoder_from_a_folder(tmp_path, hearts, make_encoder):
    encoder = make_encoder(2)
    overrides = [f"heart_probe.feature.{item}" for item in (f"pretrained={encoder}", "seconds=2.0", "segments=2")]
    overrides += [
        f"{space}.feature.{item}"
        for space in ("heart_cnn", "heart_bands")
        for item in ("frames=100", "standardise=image")
    ]
    ran = search(tmp_path, "heart_all", hearts, "--smoke", *options(*overrides, "stages.0.epochs=1"))
    assert f"fetching the weights file:{encoder}/model.safetensors" in ran.err
    [prepared] = [line for line in ran.err.splitlines() if line.startswith("prepare ") and "128 of 128 in" in line]
    assert "speech_embedding" in prepared, "each recording is read once for all features"
    members = ran.study.read_study()["spaces"]["heart_all"]["members"]
    assert members["heart_probe"]["feature"]["pretrained"] == f"{encoder}/model.safetensors"
    assert members["heart_finetune"]["model"]["pretrained"] is False, "what is said of one space is for it alone"
    assert ran.ensemble["population"]["units"] == SUBJECTS


def test_weights_of_another_network_are_refused_of_the_space_that_names_them(tmp_path, hearts):
    WavLMModel(WavLMConfig(**ENCODERS["wavlm-tiny"].sizes)).save_pretrained(tmp_path / "other")
    overrides = options(f"heart_finetune.model.pretrained={tmp_path / 'other'}")
    ran = hms_ray(tmp_path, "search", "--space", "heart_all", "--data", hearts, "--here", "--smoke", *overrides)
    assert (ran.code, ran.out) == (2, "")
    said = ran.err[ran.err.index("error: ") :]
    assert "space heart_finetune: model.pretrained" in said and "heart_all" not in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: pd.concat([rows, rows[:1][["patient_id", *FIVE]]]), "patient_001 stands in 2 rows; "),
        (lambda rows: rows.assign(N=1, MS=(rows.index == 0) * 1, AS=0, AR=0, MR=0), "row 2 (patient_001): N (normal)"),
    ],
    ids=["in two rows", "normal and diseased"],
)
def test_a_subject_that_cannot_be_is_one_sentence_and_nothing_is_written(tmp_path, hearts, change, sentence):
    data = shutil.copytree(hearts, tmp_path / "data")
    change(pd.read_csv(data / "train.csv")).to_csv(data / "train.csv", index=False)
    before = written(tmp_path)
    ran = hms_ray(tmp_path, "search", "--space", "heart_cnn", "--data", data, "--here", *options(*FEW))
    assert (ran.code, ran.out) == (2, "")
    _, said = ran.err.splitlines()  # the first line says that it loads
    assert said.startswith(f"error: {data}/train.csv: ") and sentence in said, "one sentence, and no traceback"
    assert written(tmp_path) == before
