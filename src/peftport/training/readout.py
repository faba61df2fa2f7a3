"""How class scores are read off a host with its module: label words, or the head of an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from peftport.techniques.base import Parameters
from peftport.techniques.head import WEIGHT, head_logits, last_logits, word_logits

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Task


@dataclass(frozen=True)
class Readout:
    """Number of classes, and the first token of each label word; None where a head is used: an
    encoder's, or that of a decoder's module which brings one."""

    classes: int
    label_tokens: tuple[int, ...] | None


def readout_of(host: Host, task: Task, module: Parameters | None = None) -> Readout:
    """How `task` is read off `host`, under a module if one is given; BadInput when its label words
    cannot be told apart."""
    from peftport.tasks import label_tokens

    kind = host.geometry.kind
    headed = kind == "encoder" or WEIGHT in (module or {})
    tokens = None if headed else label_tokens(host.tokenizer, task, kind)
    return Readout(len(task.labels), tokens)


def class_logits(
    host: Host, batch: Any, parameters: Parameters, readout: Readout, whole: bool = False
) -> Tensor:
    """Logits of the classes, with whatever module is attached to the host.

    Args:
        batch: rows lane-major, (lanes * batch, tokens).
        whole: compute every token in every layer, for those who look on.

    Returns:
        (lanes * batch, classes).
    """
    ids, mask = batch.input_ids.to(host.device), batch.attention_mask.to(host.device)
    if readout.label_tokens is None and host.geometry.kind == "decoder":
        return last_logits(host.last_states(ids, mask, whole), parameters)
    if readout.label_tokens is None:
        return head_logits(host.token_states(ids, mask), mask, parameters)
    logits = host.next_token_logits(ids, mask, readout.label_tokens, whole)
    return word_logits(logits, parameters)
