"""The families of hosts as a table: which models are of each, and what can be made for them."""

from __future__ import annotations

from typing import Any

from peftport.hosts.geometry import SIZES, families, laid_out
from peftport.techniques import working_techniques

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
(`q_proj`, `query_key_value`), with a notice; techniques that need to know a family are refused
there.

Layers that are several in one (`qkv`, `gate_up`) are one place of a module here. Experts are left
as they are. DeBERTa's layers for positions alone (`pos_proj`, `pos_key_proj`) are no places.

A GGUF file (`--host model.gguf`, or a folder with one) is a host of its architecture's family; its
weights are dequantised once. Folders with weights of bitsandbytes, GPTQ, AWQ and the like are hosts
for `copy` alone, which reads no weights.
"""


def family_rows() -> list[dict[str, Any]]:
    """A family each: `family`, `kind`, `models`, `model_types`, `refused`, technique to why, and
    `in_part`, those of them of which some configurations can be made."""
    return [
        {
            "family": name,
            "kind": entry["kind"],
            "models": entry["models"],
            "model_types": list(entry["model_types"]),
            **_refused(entry),
        }
        for name, entry in families().items()
    ]


def page(found: list[dict[str, Any]]) -> str:
    """The page docs/families.md, without a final newline."""
    techniques = [made.name for made in working_techniques()]
    head = ["family", "models", "`model_type`", "kind", *techniques]
    lines = [_HEAD, _line(head), _line(["---"] * len(head))]
    notes: list[str] = []
    for each in found:
        cells = [each["family"], each["models"]]
        cells += [", ".join(f"`{t}`" for t in each["model_types"]), each["kind"]]
        for technique in techniques:
            why = each["refused"].get(technique)
            if why and why not in notes:
                notes.append(why)
            word = "in part" if technique in each["in_part"] else "no"
            cells.append(f"{word} ({notes.index(why) + 1})" if why else "yes")
        lines.append(_line(cells))
    lines += ["", *(f"{number}. {why[0].upper()}{why[1:]}." for number, why in enumerate(notes, 1))]
    return "\n".join([*lines, _FOOT]).rstrip("\n")


def _refused(family: dict[str, Any]) -> dict[str, Any]:
    """What techniques themselves say of a family's hosts, which are alike but for their sizes."""
    counts = {stack["name"]: 1 for stack in family["stacks"]}
    host = laid_out(family, dict.fromkeys(SIZES, 1), counts, gated=False, roots={})
    techniques = list(working_techniques())
    refused = {made.name: why for made in techniques if (why := made.refusal(host))}
    limits = {made.name: why for made in techniques if (why := made.limit(host))}
    in_part = sorted(limits.keys() - refused.keys())
    return {"refused": limits | refused, "in_part": in_part}


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
