"""Networks of transformers: the library reads published weights, as it knows how names have changed since."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from hms_ray.encoders.leftover import besides, some
from hms_ray.encoders.pretrained import State, misfit


def published(
    kind: type[PreTrainedModel], config: PreTrainedConfig, weights: State, name: str, network: str, cut: str = ""
) -> State:
    """Return the state of a body of that kind with published weights, under the installed library's names.

    name, network: what weights and network are called in a message
    cut: the part of which the file may have more

    Raises:
        ConfigError: the weights are another network's: a tensor is missing, has another shape, or finds no place.
    """
    try:
        with _quiet():
            loaded = kind.from_pretrained(
                None, config=config, state_dict=dict(weights), dtype=torch.float32, output_loading_info=True
            )
        body, found = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)  # what output_loading_info returns
    except RuntimeError as error:
        raise misfit(name, network, str(error)) from error
    state, missing = body.state_dict(), found["missing_keys"]
    if missing:
        cause = f"the file has {len(state) - len(missing)} of the network's {len(state)} tensors"
        raise misfit(name, network, cause)
    unexpected = [key.removeprefix(f"{kind.base_model_prefix}.") for key in found["unexpected_keys"]]
    if others := besides(unexpected, state, {cut}):
        raise misfit(name, network, f"the file has besides {some(others)}")
    return state


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bar, and without its report of the head that is left out."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
