"""From a run's parameters to the network and the recipe of a fold."""

from types import ModuleType

from torch import nn

from hms_ray import registry
from hms_ray.core import files, provenance, seeds
from hms_ray.core.errors import ConfigError
from hms_ray.models._heads import takes_covariates
from hms_ray.store.inputs import input_spec
from hms_ray.store.share import StoreRef
from hms_ray.tasks import Task
from hms_ray.training.published_weights import origin
from hms_ray.training.published_weights import read as read_weights
from hms_ray.training.recipe import Recipe
from hms_ray.training.run_config import RunConfig


def build_model(run: RunConfig, task: Task, weights: StoreRef | None = None) -> nn.Module:
    """Build the run's network, from published weights where there are some.

    Raises:
        ConfigError: they are another network's, or the network takes no covariates.
        DataError: they are not on this machine.
    """
    spec, params, given = input_spec(run.feature_ref, run.input), run.model.params, ()
    if weights is not None:
        name = {"pretrained": origin(weights)}  # a worker's run says false, which is no name
        params = params.model_copy(update=name)
        given = (read_weights(weights),)
    network = run.model.module.build(spec, len(task.classes), params, *given)
    if spec.covariates and not takes_covariates(network):
        raise ConfigError(f"input.covariates: model {run.model.name} takes only its {spec.layout}; leave them out")
    return network


def make_recipe(run: RunConfig, task: Task, fold: int, weights: StoreRef | None = None) -> Recipe:
    """Return what training needs of a run; the seed differs from fold to fold."""
    content = {key: value for key, value in run.content.items() if key not in ("data", "folds")}  # a study has one
    return Recipe(
        build=lambda: build_model(run, task, weights),
        augment=tuple(tuple((part.module, part.params) for part in stage) for stage in run.stage_augment),
        optim=run.optim,
        stages=run.stages,
        epoch=run.epoch,
        candidates=run.epoch_candidates,
        min_votes=run.score.min_votes,
        test_time=test_time(run),
        seed=fold_seed(run, fold),
        fingerprint=files.fingerprint(provenance.fingerprint(), content, fold, weights and weights.name),
    )


def fold_seed(run: RunConfig, fold: int) -> int:
    """Return the seed of a fold."""
    return seeds.derive(run.seed, "fold", fold)


def test_time(run: RunConfig) -> tuple[ModuleType, ...]:
    """Return the augmentations whose deterministic variants are predicted too."""
    return tuple(registry.load("augment", name) for name in run.test_time)
