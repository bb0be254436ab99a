"""Opening a study: everything is checked first, a refused start writes nothing, a changed study says what differs."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.encoders import pretrained
from hms_ray.search.open_study import open_study, variants
from hms_ray.search.optuna.journal import Journal
from hms_ray.search.space.settings import Sampler
from hms_ray.store._writer import is_whole
from hms_ray.study.folder import StudyFolder


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.root.rglob("*")) if path.is_file()}


def test_a_new_study_says_what_it_is(toy):
    study = toy.folder.read_study()
    assert study["task"]["kind"] == "votes"
    assert study["data"]["params"] == {"rows": "period"}
    assert (study["data"]["units"], study["data"]["groups"]) == (24, 6)
    assert (study["folds"]["k"], study["folds"]["seed"]) == (3, 0)
    assert study["score"] == {"min_votes": 10}
    assert study["spaces"]["toy"] == toy.space.resolved() | {"warm_start_chosen_on": []}
    table = files.read_table(toy.folder.folds)
    assert table["fold"].tolist() == toy.study.labels.folds.tolist()
    assert (table.groupby("group_id")["fold"].nunique() == 1).all()


def test_opened_again_it_is_the_same(toy):
    before = snapshot(toy.folder)
    again = toy.open(toy.folder, [toy.space], toy.root)
    np.testing.assert_array_equal(again.labels.folds, toy.study.labels.folds)
    assert snapshot(toy.folder) == before


def test_a_second_space_joins(toy):
    toy.open(toy.folder, [toy.make_space("other", model={"name": "basic_cnn", "width": 8, "depth": 2})], toy.root)
    assert list(toy.folder.read_study()["spaces"]) == ["toy", "other"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"folds": 2}, r"its folds is 3, this run's is 2"),
        ({"seed": 1}, r"choose another --study: its seed is 0, this run's is 1$"),
        ({"score": {"min_votes": 5}}, r"choose another --study: its score.min_votes is 10, this run's is 5$"),
        ({"epoch": "last"}, r"choose another --study: its epoch is 'cross_fitted', this run's is 'last'$"),
        ({"data": {"name": "hms", "rows": "eeg"}}, r"another --study: its data.rows is 'period', this run's is 'eeg'$"),
        ({"seed": 1, "epoch": "last"}, r"(?s)2 faults.*its epoch is 'cross_fitted'.*its seed is 0"),
        (
            {"model": {"name": "basic_cnn", "width": 8, "depth": 2}},
            r"a space 'toy' that differs in base.model.width \(4 there, 8 now\);",
        ),
        (
            {"search": {"model.width": {"int": [4, 8]}}},
            r"a space 'toy' that differs in search.model.width \(not set there, {'int': \[4, 8\]} now",
        ),
    ],
)
def test_what_differs_from_the_study_is_named_and_nothing_is_written(toy, change, sentence):
    before = snapshot(toy.folder)
    with pytest.raises(ConfigError, match=sentence):
        toy.open(toy.folder, [toy.make_space(**change)], toy.root)
    assert snapshot(toy.folder) == before


def test_networks_of_an_unreachable_hub_are_named_once_each(toy, monkeypatch):
    def fetch(part):
        if part.params.width == 4:
            return None
        name = f"hf-hub:owner/{part.params.width}"
        raise pretrained.Unreachable(name, "no route to host", "model")

    monkeypatch.setattr(
        "hms_ray.search.open_study.fetch_weights", lambda part: fetch(part) if part.kind == "models" else None
    )
    choices = {"model.width": {"choice": [8, 16]}, "model.depth": {"choice": [2, 3]}}
    one, two = toy.make_space("one", choices), toy.make_space("two", choices, model={"name": "basic_cnn", "width": 8})
    with pytest.raises(ConfigError) as caught:
        toy.study.fetch([one, two])
    wanted = "hf-hub:owner/8 (space one, space two), hf-hub:owner/16 (space one, space two)"
    assert f"(no route to host), and its local cache lacks 2 networks: {wanted}; fetch them where" in str(caught.value)
    with pytest.raises(ConfigError, match=r"weights: space two: model.pretrained: hf-hub:owner/8 is not in the hub's"):
        toy.study.fetch([toy.make_space("two", model={"name": "basic_cnn", "width": 8})])


def test_other_data_is_refused(toy, tmp_path, make_hms_folder):
    other = make_hms_folder(tmp_path / "other", seed=1, rows=330)
    with pytest.raises(
        ConfigError, match=r"its spectrogram recordings \(.*\) differ from this run's \(.*/other\): files were"
    ):
        toy.open(toy.folder, [toy.space], other)


def test_more_data_is_refused(toy, tmp_path, make_hms_folder):
    with pytest.raises(
        ConfigError, match=r"its data has 24 units of 6 patients \(.*\), this run's has 28 units of 7 pat.*\)$"
    ):
        toy.open(toy.folder, [toy.space], make_hms_folder(tmp_path / "other", patients=7))


def test_the_same_data_at_another_place_is_the_same_data(toy, tmp_path):
    shutil.copytree(toy.root, tmp_path / "moved")
    toy.open(toy.folder, [toy.space], tmp_path / "moved")


def broken(root, tmp_path, damage):
    copy = shutil.copytree(root, tmp_path / "broken")
    damage(copy)
    return copy


def drop_column(root):
    table = pd.read_csv(root / "train.csv")
    table.drop(columns="gpd_vote").to_csv(root / "train.csv", index=False)


def set_votes(value):
    def damage(root):
        table = pd.read_csv(root / "train.csv")
        table.loc[3, [c for c in table if c.endswith("_vote")]] = value
        table.to_csv(root / "train.csv", index=False)

    return damage


def first_file(root):
    return sorted((root / "train_spectrograms").iterdir())[0]


def cut_file(root):
    path = first_file(root)
    path.write_bytes(path.read_bytes()[:-100])


def csv_named_parquet(root):
    first_file(root).write_text("time,LL_0.59\n1,2\n")


def drop_spectrogram_column(root):
    path = first_file(root)
    pd.read_parquet(path).drop(columns="RP_19.92").to_parquet(path)


def short_file(root):
    path = first_file(root)
    pd.read_parquet(path).iloc[:5].to_parquet(path)


DAMAGES = [
    (drop_column, r"train.csv: missing column gpd_vote; it has eeg_id"),
    (set_votes(-1), r"train.csv: row 5 .*votes must not be negative: \[-1"),
    (set_votes(0), r"train.csv: row 5 .*votes are all zero: \[0"),
    (lambda root: first_file(root).unlink(), r"train_spectrograms: 1 of the 6 files .* missing, the first is \d+.parq"),
    (cut_file, r"\d+.parquet: truncated parquet"),
    (csv_named_parquet, r"\d+.parquet: not a parquet file: it begins with .*a renamed CSV"),
    (drop_spectrogram_column, r"\d+.parquet: missing column 'RP_19.92'"),
    (short_file, r"\d+.parquet: it has 10 s, but a label's offset is"),
    (lambda root: (root / "train.csv").write_text(""), r"train.csv: not a readable CSV"),
    (lambda root: (root / "train.csv").unlink(), r"no train.csv there; --data names the competition's folder"),
    (lambda root: shutil.rmtree(root / "train_spectrograms"), r"train_spectrograms: no such folder"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES)
def test_broken_data_is_refused_before_the_study_is_begun(toy, tmp_path, damage, sentence):
    folder = StudyFolder(tmp_path / "new")
    with pytest.raises(DataError, match=sentence):
        open_study(folder, [toy.space], broken(toy.root, tmp_path, damage))
    assert not folder.root.exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"folds": 7}, r"folds must be from 2 to the number of patients, 6, but got 7"),
        ({"score": {"min_votes": 13}}, r"no unit has min_votes=13 votes or more; the largest .* is 12"),
        (
            {"stages": [{"epochs": 1, "lr": 0.1, "min_votes": 13}]},
            r"space toy: a stage with min_votes 13, max_votes None leaves no unit to train on; their votes are 2 to 12",
        ),
        (
            {"model": {"name": "timm_image", "arch": "maxvit_tiny_rw_224", "pretrained": False}},
            r"space toy: model timm_image cannot take image inputs of shape \(1, 100, 75\)",
        ),
    ],
)
def test_a_run_that_cannot_work_is_refused_before_the_study_is_begun(toy, tmp_path, change, sentence):
    folder = StudyFolder(tmp_path / "new")
    with pytest.raises(ConfigError, match=sentence):
        open_study(folder, [toy.make_space(**change)], toy.root)
    assert not folder.root.exists()


def staged(**stage):
    """Stages of which the second is that; the toy study has 16 units of 4 patients to train on in each fold."""
    return [{"epochs": 1, "lr": 0.1}, {"epochs": 3, "lr": 0.1, **stage}]


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ({"evaluations": 3}, r"3 evaluations an epoch need as many batches; there are 2"),
        ({"pseudo": {"parts": 5}}, r"pseudo.parts is 5, but the fold has 4 patients to train on"),
        ({"pseudo": {"below": 2}}, r"pseudo.below 2: no unit of the stage has fewer votes"),
        ({"min_votes": 10, "pseudo": {}}, r"pseudo.below 10: no unit of the stage has fewer votes"),
        (
            {"max_votes": 9, "low_votes": {"end": 0}},
            r"low_votes gives every unit of epoch 3 of its stage a loss weight of 0",
        ),
        (
            {"max_votes": 9, "low_votes": {"start": 0}},
            r"low_votes gives every unit of epoch 1 of its stage a loss weight of 0",
        ),
    ],
)
def test_a_stage_that_no_fold_could_train_is_refused_before_the_study_is_begun(toy, tmp_path, stage, sentence):
    folder = StudyFolder(tmp_path / "new")
    with pytest.raises(ConfigError, match=f"space toy: {sentence}"):
        open_study(folder, [toy.make_space(stages=staged(**stage))], toy.root)
    assert not folder.root.exists()


def test_a_stage_of_one_epoch_never_has_the_weights_of_its_last(toy, tmp_path):
    """Its first epoch is its last, and has the weights of the first."""
    stages = staged(epochs=1, max_votes=9, low_votes={"end": 0}, evaluations=1)
    open_study(StudyFolder(tmp_path / "new"), [toy.make_space(stages=stages)], toy.root)
    possible = staged(evaluations=2, low_votes={"end": 0}, pseudo={"parts": 4})
    open_study(StudyFolder(tmp_path / "new"), [toy.make_space(stages=possible)], toy.root)


def test_spaces_of_one_study_must_agree(toy, tmp_path):
    others = [toy.make_space("b", folds=2), toy.make_space("c", seed=4), toy.make_space("toy")]
    with pytest.raises(ConfigError) as error:
        open_study(StudyFolder(tmp_path / "new"), [toy.space, *others], toy.root)
    for part in ("b has folds: 2, toy has 3", "c has seed: 4, toy has 0", "toy is given twice"):
        assert part in str(error.value)


def test_every_choice_of_a_model_or_a_feature_is_rehearsed(toy):
    space = toy.make_space(
        search={
            "feature.arrange": {"choice": ["stack", "channels"]},
            "model.width": {"choice": [4, 8]},
            "model.depth": {"int": [2, 3]},
            "stages.0.lr": {"uniform": [0.1, 0.2]},
        }
    )
    runs = [(run.feature.params.arrange, run.model.params.width) for run in variants(space)]
    assert runs == [("stack", 4), ("stack", 4), ("channels", 4), ("stack", 4), ("stack", 8)]


def test_folds_with_scored_units_come_first(toy):
    votes = np.where(toy.study.labels.folds == 2, 12, 3)
    study = replace(toy.study, labels=replace(toy.study.labels, votes=votes))
    assert study.trial_store().scored_folds() == [2, 0, 1]
    assert toy.study.trial_store().scored_folds() == [0, 1, 2]


def test_a_job_names_its_checkpoint_and_a_prepared_feature(toy):
    job = toy.study.job("toy-0000", toy.space.run, 1)
    assert [is_whole(store.path) for store in job.stores] == [True]
    assert job.saved == toy.folder.trial("toy-0000").fold(1).checkpoint.absolute()
    assert job.run == toy.space.run


def test_what_a_warm_start_was_chosen_on_outlives_the_other_study(toy, tmp_path):
    search = {"stages.0.lr": {"log_uniform": [1e-3, 1e-1]}}
    other = toy.make_space("other", search)
    toy.study.folder.add_space("other", other.resolved())
    journal = Journal(toy.folder, other)
    number, _ = journal.propose(0)
    journal.complete(number, 0.5, 1.0)
    warm = replace(toy.make_space("warm", search), sampler=Sampler(warm_start=str(toy.folder.root)))
    folder = StudyFolder(tmp_path / "warm")
    toy.open(folder, [warm], toy.root)
    assert folder.read_study()["spaces"]["warm"]["warm_start_chosen_on"] == [0, 1, 2], "no table says which"
    shutil.rmtree(toy.folder.root)
    assert toy.open(folder, [warm], toy.root).chosen_on(warm) == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"sampler\.warm_start"):
        toy.open(StudyFolder(tmp_path / "new"), [warm], toy.root)


def test_the_quality_of_each_units_recordings_is_kept(toy):
    toy.study.prepare([toy.space])
    table = files.read_table(toy.folder.quality)
    assert table["unit_id"].tolist() == toy.study.labels.unit_ids.tolist() and set(table["kind"]) == {"spectrogram"}
    assert (table.loc[table["nan"] > 0, "unit_id"].str[:10].nunique()) == 2, "patient 0's two EEGs: empty rows"
    toy.study.prepare([toy.make_space("waves", feature={"name": "raw_image"}, input={"compute": "batch"})])
    table = files.read_table(toy.folder.quality)
    assert table["kind"].value_counts().to_dict() == {"spectrogram": 24, "eeg": 24}, "each command adds its kinds"


def test_limits_that_leave_nothing_to_train_on_are_refused(toy, make_hms_folder, tmp_path):
    root = make_hms_folder(tmp_path / "two", patients=2)  # only patient 1 has no gap
    strict = toy.make_space("strict", quality={"nan": 0.0}, folds=2)
    study = open_study(StudyFolder(tmp_path / "new"), [strict], root)
    with pytest.raises(ConfigError, match=r"space strict: quality: 4 of 8 units are good enough: a stage with"):
        study.prepare([strict])
    assert not study.folder.root.exists()
    study.prepare([toy.make_space("light", quality={"nan": 0.0, "weight": 0.1}, folds=2)])
