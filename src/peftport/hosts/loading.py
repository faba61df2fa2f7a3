"""Loads a model from a host's configuration and weights, and from nothing else in its folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import by_library, exists
from peftport.hosts.configuration import host_config
from peftport.hosts.fingerprint import read_header, weight_files
from peftport.hosts.quiet import quiet_transformers

_ADAPTER = "adapter_config.json"
_log = logging.getLogger(__name__)


def load_model(auto: str, folder: Path, name: str, **options: Any) -> Any:
    """A host's model in float32, for evaluation.

    transformers is given what the host's fingerprint is of, and not the folder, in which it would
    find more: a module to attach, other weights, settings of generation.

    Args:
        auto: name of transformers' class that finds the model's class.
        name: of the host, for messages.
        options: of the model's class.

    Raises:
        BadInput: configuration or weights are not whole, or do not belong together.
    """
    notice_adapter(folder, name)
    config, state = host_config(folder, name), _state(folder)
    with quiet_transformers(), by_library(f"host {name} cannot be loaded from {folder}"):
        model_class, config = model_class_of(auto, config)
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    # transformers fills missing weights with random numbers and goes on; a host must be whole.
    missing = sorted(info["missing_keys"])
    if missing:
        raise BadInput(
            f"host {name} lacks {len(missing)} weights, {missing[0]!r} among them: its "
            f"config.json and its weights do not belong together."
        )
    return model.eval()


def model_class_of(auto: str, config: Any) -> tuple[Any, Any]:
    """The model's class and its configuration, which an automatic class gives for a folder or a
    name alone; ValueError where there is none."""
    import transformers

    try:
        found = getattr(transformers, auto)._model_mapping[type(config)]
    except KeyError:
        raise ValueError(f"transformers has no {auto} of {config.model_type} models") from None
    if isinstance(found, tuple):
        named = [each for each in found if each.__name__ in (config.architectures or ())]
        found = (*named, *found)[0]
    text = config.sub_configs.get("text_config")
    whole = text is None or found.config_class is not text
    return found, config if whole else config.get_text_config()


def _state(folder: Path) -> dict[str, Tensor]:
    """Every weight in the host's files by name, mapped, in the type it is stored in."""
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        read_header(file)  # which says what is wrong with a file that is not whole
        with by_library(f"{file} is not a whole safetensors file"):
            found |= load_file(file)
    return found


def notice_adapter(folder: Path, name: str) -> None:
    """Say that a module which lies beside a host's weights is no part of the host."""
    if exists(folder / _ADAPTER):
        _log.warning(
            "notice: host %s: %s is a module beside the host's weights; it is not attached, the "
            "host is its weights alone",
            *(name, folder / _ADAPTER),
        )
