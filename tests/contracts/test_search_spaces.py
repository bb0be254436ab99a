"""What every shipped space keeps: no configuration that a sampler draws from it is impossible.

Networks are rehearsed without memory for their weights, without the hub and without recordings, and each that
configurations share once.
"""

from pathlib import Path

import pytest
from optuna.trial import TrialState

from hms_ray import tasks
from hms_ray.core.errors import ConfigError
from hms_ray.search.optuna.samplers import Proposer
from hms_ray.search.space.space import Union, load
from hms_ray.training.dry_run import Rehearsals
from hms_ray.training.run_config import try_run

FOLDER = Path(__file__).parents[2] / "search_spaces"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DRAWS = 60
REHEARSALS = {
    "hms": Rehearsals(tasks.from_dict({"kind": "votes", "classes": list("abcdef")})),
    "bmd_hs": Rehearsals(tasks.from_dict({"kind": "multilabel", "classes": list("abcde")})),
}


@pytest.mark.parametrize(("name", "sampler"), [*((name, "random") for name in NAMES), ("effnet", "tpe")])
def test_every_configuration_that_is_drawn_passes_its_rehearsal(name: str, sampler: str) -> None:
    """The default sampler learns from made-up scores."""
    space = load(str(FOLDER / f"{name}.yaml"), (f"sampler={sampler}",))
    proposer, trials, faults = Proposer(space), [], []
    for number in range(DRAWS):
        trial, content = proposer.propose(trials, number if sampler == "tpe" else 0, None)
        trial.number, trial.state, trial.value = number, TrialState.COMPLETE, len(str(trial.params)) % 17
        trials.append(trial)
        run, found = try_run(content)
        faults += found
        if run is not None and not isinstance(space, Union):  # its spaces have a case of their own
            try:
                REHEARSALS[run.data.name].check(run)
            except ConfigError as error:
                faults.append(str(error))
    assert not faults, f"{len(faults)} of {DRAWS}: {faults[0]}"
