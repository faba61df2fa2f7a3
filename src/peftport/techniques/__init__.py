"""Techniques: adapter, compacter, lora, prefix. One folder each; found by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from peftport.errors import BadInput
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


def working_techniques() -> Iterator[Technique]:
    """All techniques, but for those of packages that do not work: whoever asks for one of these by
    its name is told."""
    for name in TECHNIQUES:
        try:
            yield technique(name)
        except BadInput:
            continue
