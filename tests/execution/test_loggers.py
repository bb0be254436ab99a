"""Loggers: Ray's own callbacks get plain numbers and a flat run, and what they cannot do is refused beforehand."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback

from hms_ray.core.errors import ConfigError
from hms_ray.execution import loggers
from hms_ray.training.jobs import FoldJob

RUN = {
    "model": {"name": "basic_cnn", "width": 16, "pretrained": False},
    "augment": {},
    "stages": [{"epochs": 2, "lr": 1e-3, "max_votes": None}, {"epochs": 1, "lr": 1e-4, "max_votes": 9}],
    "seed": 0,
}
FLAT = {
    "model.name": "basic_cnn",
    "model.width": 16,
    "model.pretrained": False,
    "stages.0.epochs": 2,
    "stages.0.lr": 1e-3,
    "stages.1.epochs": 1,
    "stages.1.lr": 1e-4,
    "stages.1.max_votes": 9,
    "seed": 0,
}


class _Placed(Trial):
    """One of Tune's own trials; where its files are, it knows only while Ray runs."""

    @property
    def local_path(self) -> str:
        return str(Path(self.storage.storage_fs_path) / self.custom_dirname)


@pytest.fixture
def make_trial(tmp_path: Path) -> Callable[[str], Trial]:
    """The function that makes a trial of Tune's as the search configures it."""

    def make(name: str) -> Trial:
        job = FoldJob(name, SimpleNamespace(content=RUN), 0, tmp_path / "store", tmp_path / "saved")
        storage = StorageContext(str(tmp_path / "ray"), "tune")
        return _Placed(
            "trainable",
            stub=True,
            config={"work": SimpleNamespace(trial=name, jobs=(job,))},
            storage=storage,
            trial_name_creator=loggers.trial_name,
            trial_dirname_creator=loggers.trial_name,
        )

    return make


def result(epoch: int, score: float) -> dict:
    """One of Tune's results: our numbers among its own."""
    ours = {"fold": 1, "epoch": epoch, "train_loss": 1 / epoch, "score": score}
    return ours | {"training_iteration": epoch, "config": {"work": object()}, "time_total_s": 3.0, "hostname": "h"}


class Recorder(LoggerCallback):
    """Remembers what it is told; raises from the call with that number on."""

    def __init__(self, until: int = 1000) -> None:
        self.calls: list[tuple] = []
        self.until = until

    def _add(self, *call: object) -> None:
        self.calls.append(call)
        if len(self.calls) > self.until:
            raise ConnectionError("gone\nfor good")

    def setup(self, **info: object) -> None:
        self._add("setup")

    def log_trial_start(self, trial: object) -> None:
        self._add("start", trial)

    def log_trial_result(self, iteration: int, trial: object, result: dict) -> None:
        self._add("result", trial, result)

    def log_trial_end(self, trial: object, failed: bool = False) -> None:
        self._add("end", trial, failed)

    def on_experiment_end(self, trials: list, **info: object) -> None:
        self._add("over")


def test_a_run_is_flat_without_what_is_none():
    assert loggers.parameters(RUN) == FLAT
    assert loggers.parameters({}) == {}


def test_trials_and_their_folders_have_the_study_s_ids(make_trial):
    trial = make_trial("demo-0003")
    assert str(trial) == "demo-0003"
    assert Path(trial.local_path).name == "demo-0003"


def test_nothing_is_logged_where_nobody_asks(tmp_path):
    loggers.check(None, None)
    assert loggers.callbacks(None, None, tmp_path / "study" / "ray") == []


