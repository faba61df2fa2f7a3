"""Modules of other kinds as LoRA, by peft's own `convert_to_lora`.

It decomposes the change that a module makes to each weight, so the host's weights are needed. What
the rank leaves out of a change is measured, place by place.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import is_file
from peftport.hosts.quiet import quiet_transformers
from peftport.hosts.skeleton import auto_class
from peftport.modules.formats.base import Folder
from peftport.techniques.base import Parameters

ENERGY = 0.9999
"""Share of each change that the rank keeps, at the least."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Converted:
    """A folder and tensors that are read as LoRA's, and the share of each change that was lost, by
    the path of its layer."""

    folder: Folder
    tensors: Parameters
    lost: dict[str, float]


def as_lora(folder: Folder, kind: str, safe: str) -> Converted:
    """Convert a module.

    Args:
        kind: what it is, for messages. safe: the name of its safetensors file.

    Raises:
        BadInput: peft is not installed, the host is not at hand, or peft cannot convert the module.
    """
    import transformers

    try:
        import peft
    except ImportError:
        folder.refuse("peft_type", f"{kind!r} is read as LoRA by peft, which is not installed")
    if not is_file(folder.path / safe):
        folder.refuse("peft_type", f"{kind!r} is converted from safetensors alone, save it as such")
    host = folder.host_files()
    try:
        with quiet_transformers():
            auto = getattr(transformers, auto_class(folder.geometry.kind))
            made = auto.from_pretrained(host, dtype=torch.float32)
            model = peft.PeftModel.from_pretrained(made, str(folder.path))
        config, tensors = peft.convert_to_lora(model, rank=ENERGY)
        lost = _lost(model, tensors)
    except BadInput:
        raise
    except Exception as error:  # whatever a kind of module does not support, and however it says so
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:300]
        raise BadInput(
            f"{folder.config_path}: peft_type: {kind!r} is none that peftport reads, and peft "
            f"cannot convert it to LoRA: {reason}"
        ) from error
    most = max(lost.values(), default=0.0)
    _log.warning(
        "notice: %s is a module of %s; peft made a LoRA of it that loses at most %.3f %% of a "
        "layer's change",
        *(folder.path, kind, 100 * most),
    )
    kept = {"base_model_name_or_path", "revision", "task_type", "auto_mapping", "peft_version"}
    plain = {key: value for key, value in folder.config.items() if key in kept}
    ranks = {"r": 1, "lora_alpha": 1}
    patterns = {key: dict(getattr(config, key)) for key in ("rank_pattern", "alpha_pattern")}
    read = replace(folder, config=plain | ranks | patterns | {"peft_type": "LORA"})
    held = {n: t.float() if folder.data else t.to("meta") for n, t in tensors.items()}
    return Converted(read, held, lost)


def _lost(model: Any, tensors: Parameters) -> dict[str, float]:
    """Share of the squared norm of each layer's change that its factors lack."""
    found = {}
    for name, layer in model.named_modules():
        if f"{name}.lora_A.weight" not in tensors:
            continue
        change: Tensor = layer.get_delta_weight("default").detach().float()
        up, down = (tensors[f"{name}.lora_{factor}.weight"].float() for factor in "BA")
        product = up @ down
        product = product if product.shape == change.shape else product.mT
        if change.shape[0] == change.shape[1]:  # a square layer may be stored transposed
            product = min(product, product.mT, key=lambda each: float((change - each).norm()))
        share = float((change - product).square().sum() / change.square().sum().clamp_min(1e-30))
        found[name.removeprefix("base_model.model.")] = round(share, 6)
    return found
