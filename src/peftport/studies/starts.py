"""How the lanes of a pack start: fresh modules, and donors ported to the pack's host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from safetensors.torch import load

from peftport.errors import BadInput
from peftport.hosts.host import Host, load_host
from peftport.hosts.precision import Precision, usual_device
from peftport.hosts.vocabulary import tokenizer_mark
from peftport.memory import give_freed_memory_back
from peftport.modules import HostName, Module, Record
from peftport.porting import port
from peftport.porting.means import Means, Side, side
from peftport.porting.methods import way
from peftport.studies.resolve import texts_at
from peftport.studies.ways import OF
from peftport.studies.work import Kept, LaneStart, Texts, Work
from peftport.techniques.base import Parameters, Technique
from peftport.training.module import initial_module


def start_of(
    work: Work, start: LaneStart, host: Host, planned: Technique, classes: int
) -> tuple[str, Any, Parameters]:
    """What a lane starts from: technique, configuration and tensors without lane axis.

    A port may make a module of another kind than the donor's.

    Raises:
        PeftportError: the donor cannot be ported.
    """
    if start.donor is None:
        config = planned.configure(work.options)
        return (
            planned.name,
            config,
            initial_module(planned, config, host, classes, start.seed),
        )
    order = _Order(
        start.how,
        start.donor,
        start.seed,
        start.origin,
        work.host,
        work.host_name,
        host.precision,
        work.texts,
    )
    module = _ported(order)
    return module.technique, module.config, module.tensors


@dataclass(frozen=True)
class _Order:
    """A port: how (as in `ways`), of what, and between which hosts."""

    how: str
    donor: Kept
    seed: int
    origin: str
    host: str
    host_name: str
    precision: Precision
    texts: Texts | None


@lru_cache(maxsize=4)
def _ported(order: _Order) -> Module:
    """What a port makes. The last ones are kept: a sample of a port begins with that very port, and
    the lanes of a donor stand side by side in a pack."""
    last, _, before = order.how.partition(OF)
    if before:
        donor = _ported(replace(order, how=before))
    else:
        record = Record.model_validate_json(order.donor.record)
        donor = Module(record, load(order.donor.tensors))
    host, made = load_once(order.host, order.precision), way(last)
    return port(
        donor,
        host.geometry,
        HostName(name=host.name, fingerprint=host.fingerprint),
        made.name,
        options=made.options,
        seed=order.seed,
        means=_means(order, donor) if made.requires else None,
    ).module


def _means(order: _Order, donor: Module) -> Means:
    """Both hosts, and the study's texts, for a port method that needs any of them."""
    origin = _side(donor.record.host.name, order.origin)
    receiver = _side(order.host_name, order.host)
    if order.texts is None:
        return Means(origin, receiver)
    return Means(origin, receiver, _load_texts(order.texts), order.texts.location)


def _side(name: str, location: str) -> Side:
    """A host of a port, which a worker loads once."""
    there = side(location, usual_device())
    return replace(there, name=name, load=lambda: load_once(location, "fp32"))


@lru_cache(maxsize=3)
def load_once(location: str, precision: Precision) -> Host:
    """The host at `location`, on the GPU where there is one.

    The last three are kept: ports that look at weights take both hosts in full precision. What
    training on the host before took is given back, since another one's buffers have other sizes.
    """
    give_freed_memory_back()
    return load_host(location, usual_device(), precision)


@lru_cache(maxsize=3)
def tokenizer_once(location: str, precision: Precision) -> str:
    """What names the tokenizer of the host at `location`."""
    return tokenizer_mark(load_once(location, precision).tokenizer)


@lru_cache(maxsize=2)
def _load_texts(texts: Texts) -> tuple[str, ...]:
    found, mark = texts_at(texts.location, texts.count)
    if mark != texts.mark:
        raise BadInput("the texts are no longer what they were when the study was planned.")
    return found