def test_a_logger_sees_one_flat_trial_and_finite_numbers_of_ours(make_trial):
    recorder, trial = Recorder(), make_trial("demo-0003")
    plain = loggers._Plain(recorder, (OSError,))
    plain.setup(experiment_name="x")
    plain.on_trial_start(0, [trial], trial)
    plain.on_trial_result(0, [trial], trial, result(1, math.nan))
    plain.on_trial_result(1, [trial], trial, result(2, 0.5))
    plain.on_trial_error(2, [trial], trial)
    plain.on_experiment_end([trial])
    (_, shown) = recorder.calls[1]
    assert (str(shown), shown.trial_id, shown.local_path) == ("demo-0003", trial.trial_id, trial.local_path)
    assert shown.config == {"trial": "demo-0003"} | FLAT
    first = {"fold": 1, "epoch": 1, "train_loss": 1.0, "training_iteration": 1}
    second = {"fold": 1, "epoch": 2, "train_loss": 0.5, "training_iteration": 2, "score": 0.5}
    assert recorder.calls == [
        ("setup",),
        ("start", shown),
        ("result", shown, first),
        ("result", shown, second),
        ("end", shown, True),
        ("over",),
    ]
    assert trial.config["work"].trial == "demo-0003", "Tune's own trial stays as it is"


def test_a_logger_that_is_gone_is_switched_off_once(make_trial, caplog):
    recorder, trial = Recorder(until=2), make_trial("demo-0003")
    plain = loggers._Plain(recorder, (OSError,))
    plain.setup()
    plain.on_trial_start(0, [trial], trial)
    for epoch in (1, 2, 3):
        plain.on_trial_result(epoch, [trial], trial, result(epoch, 0.5))
    plain.on_trial_complete(4, [trial], trial)
    assert len(recorder.calls) == 3
    assert caplog.messages == ["Recorder is switched off, the search goes on: gone"]


def test_our_own_bugs_are_no_outage(make_trial):
    trial = make_trial("demo-0003")
    plain = loggers._Plain(Recorder(), (OSError,))
    with pytest.raises(KeyError, match="train_loss"):
        plain.on_trial_result(0, [trial], trial, {"fold": 0, "epoch": 1})


def test_missing_packages_are_named_together(monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        loggers.check("http://localhost:5000", "eeg")
    assert "log.mlflow: needs the package mlflow: pip install 'hms-ray[mlflow]'" in str(caught.value)
    assert "log.wandb: needs the package wandb: pip install 'hms-ray[wandb]'" in str(caught.value)


@pytest.fixture
def mlflow():
    return pytest.importorskip("mlflow", reason="needs the extra mlflow")


def test_a_tracking_uri_that_cannot_be_used_is_refused(mlflow):
    with pytest.raises(ConfigError, match=r"log\.mlflow: 'carrier://pigeon' cannot be used"):
        loggers.check("carrier://pigeon", None)


def test_mlflow_gets_parameters_curves_and_states(mlflow, make_trial, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    loggers.check(uri, None)
    (callback,) = loggers.callbacks(uri, None, tmp_path / "study" / "ray")
    good, bad = make_trial("demo-0000"), make_trial("demo-0001")
    callback.setup()
    for trial in (good, bad):
        callback.on_trial_start(0, [good, bad], trial)
        for epoch in (1, 2, 3):
            callback.on_trial_result(epoch, [good, bad], trial, result(epoch, math.nan if epoch == 1 else 1 / epoch))
    callback.on_trial_complete(3, [good, bad], good)
    callback.on_trial_error(3, [good, bad], bad)
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert {name: run.info.status for name, run in by_name.items()} == {"demo-0000": "FINISHED", "demo-0001": "FAILED"}
    run = by_name["demo-0000"]
    assert run.data.params == {name: str(value) for name, value in ({"trial": "demo-0000"} | FLAT).items()}
    assert set(run.data.metrics) == set(loggers.SHOWN)
    history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "score")}
    assert history == pytest.approx({2: 1 / 2, 3: 1 / 3})


@pytest.fixture
def wandb(monkeypatch):
    module = pytest.importorskip("wandb", reason="needs the extra wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SETUP_API_KEY_HOOK"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_wandb_without_a_login_is_refused(wandb, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match=r"log\.wandb: No WandB API key found; run `wandb login`"):
        loggers.check(None, "eeg")


def test_wandb_offline_needs_no_login(wandb, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    loggers.check(None, "eeg")
    (callback,) = loggers.callbacks(None, "eeg", tmp_path / "study" / "ray")
    assert (callback.logger.project, callback.logger.group) == ("eeg", "study")
    assert callback.logger.kwargs == {"dir": str(tmp_path / "study" / "ray")}
