"""A host's model without its weights: built on torch's `meta` device, which keeps shapes alone."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import nn

from peftport.errors import BadInput
from peftport.hosts.configuration import unusable
from peftport.hosts.geometry import Geometry
from peftport.hosts.quiet import quiet_transformers

_AUTO_CLASSES = {
    "encoder-decoder": "AutoModelForSeq2SeqLM",
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModel",
}
_WITH_IMAGES = "AutoModelForImageTextToText"


def auto_class(kind: str, wrapped: bool = False) -> str:
    """The name of the class of transformers' that makes models of a kind.

    wrapped: the model is one of images and text, whose language model is the host.
    """
    return _WITH_IMAGES if wrapped else _AUTO_CLASSES[kind]


def pooler_options(auto: str, config: Any) -> dict[str, Any]:
    """Options that an encoder's class needs to be made without a pooler, where it takes them."""
    import transformers

    made = getattr(transformers, auto)._model_mapping.get(type(config), None)
    made = made[0] if isinstance(made, tuple) else made
    takes = made is not None and "add_pooling_layer" in inspect.signature(made.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}


def skeleton(config: Any, kind: str, host: str, wrapped: bool = False) -> nn.Module:
    """The model of a configuration, all of its tensors on the `meta` device.

    Raises:
        BadInput: transformers has no such model for the kind, or cannot build it.
    """
    import transformers

    auto = auto_class(kind, wrapped)
    with quiet_transformers(), torch.device("meta"):
        try:
            made = getattr(transformers, auto).from_config(config, **pooler_options(auto, config))
            return cast("nn.Module", made)
        except Exception as error:  # whatever a class checks, and however it says so
            raise unusable(host, config.model_type, error) from error


def require_points(model: nn.Module, geometry: Geometry, name: str) -> None:
    """Hold a geometry against a model, whole or its skeleton; BadInput where they differ."""

    def find(path: str) -> nn.Module:
        try:
            return model.get_submodule(path)
        except AttributeError as error:
            raise BadInput(
                f"host {name}: family {geometry.family} expects a module at {path!r}: {error}."
            ) from error

    for point, linear in geometry.linears.items():
        expected = (linear.outputs, linear.inputs)
        found = tuple(find(linear.path).weight.shape)  # type: ignore[arg-type]
        if found != (expected[::-1] if linear.transposed else expected):
            raise BadInput(
                f"host {name}: {point} ({linear.path}) has shape {found} where family "
                f"{geometry.family} and the configuration say {expected}."
            )
    for path in [a.path for a in geometry.attentions.values()] + [
        b.path for b in geometry.blocks.values()
    ]:
        find(path)
