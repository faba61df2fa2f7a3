"""How modules of a study are received: port methods, samplings, and samplings of ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftport.porting.methods import Way, way

if TYPE_CHECKING:
    from peftport.porting.base import Request

OF = " of "

# What a task is taken for as long as nobody has seen it.
_TWO_CLASSES = {"labels": [0, 1], "label_words": ["bad", "good"]}


def ways(how: str) -> tuple[Way, ...]:
    """The ports that `how` stands for, in their order.

    `copy` and `procrustes:layers=cka` are one; `gaussian of procrustes` ports by procrustes, and
    samples what that made on the receiving host: the control where a donor's own tensors do not
    fit there.

    Raises:
        BadInput: a method is unknown, or has no such option.
    """
    return tuple(way(written) for written in reversed(how.split(OF)))


def stages(how: str) -> tuple[str, ...]:
    """`how`, and everything that it begins with: `gaussian of ridge`, and `ridge`."""
    parts = how.split(OF)
    return tuple(OF.join(parts[number:]) for number in range(len(parts)))


def resolved(how: str) -> list[dict[str, Any]]:
    """What `how` computes, however it is written: its methods in order, each with every option.

    `distill`, `distill:steps=100` and any order of options come to the same, and a default that
    changes makes it another. An option that came later and is not given is not told of.
    """
    return [{"method": each.name, "options": each.settings.computed()} for each in ways(how)]


def requested(
    how: str,
    technique: str,
    options: Mapping[str, Any],
    origin: Mapping[str, Any],
    receiver: Mapping[str, Any],
    task: Mapping[str, Any],
) -> list[tuple[Way, Request]]:
    """The ports that `how` stands for, each with what it is asked for, before there is a donor.

    Args:
        technique, options: of the donor.
        origin, receiver: records of the hosts' geometries.
        task: what is known of the donor's task (`Facts.tasks`).
    """
    from peftport.hosts.geometry import geometry_from_record
    from peftport.modules import HostName, Record
    from peftport.modules.record import expected_shapes
    from peftport.techniques import technique as find_technique

    there, made = geometry_from_record(dict(origin)), find_technique(technique)
    config, _ = made.fold(made.configure(options), there, {})
    nobody = HostName(name="", fingerprint="")
    record = Record(
        technique=technique,
        config=config.model_dump(mode="json"),
        geometry=there.record(),
        host=nobody,
        origin=nobody,
        task=_TWO_CLASSES | dict(task),
        seed=0,
    )
    shapes, here = expected_shapes(record), geometry_from_record(dict(receiver))
    return [(each, each.method.request(record, shapes, here, each.options)) for each in ways(how)]
