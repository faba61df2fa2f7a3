"""What is refused in a PEFT configuration: anything that changes what the module does and that
peftport does not know, by its name, variants of tomorrow included."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from peftport.modules.formats.base import Folder
from peftport.modules.formats.heads import Kind

# Of no effect on what a saved module computes, at any value.
_NEUTRAL = frozenset(
    {
        *("base_model_name_or_path", "revision", "peft_type", "task_type", "inference_mode"),
        *("auto_mapping", "peft_version", "modules_to_save", "ensure_weight_tying"),
    }
)
# How factors start does not matter once they are trained, unless the host was changed for it.
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_KINDS: dict[str, Kind] = {"SEQ_CLS": "sequence", "TOKEN_CLS": "token"}


# Of no effect on a plain module at these values, which newer versions of peft write by themselves.
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "lora_bias": ("none",),
    "init_weights": (True,),
    "use_qalora": (False,),
    "autocast_adapter_dtype": (True, False),
    "low_cpu_mem_usage": (True, False),
    "save_embedding_layers": (True, False, "auto"),
}
_OTHERWISE = (
    "If it only tells how the module was trained, take the key out of the file; otherwise merge "
    "the module with that peft, or convert it to plain LoRA with its `convert_to_lora`"
)
_MERGE = "merge the module with that peft (`merge_and_unload`) and take the merged model as a host"
_ADVICE = {
    "lora_bias": "Its factors have biases, which no change of weights is: where the host's layers "
    f"have biases, too, {_MERGE}; else train it again with lora_bias=False",
    "alora_invocation_tokens": "It acts behind these tokens alone, which no change of weights "
    "does, and cannot be merged: train a plain LoRA for the task",
    "target_parameters": "Factors of bare parameters, as those of experts are, have no place here: "
    f"{_MERGE}, or train a LoRA of `target_modules`",
    "layer_replication": f"It has layers of the host several times: {_MERGE}",
}
"""What to do with a module where this is set."""


def written_by(folder: Folder) -> str:
    """The peft that wrote a folder, as the end of a clause; empty where it does not say."""
    version = folder.config.get("peft_version")
    return f", written by peft {version}" if version else ""


def refuse_unknown(folder: Folder, known: Collection[str]) -> None:
    """Raise BadInput for the first option that is set and neither neutral nor in `known`, nor has a
    value that is known to be without effect: an empty one, or what the peft that is installed takes
    when nothing is said."""
    for key, value in folder.config.items():
        if key in _NEUTRAL or key in known or value in (None, False, "", [], {}):
            continue
        if any(value == usual and type(value) is type(usual) for usual in _DEFAULTS.get(key, ())):
            continue
        if _is_usual(folder, key, value):
            continue
        what = f"{value!r}: a variant that peftport does not read{written_by(folder)}"
        folder.refuse(key, f"{what}. {_ADVICE.get(key, _OTHERWISE)}")


def refuse_start(folder: Folder) -> None:
    """Raise BadInput for a module whose host was changed when it was made."""
    if (start := folder.config.get("init_lora_weights", True)) not in STARTS:
        folder.refuse(
            "init_lora_weights",
            f"{start!r} changes the host's own weights; convert the module to plain LoRA with "
            "peft's `path_initial_model_for_weight_conversion` first",
        )


def _is_usual(folder: Folder, key: str, value: Any) -> bool:
    """Whether a value is the default of the peft that is installed, if there is one."""
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError:
        return False
    kinds = {each.value: config for each, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    kind = kinds.get(str(folder.config.get("peft_type")))
    fields = {each.name: each.default for each in dataclasses.fields(kind)} if kind else {}
    return key in fields and fields[key] == value and type(fields[key]) is type(value)


def positive_number(folder: Folder, key: str, kind: type = int, usual: int | None = None) -> Any:
    """A positive number of the configuration; `usual` where it says nothing, as peft has it."""
    value = folder.config.get(key, usual)
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not 0 < value < 1e9:
        folder.refuse(key, f"{value!r}, expected a positive number")
    return value


def flag(folder: Folder, key: str) -> bool:
    """A switch of the configuration, off where it is missing."""
    value = folder.config.get(key) or False
    if not isinstance(value, bool):
        folder.refuse(key, f"{value!r}, expected true or false")
    return value


def classifier_kind(folder: Folder) -> Kind | None:
    """Which of transformers' classifiers the module is from, None for other models."""
    return _KINDS.get(str(folder.config.get("task_type")))
