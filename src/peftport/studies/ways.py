"""How modules of a study are received: port methods, samplings, and samplings of ports."""

from __future__ import annotations

from typing import Any

from peftport.porting.methods import Way, way

OF = " of "


def ways(how: str) -> tuple[Way, ...]:
    """The ports that `how` stands for, in their order.

    `copy` and `procrustes:layers=cka` are one; `gaussian of procrustes` ports by procrustes, and
    samples what that made on the receiving host: the control where a donor's own tensors do not
    fit there.

    Raises:
        BadInput: a method is unknown, or has no such option.
    """
    return tuple(way(written) for written in reversed(how.split(OF)))


def resolved(how: str) -> list[dict[str, Any]]:
    """What `how` computes, however it is written: its methods in order, each with every option.

    `distill`, `distill:steps=100` and any order of options come to the same, and a default that
    changes makes it another. An option that came later and is not given is not told of.
    """
    return [{"method": each.name, "options": each.settings.computed()} for each in ways(how)]
