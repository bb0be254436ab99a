"""What a run reads: prepared once for all runs, and opened where a fold is trained."""

from collections.abc import Mapping, Sequence

from hms_ray.core.progress import Progress
from hms_ray.datasets import Dataset, Examples, Windows
from hms_ray.store.inputs import Inputs, open_inputs
from hms_ray.store.prepare import check, prepare_all
from hms_ray.store.share import StoreRef
from hms_ray.store.workers import Workers
from hms_ray.training.published_weights import equipped
from hms_ray.training.run_config import RunConfig


def check_inputs(dataset: Dataset, run: RunConfig) -> None:
    """Refuse recordings that the run cannot read, before any work; errors as in `store.check`."""
    check(dataset, run.feature_ref, run.input)


def prepare_inputs(dataset: Dataset, run: RunConfig, workers: Workers | None = None) -> tuple[StoreRef, ...]:
    """Return the stores that the run reads, prepared unless that is done; errors as in `prepare_runs`."""
    return prepare_runs(dataset, [run], workers)[0]


def prepare_runs(
    dataset: Dataset, runs: Sequence[RunConfig], workers: Workers | None = None
) -> list[tuple[StoreRef, ...]]:
    """Return the stores that each run reads, prepared unless that is done; errors as in `store.prepare`.

    Each recording is read once for all of them.

    Raises:
        ConfigError: besides, a feature's published weights cannot be had, or are another network's.
    """
    return prepare_all(dataset, [(equipped(run.feature_ref), run.input) for run in runs], Progress, workers)


def open_run(run: RunConfig, stores: Sequence[StoreRef], windows: Mapping[str, Windows], examples: Examples) -> Inputs:
    """Open what the run reads."""
    return open_inputs(stores, run.feature_ref, run.input, windows, examples)
