"""Modules of other kinds as LoRA: the change that peft makes to each weight of the host when it
merges one, decomposed, with what the rank leaves out of it.

So does peft's own `convert_to_lora` for the kinds whose layers say that they can be converted; of
DoRA it leaves out the magnitudes (peft 0.21).
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from peftport.errors import BadInput
from peftport.hosts.configuration import host_config
from peftport.hosts.discovery import family_of
from peftport.hosts.loading import load_model
from peftport.hosts.quantised import require_plain
from peftport.hosts.quiet import quiet_transformers
from peftport.hosts.skeleton import auto_class, pooler_options
from peftport.modules.formats.base import Folder
from peftport.modules.formats.model_class import MODEL, layers_inside
from peftport.modules.formats.names import as_saved
from peftport.modules.formats.peft_config import refuse_start, refuse_unknown, written_by
from peftport.modules.formats.token_rows import TOKENS_KEY
from peftport.techniques.base import Parameters

ENERGY = 0.9999
"""Share of each change that the rank keeps, at the least."""
INSTEAD = (
    "Where peft can merge it (`merge_and_unload`), save the merged model and take it as a host; "
    "else train a LoRA for the task"
)
"""What can be done with a module that is none for peftport."""
_KEPT = (
    *("base_model_name_or_path", "revision", "task_type", "auto_mapping", "modules_to_save"),
    TOKENS_KEY,
)
"""Keys of a configuration that a LoRA made of the module has, too."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Converted:
    """A folder and tensors that are read as LoRA's, and the share of each change that was lost, by
    the path of its layer."""

    folder: Folder
    tensors: Parameters
    lost: dict[str, float]


def as_lora(folder: Folder, kind: str, tensors: Parameters) -> Converted:
    """Convert a module.

    Args:
        kind: what it is, for messages. tensors: of its file, with their data.

    Raises:
        BadInput: peft is not installed, the host is not at hand, its layers are none that the
            module's tensors fit, or what the module does to them is no change of weights.
    """
    refuse_start(folder)
    tensors = as_saved(folder.path, tensors)
    host = _host(folder, tensors)
    made: Parameters = {}
    ranks, lost = {}, {}
    with _by_peft(folder, kind):
        model, rest = _with_module(folder, host, tensors)
        for path, change in _changes(model):
            up, down, lost[path] = _decomposed(change)
            ranks[path] = len(down)
            made |= {f"{MODEL}{path}.lora_A.weight": down, f"{MODEL}{path}.lora_B.weight": up}
        if not made:
            raise ValueError("it changes no layer of the host")
    _log.warning(
        "notice: %s is a module of %s; a LoRA is made of it that loses at most %.3f %% of a "
        "layer's change",
        *(folder.path, kind, 100 * max(lost.values())),
    )
    plain = {key: folder.config[key] for key in _KEPT if key in folder.config}
    patterns = {"r": 1, "lora_alpha": 1, "rank_pattern": ranks, "alpha_pattern": ranks}
    read = replace(folder, config=plain | patterns | {"peft_type": "LORA"})
    held = {n: t if folder.data else t.to("meta") for n, t in (made | rest).items()}
    return Converted(read, held, lost)


def is_known_to_peft(kind: str) -> bool:
    """Whether the peft that is installed has modules of a kind; False where there is none."""
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as known
    except ImportError:
        return False
    return kind in {each.value for each in known}


def _peft() -> Any:
    import peft

    return peft


@contextmanager
def _by_peft(folder: Folder, kind: str) -> Iterator[None]:
    """Whatever a kind of module does not support, and however peft says so, as BadInput; its
    warnings are of what is checked here."""
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadInput:
        raise
    except ImportError:
        folder.refuse("peft_type", f"{kind!r} is read as LoRA by peft, which is not installed")
    except Exception as error:
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:300].rstrip(".")
        told = f"peft_type: {kind!r}"
        if folder.config.get("peft_type") == "LORA":
            told = "use_dora: True"
        raise BadInput(
            f"{folder.config_path}: {told} is none that peftport reads{written_by(folder)}, and "
            f"peft cannot convert it to LoRA: {reason}. {INSTEAD}."
        ) from error


