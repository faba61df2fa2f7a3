"""Names of tensors as other savers write them, made those that the library itself would give.

torch.compile, DDP, FSDP, DeepSpeed and Lightning each put a part of their own into the names of a
state dict, and a LoRA that was saved without `save_pretrained` keeps the adapter's name in them.
None of it says anything of the module.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.hosts.towers import TOWERS
from peftport.techniques.base import Parameters

Rename = Callable[[str], tuple[str, set[str]]]
_log = logging.getLogger(__name__)

_ANYWHERE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_IN_FRONT = frozenset({"module", "_forward_module"})
_MODEL = "base_model.model."
_BASE = "base_model."
"""Prompt learning has no tuner between the model and its name."""
_DEFAULT = "default"
_NAMED = re.compile(rf"\.{_DEFAULT}(?=\.weight$|$)")
"""The name that peft gives an adapter that nobody named."""
_MAGNITUDE = re.compile(r"(?<=\.lora_magnitude_vector)\.weight$")
_FACTOR = re.compile(r"(?P<before>.+\.lora_[AB])(?:\.(?P<name>[^.]+))?\.weight")
_BARE = re.compile(
    r"(?P<before>.+\.(?:lora_embedding_[AB]|trainable_tokens_delta))(?:\.(?P<name>[^.]+))?"
)
"""Parameters that are no module's weight."""


def unwrapped(path: Path, tensors: Mapping[str, Tensor]) -> Parameters:
    """Tensors by their names without the parts that wrappers of a model add, with a notice.

    Raises:
        BadInput: two tensors have one name then.
    """
    return _renamed(path, tensors, _without_wrappers)


def bare_name(name: str, geometry: Geometry) -> str:
    """A name of a PEFT file as `unwrapped` and `names_in_model` give it."""
    return _within(_without_wrappers(name)[0], _inside(()), _towers_of(geometry))[0]


def _towers_of(geometry: Geometry) -> frozenset[str]:
    """The parts of a host's own paths that say which of its models they are in."""
    first = next(iter(geometry.linears.values())).path
    return TOWERS.intersection(first.split("."))


def as_saved(path: Path, tensors: Mapping[str, Tensor]) -> Parameters:
    """Tensors of a PEFT file of any kind by the names that peft itself gives them when it saves:
    `base_model.model.` once in front, and no adapter's name, with a notice.

    Raises:
        BadInput: two tensors have one name then.
    """
    return _renamed(path, tensors, _saved)


def _saved(name: str) -> tuple[str, set[str]]:
    """A name as peft saves it, and what of it peft would not have written."""
    before, found, inner = name.rpartition(_MODEL)
    taken = {f"{before}{found}"} if before else set()
    plain, wrappers = _without_wrappers(inner if found else inner.removeprefix(_BASE))
    named = _NAMED.sub("", plain)
    saved = _MAGNITUDE.sub("", named)
    taken |= wrappers | ({_DEFAULT} if named != plain else set())
    # Some kinds share tensors among all layers, which lie in the tuner itself.
    shared = not found and name.startswith(_BASE)
    return name if shared else f"{_MODEL}{saved}", taken


def _inside(adapters: Iterable[str]) -> re.Pattern[str]:
    """What peft's own layers add to names, and leaves out when it saves."""
    usual = "|".join(map(re.escape, {"default", *adapters}))
    saved = rf"modules_to_save(?:\.(?:{usual}))?"
    return re.compile(rf"\.(?:(?:token_adapter\.)?base_layer|{saved})(?=\.)")


def names_in_model(path: Path, tensors: Mapping[str, Tensor], geometry: Geometry) -> Parameters:
    """Tensors of a PEFT file by their names in the model: without `base_model.model.`, however
    often it is there, without the adapter's name, and without the name of the language model in a
    larger one where the host is none. `<path>.lora_A`, `.lora_B`, `.lora_embedding_A` and
    `.lora_embedding_B` are factors.

    Raises:
        BadInput: the file holds more than one adapter, or two tensors have one name then.
    """
    adapters = sorted({name for each in tensors if (name := _adapter(each))})
    if len(adapters) > 1:
        raise BadInput(
            f"{path} holds {len(adapters)} adapters, {', '.join(adapters)}: save the one that is "
            "meant alone."
        )
    inside, own = _inside(adapters), _towers_of(geometry)
    kept = {name: t for name, t in tensors.items() if not _is_double(name, tensors, inside)}
    if kept and not any(_BASE in name for name in kept):
        _log.info("notice: %s: names have no %s in front and are read as they are", path, _MODEL)
    return _renamed(path, kept, lambda name: _within(name, inside, own))


def _is_double(name: str, tensors: Mapping[str, Tensor], inside: re.Pattern[str]) -> bool:
    """Whether a saved part of the model is in the file under the name that counts, too."""
    return ".original_module." in name or (
        ".modules_to_save." in name and inside.sub("", name) in tensors
    )


def _without_wrappers(name: str) -> tuple[str, set[str]]:
    """A name without wrappers' parts, and those parts."""
    parts = name.split(".")
    taken = {part for part in parts if part in _ANYWHERE}
    parts = [part for part in parts if part not in _ANYWHERE]
    while parts and parts[0] in _IN_FRONT:
        taken.add(parts.pop(0))
    return ".".join(parts), taken


def _within(name: str, inside: re.Pattern[str], own: frozenset[str]) -> tuple[str, set[str]]:
    """A name within the model, and what of it is no part of the names that peft writes.

    inside: parts that peft's own layers add, which it leaves out when it saves. own: towers that
    the host itself has.
    """
    before, found, inner = name.rpartition(_MODEL)
    taken = {f"{before}{found}"} if before else set()
    inner, wrappers = _without_wrappers(inner.removeprefix(_BASE))
    inner = inside.sub("", inner)
    towers = (TOWERS - own).intersection(inner.split("."))
    inner = ".".join(part for part in inner.split(".") if part not in towers)
    if factor := _FACTOR.fullmatch(inner) or _BARE.fullmatch(inner):
        inner = factor["before"]
        taken |= {factor["name"]} if factor["name"] else set()
    return inner, taken | wrappers | towers


def _adapter(name: str) -> str | None:
    """The adapter's name in a factor's, if it is there."""
    found = _FACTOR.fullmatch(name) or _BARE.fullmatch(name)
    return found["name"] if found else None


def _renamed(path: Path, tensors: Mapping[str, Tensor], rename: Rename) -> Parameters:
    made: Parameters = {}
    of: dict[str, str] = {}
    taken: set[str] = set()
    for name, tensor in tensors.items():
        plain, parts = rename(name)
        if plain in made:
            raise BadInput(f"{path}: {name!r} and {of[plain]!r} are one place.")
        made[plain], of[plain] = tensor, name
        taken |= parts
    if taken:
        _log.info("notice: %s: names are read without %s", path, ", ".join(sorted(taken)))
    return made
