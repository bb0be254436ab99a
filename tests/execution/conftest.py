"""A Ray of its own with fake GPUs, whose workers do as a fold's run says instead of training."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hms_ray.execution.events import FoldDone, FoldFailed, Message, Work
from hms_ray.execution.session import DRIVER_ENV, LOCAL_ENV
from hms_ray.training.jobs import FoldJob

CPUS, GPUS = 16, 4


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """Ray with 16 CPUs and 4 GPUs that do not exist."""
    import ray

    settings = {"HMS_RAY_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (DRIVER_ENV | LOCAL_ENV | settings).items():
            patch.setenv(name, value)
        ray.init(
            "local",
            num_cpus=CPUS,
            num_gpus=GPUS,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": settings, "worker_process_setup_hook": _scripted()},
            _system_config={"prestart_worker_first_driver": False},
        )
        ray._private.worker.global_worker.node.kill_log_monitor()  # nobody reads what it finds ten times a second
        yield
        ray.shutdown()


def _scripted() -> Callable[[], None]:
    """Return what replaces the training in a worker: one fold takes job.run["seconds"], or does what it says there.

    Folds with job.run["meet"] end when two have begun that are told to meet in that folder.

    The one row of its curve tells which device it had, when, and which devices its team had.
    """

    def hook() -> None:  # pickled by value, so that all it needs is imported here
        import sys
        from importlib.machinery import ModuleSpec, PathFinder
        from unittest.mock import MagicMock

        class StandIns:
            """Finds what only training needs, which would take a worker as long to load as all the rest."""

            def find_spec(self, name, path, target=None):
                return ModuleSpec(name, self) if name.split(".")[0] in ("sklearn", "timm", "torchvision") else None

            def create_module(self, spec):
                return MagicMock(__path__=[])

            def exec_module(self, module):
                pass

        class Scripts:
            """Changes what a worker does once that is imported: most processes of Ray never do."""

            def find_spec(self, name, path, target=None):
                if name != "hms_ray.execution.worker":
                    return None
                spec = PathFinder.find_spec(name, path, target)
                run = spec.loader.exec_module

                def exec_module(module):
                    run(module)
                    script(module)

                spec.loader.exec_module = exec_module
                return spec

        def script(worker):
            import errno
            import os
            import signal
            import time
            from pathlib import Path

            import ray
            import torch

            from hms_ray.training.jobs import FoldJob, FoldResult

            def train_job(job, labels, replica, on_epoch, on_taught):
                begun, (device, *_) = time.time(), [*ray.get_gpu_ids(), -1]
                held = torch.zeros(4)
                held[int(device)] = 1
                row = {"fold": job.fold, "epoch": 1, "train_loss": 0.0, "score": 0.0, "memory_gb": 0.0}
                row |= {"team": replica.team.mean(held).tolist(), "device": int(device), "pid": os.getpid()}
                on_epoch(row)
                match job.run.get("does"):
                    case "die":
                        os.kill(os.getpid(), signal.SIGKILL)
                    case "fill the disk":
                        raise OSError(errno.ENOSPC, "No space left on device")
                if meet := job.run.get("meet"):
                    Path(meet, job.trial).touch()
                    while len(os.listdir(meet)) < 2:
                        time.sleep(0.02)
                time.sleep(job.run.get("seconds", 0.1))
                row |= {"begun": begun, "ended": time.time()}
                row |= {"share": ray.get_runtime_context().get_assigned_resources().get("GPU", 0)}
                return FoldResult(job.fold, np.empty(0), np.empty(0), [row])

            worker.train_job, FoldJob.effort = train_job, 1

        sys.meta_path[:0] = [StandIns(), Scripts()]

    return hook


class Script:
    """A source of given works; remembers what it was told."""

    def __init__(self, works: Sequence[Work]) -> None:
        self.left, self.said, self.over, self.given = deque(works), [], [], 0
        self.lock = threading.Lock()

    def next(self) -> Work | None:
        with self.lock:
            self.given += bool(self.left)
            return self.left.popleft() if self.left else None

    def exhausted(self) -> bool:
        return not self.left

    def remaining(self) -> int:
        return len(self.left) + self.given - len(self.over)

    def handle(self, message: Message) -> None:
        self.said.append(message)

    def goes_on(self, trial: str, fold: int) -> bool:
        return True

    def ended(self, work: Work) -> None:
        self.over.append(work.trial)

    def rows(self) -> list[dict]:
        """What the workers said of the folds that they finished."""
        return [m.result.epochs[0] | {"trial": m.trial} for m in self.said if isinstance(m, FoldDone)]

    def causes(self) -> dict[tuple[str, int], str]:
        """Why folds failed."""
        return {(m.trial, m.fold): m.cause for m in self.said if isinstance(m, FoldFailed)}


@pytest.fixture
def labels() -> SimpleNamespace:
    """What scripted folds need of labels: how many folds there are."""
    return SimpleNamespace(n_folds=3)


@pytest.fixture
def script() -> Callable[..., Script]:
    """The function that makes a source of so many trials."""
    return Script


@pytest.fixture
def work() -> Callable[..., Work]:
    """The function that makes one trial: work("a", {"seconds": 1}, {}, gpus=0.5) has two folds."""

    def make(trial: str, *folds: dict, gpus: float = 0.0) -> Work:
        jobs = [FoldJob(trial, does, fold, (), Path(f"{fold}.pt")) for fold, does in enumerate(folds)]
        return Work(trial, tuple(jobs), gpus)

    return make