def _host(folder: Folder, names: Iterable[str]) -> nn.Module:
    """The host, with its layers under the names that they have in the file."""
    geometry = folder.geometry
    files, name = folder.host_files(), folder.host_name
    require_plain(files, name)
    auto = auto_class(geometry.kind, family_of(host_config(files, name))[1])
    model: nn.Module = load_model(
        auto, files, name, **pooler_options(auto, host_config(files, name))
    )
    inside = layers_inside(names, geometry)
    if inside is None or inside == (geometry.kind != "encoder"):
        return model
    if not inside:
        bare: nn.Module = model.get_submodule(geometry.prefix)
        return bare
    holder = nn.Module()  # of an encoder, in place of a model with a head
    holder.add_module(geometry.prefix, model)
    holder.config = model.config
    return holder


def _with_module(folder: Folder, host: nn.Module, tensors: Parameters) -> tuple[Any, Parameters]:
    """The host with the module in it, and the tensors of the file that are not the module's own."""
    peft = _peft()
    config = peft.PeftConfig.from_pretrained(str(folder.path))
    refuse_unknown(folder, {field.name for field in dataclasses.fields(config)})
    # A head, rows of tokens and other saved parts are read from the file, as a LoRA's are.
    config.task_type = config.modules_to_save = None
    setattr(config, TOKENS_KEY, None)
    if hasattr(config, "bias"):
        config.bias = "none"
    config.inference_mode = False
    # Weights of the host's own (embeddings, norms, biases) are to be seen, and not to be loaded.
    frozen = {f"{MODEL}{name}" for name in host.state_dict()}
    rest = {n: tensor for n, tensor in tensors.items() if n.replace(".base_layer.", ".") in frozen}
    model = peft.get_peft_model(host, config)
    own = {name: tensor for name, tensor in tensors.items() if name not in rest}
    told = peft.set_peft_model_state_dict(model, own)
    if lacking := _unread(model, set(told.missing_keys)):
        raise ValueError(f"its file lacks {lacking[0]!r}, which the host has a place for")
    foreign = [name for name in told.unexpected_keys if name not in tensors]
    if foreign:
        raise ValueError(f"its file has {foreign[0]!r}, for which the host has no place")
    return model, rest | {name: tensors[name] for name in told.unexpected_keys}


def _unread(model: nn.Module, missing: set[str]) -> list[str]:
    """What the module has to train and its file did not say, under any of its names: layers share
    some of it."""
    names: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        if value.requires_grad:
            names.setdefault(id(value), []).append(name)
    return [same[0] for same in names.values() if missing.issuperset(same)]


@torch.no_grad()
def _changes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a module does to each layer's weight, by the layer's path: (outputs, inputs). Each is
    merged.

    ValueError where a layer's change is none of its weight alone.
    """
    for name, layer in model.named_modules():
        if not hasattr(layer, "get_base_layer"):
            continue
        # AdaLoRA's layers do not say so; what they add is a product of two factors and scales.
        if not layer.supports_lora_conversion() and type(layer).__name__ != "SVDLinear":
            raise ValueError(f"what it does to {name} is none that a LoRA can do")
        base = layer.get_base_layer()
        transposed = type(base).__name__ == "Conv1D"  # GPT-2's layers are stored so
        if not isinstance(base, nn.Linear) and not transposed:
            raise ValueError(f"{name} is no linear layer but a {type(base).__name__}")
        before = {part: value.clone() for part, value in base.named_parameters()}
        layer.merge(adapter_names=["default"])
        if any(not torch.equal(base.get_parameter(p), before[p]) for p in before if p != "weight"):
            raise ValueError(f"it changes more of {name} than its weight")
        change = base.weight - before["weight"]
        yield name.removeprefix(MODEL), change.mT if transposed else change


def _decomposed(change: Tensor) -> tuple[Tensor, Tensor, float]:
    """Factors (outputs, rank) and (rank, inputs) of a change, and the share of its squared norm
    that they lack."""
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    energy = values.double().square().cumsum(0)
    rank = int((energy < ENERGY * energy[-1]).sum()) + 1
    lost = float(1 - energy[rank - 1] / energy[-1]) if energy[-1] > 0 else 0.0
    return (left[:, :rank] * values[:rank]).contiguous(), right[:rank].contiguous(), round(lost, 6)
