"""The network of one fold: its weights, their average, how it computes on its device, and what it predicts."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3

from hms_ray.core import seeds
from hms_ray.core.errors import TrialFailed, UserError
from hms_ray.models._heads import fit_covariates
from hms_ray.store.inputs import memory_format
from hms_ray.training import checkpoint, memory, precision
from hms_ray.training.early_stopping import Networks
from hms_ray.training.evaluate import predict
from hms_ray.training.recipe import Fold


class FoldModel:
    """A network in training, and the moving average of its weights, if the recipe has one.

    wrapped: the network with gradients that are averaged over the workers of its team
    precision: in which the network computes; scaler: scales the loss of float16, whose small gradients would become 0
    batch_rows: rows of a full batch on this worker
    rows: that pass through the network at a time, fewer once the device ran out of memory
    updates: optimiser steps so far, without skipped ones
    """

    def __init__(self, fold: Fold) -> None:
        recipe, data, replica = fold.recipe, fold.data, fold.replica
        self.fold, self.device, self.updates = fold, replica.device, 0
        torch.manual_seed(seeds.derive(recipe.seed, "weights"))
        with replica.together():
            try:
                self.network = recipe.build()
            except UserError as error:  # published weights that are damaged on one machine fail the trial on all
                raise TrialFailed(str(error)) from error
        if data.inputs.covariates is not None:
            examples = torch.from_numpy(data.training_examples(fold.training_units))
            fit_covariates(self.network, data.inputs.covariates[examples])
        self.network.to(self.device, memory_format=memory_format(1 + len(data.inputs.spec.shape)))
        self.average = ModelEmaV3(self.network, decay=recipe.optim.ema, use_warmup=True) if recipe.optim.ema else None
        if recipe.optim.compile:
            self.network.compile()
        self.precision = precision.agreed(recipe.optim.precision, replica)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.wrapped = replica.team.wrap(self.network)
        self.batch_rows = self.rows = -(-recipe.optim.batch // replica.size)

    @property
    def scored(self) -> torch.nn.Module:
        """The network that is scored and kept: the average where there is one."""
        return self.average.module if self.average else self.network

    def predict(self, units: np.ndarray, epoch: int) -> np.ndarray:
        """Return the probabilities (n, K) of n units after an epoch, averaged over their examples.

        The first worker predicts; all others get NaN.

        Raises:
            TrialFailed: on all workers, where a probability is not finite.
        """
        data = self.fold.data
        unit_probs = np.full((len(units), len(data.task.classes)), np.nan)
        with self.fold.replica.together():
            if self.fold.replica.rank == 0:
                probs = predict(
                    self.scored,
                    data.inputs,
                    data.examples.of(units),
                    data.task,
                    self.device,
                    2 * self.rows,  # no gradients to hold
                    self.fold.recipe.test_time,
                    self.precision,
                )
                if not np.isfinite(probs).all():  # weights that overflow in the last step show in no loss
                    raise TrialFailed(
                        f"the predictions after epoch {epoch} are not finite; a smaller lr or clip_grad may help"
                    )
                unit_probs = data.examples.mean(units, probs)
        return unit_probs

    def score(self, units: np.ndarray, probs: np.ndarray) -> float:
        """Return the score of what `predict` returned; NaN without units, and on all workers but the first."""
        if not len(units) or self.fold.replica.rank > 0:
            return math.nan
        return self.fold.data.task.score(self.fold.data.targets[units], probs)

    def usage(self) -> dict[str, Any]:
        """Return what the fold took of its device so far, under the names of FoldResult."""
        sizes = {"peak_gpu_bytes": memory.peak(self.device), "gpu_bytes": memory.total(self.device)}
        return sizes | {"out_of_memory": self.rows < self.batch_rows}

    def packed(self) -> bytes:
        """Return the weights that are scored, as a safetensors file."""
        return checkpoint.pack(self.scored.state_dict())

    def networks(self) -> Networks:
        """Return the weights and buffers of the network and of its average."""
        average = {"average": self.average.module.state_dict()} if self.average else {}
        return {"plain": self.network.state_dict()} | average

    def load_networks(self, networks: Networks) -> None:
        """Go back to what `networks` returned."""
        self.network.load_state_dict(networks["plain"])
        if self.average:
            self.average.module.load_state_dict(networks["average"])

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch needs of this object."""
        return {"updates": self.updates, "networks": self.networks(), "scaler": self.scaler.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.load_networks(state["networks"])
        self.updates = state["updates"]
        self.scaler.load_state_dict(state["scaler"])
