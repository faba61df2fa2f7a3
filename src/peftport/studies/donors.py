"""What donors answer on their own host: what a port of them is to agree with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peftport.correction import most_likely
from peftport.metrics import Evaluation, offsets_of
from peftport.modules import Module
from peftport.tasks import encode_unlabelled
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import readout_of, scores

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Task


def answers_of(host: Host, modules: Sequence[Module], task: Task) -> list[NDArray[np.int64] | None]:
    """The corrected answers of each module to the task's unlabelled texts, (texts,); None where
    its scores are not finite.

    Args:
        host: which the modules are made for.
    """
    texts = encode_unlabelled(host.tokenizer, task, host.geometry.kind)
    assert texts is not None
    readout = readout_of(host, task)
    found: dict[int, NDArray[np.int64] | None] = {}
    for module in modules:
        if id(module) not in found:
            lanes = stack_lanes([module.tensors])
            made, config = technique(module.technique), module.config
            said = scores(host, made, config, lanes, texts, readout)[0].numpy()
            known = np.isfinite(said).all()
            classes = task.asks.class_scores(said, task.classes)
            found[id(module)] = _corrected(classes) if known else None
    return [found[id(module)] for module in modules]


def corrected_answers(evaluation: Evaluation) -> NDArray[np.int64] | None:
    """The corrected answers to the unlabelled texts that an evaluation's correction rests on."""
    return _corrected(evaluation.unlabelled)


def _corrected(said: NDArray[np.floating] | None) -> NDArray[np.int64] | None:
    found = offsets_of(said)
    return None if said is None or found is None else most_likely(said, found)
