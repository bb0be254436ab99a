"""The public face: the names it has, what importing it costs, and a study from search to prediction."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

import hms_ray as hr
from hms_ray.core.errors import ConfigError
from hms_ray.study.oof import OofTable

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "stages": [{"epochs": 1, "lr": 0.01}],
    "folds": 2,
}
SPACE = {
    "base": BASE,
    "search": {"stages.0.lr": {"log_uniform": [0.001, 0.1]}},
    "budget": {"trials": 2, "trial_folds": 1, "finalists": 2},
    "race": "none",
}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HMS_RAY_DATA", raising=False)


@pytest.fixture(scope="module")
def study(hms_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> hr.Study:
    """A search of two trials in this process."""
    root = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("HMS_RAY_CACHE", str(root / "cache"))
        (root / "toy.yaml").write_text(yaml.safe_dump(SPACE))
        return hr.search(root / "toy.yaml", hms_folder, study=root / "study", in_process=True, progress=False)


def test_the_public_names_are_these() -> None:
    assert set(hr.__all__) == {
        *("Ensemble", "Limits", "Study", "__version__", "fit", "import_oof", "load_space", "load_study"),
        *("predict", "prepare", "report", "search", "train"),
    }
    for name in hr.__all__:
        assert getattr(hr, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        _ = hr.serach


def test_importing_it_imports_no_library() -> None:
    program = "import sys, hms_ray; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"numpy", "pandas", "pyarrow", "scipy", "torch", "ray", "optuna", "pydantic"} & set(done.stdout.split())


@pytest.mark.parametrize("name", ["search", "report"])
def test_a_verb_that_shares_its_name_with_a_package_is_both(name: str) -> None:
    program = (
        f"import hms_ray as hr\nbefore = hr.{name}\nimport hms_ray.{name} as package\n"
        f"assert callable(before) and callable(hr.{name}) and hr.{name} is package\n"
        f"try:\n    hr.{name}('none')\nexcept Exception as error:\n    print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "ConfigError\n"


def test_a_study_shows_its_trials_its_models_and_its_ensemble(study: hr.Study) -> None:
    assert study.trials["state"].tolist() == ["COMPLETE", "COMPLETE"]
    board = study.leaderboard()
    assert board["trial"].tolist() == sorted(board["trial"], key=board.set_index("trial")["score"].get)
    table = OofTable.read(study.folder.oof(board["trial"][0]))
    assert board["score"][0] == table.task.score(*(getattr(table, n)[table.votes >= 10] for n in ("targets", "probs")))
    assert (board["units"].iloc[0], board["patients"].iloc[0]) == (int((table.votes >= 10).sum()), 6)
    assert set(study.oof) >= {"unit_id", "group_id", "fold", "votes", "seizure_target", "seizure_prob"}
    assert len(study.oof) == len(study.oof_of(board["trial"][0])) == len(table.votes)


def test_it_is_opened_again_and_fitted_otherwise(study: hr.Study) -> None:
    again = hr.load_study(study.path)
    assert repr(again) == f"Study('{study.path}')"
    pd.testing.assert_frame_equal(again.leaderboard(), study.leaderboard())
    before = again.ensemble
    assert again.fit_ensemble("uniform", progress=False).ensemble != before
    assert again.fit_ensemble(progress=False).ensemble == before, "the same fit, the same numbers"


def test_it_reports_and_predicts(study: hr.Study, hms_folder: Path, tmp_path: Path) -> None:
    page = hr.report(study, tmp_path / "page")
    assert page == tmp_path / "page" / "index.html" and study.path.name in page.read_text()
    assert hr.predict(study.path, hms_folder, out=tmp_path / "submission.csv", progress=False) == 1
    assert pd.read_csv(tmp_path / "submission.csv").filter(like="_vote").sum(axis=1).tolist() == pytest.approx([1])


def test_progress_is_logged_where_nobody_has_set_up_logging(study: hr.Study) -> None:
    program = f"import hms_ray as hr\nhr.load_study({str(study.path)!r}).fit_ensemble(progress={{}})\n"
    said = [
        subprocess.run(
            [sys.executable, "-c", program.format(progress)], capture_output=True, text=True, check=True
        ).stderr
        for progress in (True, False)
    ]
    assert "ensemble: " in said[0]
    assert "ensemble: " not in said[1]


def test_overrides_are_given_by_path(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SPACE))
    loaded = hr.load_space("toy.yaml", {"stages.0.lr": 1e-3, "model": {"name": "basic_cnn", "width": 8, "depth": 2}})
    assert (loaded.run.stages[0].lr, loaded.run.model.params.width, loaded.ranges) == (1e-3, 8, ())
    assert hr.load_space("toy.yaml", ["stages.0.lr=1e-3"]).run.stages[0].lr == 1e-3
    assert hr.load_space("toy.yaml", smoke=True).budget.trials == 2


def test_mistakes_are_one_sentence(tmp_path: Path, study: hr.Study) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SPACE))
    with pytest.raises(ConfigError, match="no space named 'dmeo'"):
        hr.search("dmeo")
    with pytest.raises(ConfigError, match=r"budget\.trials: .*must be 1 or more, but got 0"):
        hr.search("toy.yaml", trials=0)
    with pytest.raises(ConfigError, match="space: none is named"):
        hr.search([])
    with pytest.raises(ConfigError, match="space toy is loaded already: give trials"):
        hr.search(hr.load_space("toy.yaml"), tmp_path, trials=3)
    with pytest.raises(ConfigError, match="there is no folder none"):
        hr.load_study("none")
    with pytest.raises(ConfigError, match=r"has no out-of-fold table of 'toy-9999'; it has toy-000"):
        study.oof_of("toy-9999")
