"""Read published weights for networks of transformers; the library knows the old names of tensors."""

from typing import cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from hms_ray.encoders.leftover import besides, some
from hms_ray.encoders.pretrained import State, misfit


def published(
    kind: type[PreTrainedModel], config: PreTrainedConfig, weights: State, name: str, network: str, cut: str = ""
) -> State:
    """Return published weights of a network of that kind, under the installed library's names.

    name, network: names of the weights and of the network for messages
    cut: the part of which the file may have more tensors

    Raises:
        ConfigError: the weights belong to another network: a tensor is missing, superfluous, or of another shape.
    """
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # no report of the head that is left out
    logging.disable_progress_bar()
    try:
        loaded = kind.from_pretrained(
            None, config=config, state_dict=dict(weights), dtype=torch.float32, output_loading_info=True
        )
    except RuntimeError as error:
        raise misfit(name, network, str(error)) from error
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
    body, keys = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)  # because of output_loading_info
    state, missing = body.state_dict(), keys["missing_keys"]
    if missing:
        cause = f"the file has {len(state) - len(missing)} of the network's {len(state)} tensors"
        raise misfit(name, network, cause)
    unexpected = [key.removeprefix(f"{kind.base_model_prefix}.") for key in keys["unexpected_keys"]]
    if others := besides(unexpected, state, {cut}):
        raise misfit(name, network, f"the file has besides {some(others)}")
    return state
