"""Techniques: adapter, compacter, lora, prefix. One file each; found by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftport.registry import Registry

if TYPE_CHECKING:
    from peftport.techniques.base import Technique

TECHNIQUES = Registry(
    "technique",
    {
        "adapter": "peftport.techniques.adapter:Adapter",
        "compacter": "peftport.techniques.compacter:Compacter",
        "lora": "peftport.techniques.lora:Lora",
        "prefix": "peftport.techniques.prefix:PrefixTuning",
    },
    group="peftport.techniques",
    kind="peftport.techniques.base:Technique",
)


def technique(name: str) -> Technique:
    """The technique called `name`; BadInput with what is known when there is none."""
    made: Technique = TECHNIQUES.get(name)()
    return made
