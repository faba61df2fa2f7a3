"""The families of hosts as a table: which models are of each, and what can be made for them."""

from __future__ import annotations

from typing import Any

from peftport.hosts.geometry import families

_TECHNIQUES = ("lora", "adapter", "compacter", "prefix")
_EXPERTS = "its feed-forward layers are experts; of adapters Pfeiffer's can stand, not Houlsby's"
_HEAD = """# Families of hosts

Made by `peftport hosts families --markdown`. Every entry is tested: on tiny hosts with random
weights each technique that a family can have is trained, saved, loaded, copied to its host (bit for
bit) and to a continuation, read by stock peft (logits within 1e-5) and carried by `procrustes` to a
host that is the same function by other weights.

A host's family is the `model_type` of its config.json. A model of images and text is a host by its
language model. Sizes are those that transformers' own model class makes of the configuration.
"""
_FOOT = """
## What is not in the table

Any other language model of transformers can be a host for LoRA by the names of its own layers
(`q_proj`, `query_key_value`), with a notice; other techniques are refused there.

Layers that are several in one (`qkv`, `gate_up`) are one place of a module here. Experts are left
as they are. DeBERTa's layers for positions alone (`pos_proj`, `pos_key_proj`) are no places.

A GGUF file (`--host model.gguf`, or a folder with one) is a host of its architecture's family; its
weights are dequantised once. Folders with weights of bitsandbytes, GPTQ, AWQ and the like are hosts
for `copy` alone, which reads no weights.
"""


def family_rows() -> list[dict[str, Any]]:
    """A family each: `family`, `kind`, `models`, `model_types`, and `refused`, technique to why."""
    return [
        {
            "family": name,
            "kind": entry["kind"],
            "models": entry["models"],
            "model_types": list(entry["model_types"]),
            "refused": _refused(entry),
        }
        for name, entry in families().items()
    ]


def page(found: list[dict[str, Any]]) -> str:
    """The page docs/families.md, without a final newline."""
    head = ["family", "models", "`model_type`", "kind", *_TECHNIQUES]
    lines = [_HEAD, _line(head), _line(["---"] * len(head))]
    notes: list[str] = []
    for each in found:
        cells = [each["family"], each["models"]]
        cells += [", ".join(f"`{t}`" for t in each["model_types"]), each["kind"]]
        for technique in _TECHNIQUES:
            why = each["refused"].get(technique)
            if why and why not in notes:
                notes.append(why)
            word = "in part" if why == _EXPERTS else "no"
            cells.append(f"{word} ({notes.index(why) + 1})" if why else "yes")
        lines.append(_line(cells))
    lines += ["", *(f"{number}. {why[0].upper()}{why[1:]}." for number, why in enumerate(notes, 1))]
    return "\n".join([*lines, _FOOT]).rstrip("\n")


def _refused(entry: dict[str, Any]) -> dict[str, str]:
    roles = {linear["name"] for stack in entry["stacks"] for linear in stack["linears"]}
    experts = {} if "ffn.down" in roles else dict.fromkeys(("adapter", "compacter"), _EXPERTS)
    return experts | entry.get("refuses", {})


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
