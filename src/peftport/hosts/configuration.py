"""A host's configuration as its model is made from: what a config.json says of the host, without
what it says of the way in which somebody ran it.

A config.json may choose an attention function, another file of weights, or what a model returns.
Such keys are left out before a model is made, so that a host runs as peftport runs every host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import read_json
from peftport.hosts.geometry import LAYERS
from peftport.hosts.quiet import quiet_transformers
from peftport.registry import did_you_mean

_COUNTS = ("layers", "n_layer", "num_hidden_groups", "inner_group_num", "experts")
_RUNTIME = frozenset(
    {
        *("attn_implementation", "experts_implementation", "use_cache", "return_dict"),
        *("output_attentions", "output_hidden_states", "chunk_size_feed_forward"),
        *("dtype", "torch_dtype", "torchscript", "use_bfloat16", "gradient_checkpointing"),
        *("transformers_weights", "auto_map", "custom_pipelines", "fusion_config"),
        *("distributed_config", "kernel_config", "name_or_path", "transformers_version"),
    }
)
"""How a model was run or saved. Keys that begin with an underscore are of this kind, too."""

_TRAINING = frozenset({"initializer_range", "initializer_factor", "layerdrop", "init_std"})
_READING = frozenset(
    {
        *("architectures", "id2label", "label2id", "num_labels", "problem_type"),
        *("finetuning_task", "task_specific_params", "tokenizer_class", "summary_type"),
        *("summary_use_proj", "summary_activation", "summary_proj_to_labels"),
        *("bos_token_id", "eos_token_id", "sep_token_id", "prefix"),
        *("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "suppress_tokens"),
        *("begin_suppress_tokens", "max_length", "min_length", "do_sample", "early_stopping"),
        *("num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p"),
        *("typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
        *("encoder_no_repeat_ngram_size", "num_return_sequences", "output_scores"),
        *("return_dict_in_generate", "remove_invalid_values"),
        "exponential_decay_length_penalty",
    }
)
"""Heads of other model classes, and how text is generated."""


def host_config(folder: Path, name: str = "") -> Any:
    """The configuration of the host in `folder` as its model class reads it.

    Args:
        name: of the host, for messages; its folder if not given.

    Raises:
        BadInput: see `configuration`.
    """
    return configuration(written_config(folder, name), name or str(folder))


def written_config(folder: Path, name: str = "") -> dict[str, Any]:
    """The configuration of the host in `folder` as its file has it."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise BadInput(
            f"host {name or folder}: its config.json is not a transformers configuration."
        )
    return config


def configuration(config: Mapping[str, Any], host: str) -> Any:
    """A configuration as its model class reads it: sizes that a file leaves out are derived, and
    what only says how the host was run or stored is left out.

    Raises:
        BadInput: transformers has no such model, or the configuration is none of it.
    """
    from transformers import CONFIG_MAPPING

    model_type = str(config.get("model_type", ""))
    if model_type not in CONFIG_MAPPING:
        known = sorted(CONFIG_MAPPING)
        raise BadInput(
            f"host {host}: transformers has no model of type {model_type!r}."
            f"{did_you_mean(model_type, known)} The `model_type` of its config.json is read."
        )
    require_possible(config, host)
    plain = without_runtime(dict(config))
    plain.pop("quantization_config", None)
    with quiet_transformers():
        try:
            return CONFIG_MAPPING[model_type].from_dict(plain)
        except Exception as error:  # whatever a class checks, and however it says so
            raise unusable(host, model_type, error) from error


def require_possible(config: Mapping[str, Any], host: str) -> None:
    """Raise BadInput for counts that would be built for hours, and for a type of numbers that there
    is not, of which transformers complains elsewhere and in other words."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            require_possible(value, host)
        elif str(key).endswith(_COUNTS) and isinstance(value, int) and value > LAYERS:
            raise BadInput(f"host {host}: {key} is {value} in its configuration; no host has that.")
        elif key in ("dtype", "torch_dtype") and not _is_type(value):
            raise BadInput(
                f"host {host}: {key} is {value!r} in its config.json; expected is a type of "
                "torch's, such as 'bfloat16'."
            )


def _is_type(value: Any) -> bool:
    """Whether a value names a type of numbers as transformers understands it."""
    import torch

    if value in (None, "auto"):
        return True
    name = value.removeprefix("torch.") if isinstance(value, str) else ""
    return isinstance(getattr(torch, name, None), torch.dtype)


def unusable(host: str, model_type: str, error: Exception) -> BadInput:
    """What is said of a configuration that its own model class refuses."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return BadInput(
        f"host {host}: its configuration is none that transformers can make a {model_type} of: "
        f"{' '.join(line.strip() for line in lines)[:300]}"
    )


def settings(folder: Path) -> dict[str, Any]:
    """What of a host's configuration can reach its outputs, as far as it is not the default of
    its class. Known to be without effect are those keys alone that say how a model was run,
    trained, or read by other heads; whatever is new counts.
    """
    config = host_config(folder)
    with quiet_transformers():
        usual = type(config)().to_dict()
    found, usual = (_without(each, _of_no_effect) for each in (config.to_dict(), usual))
    told = {key: value for key, value in found.items() if key not in usual or usual[key] != value}
    return {"model_type": config.model_type, **told}


def without_runtime(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what only says how it was run."""
    found: dict[str, Any] = _without(config, _of_runtime)
    return found


def _of_runtime(key: str) -> bool:
    return key.startswith("_") or key in _RUNTIME


def _of_no_effect(key: str) -> bool:
    # A frozen host drops nothing out: "dropout_rate", "attn_pdrop", "hidden_dropout_prob".
    return _of_runtime(key) or key in _TRAINING or key in _READING or "drop" in key


def _without(config: Any, left_out: Callable[[str], bool]) -> Any:
    """The configuration, and those within it, without some keys."""
    if not isinstance(config, dict):
        return config
    return {
        key: _without(value, left_out) for key, value in config.items() if not left_out(str(key))
    }
