"""What a donor answers on its own host, which methods that look at answers alone learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from peftport.kind import USUAL
from peftport.porting.base import Request
from peftport.tasks import Task, encode_texts
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.training import class_readout
from peftport.training.teacher import Teacher

if TYPE_CHECKING:
    from peftport.hosts.host import Host


def donor_scores(
    host: Host, request: Request, donor: Parameters, task: Task, texts: tuple[str, ...]
) -> Tensor:
    """The donor's class scores of every text: (texts, classes).

    Args:
        donor: its tensors, with the embeddings that it brings along.

    Raises:
        BadInput: the host cannot tell the words of the donor's classes apart.
        RunFailed: a score is not finite.
    """
    kind = host.geometry.kind
    encoded = encode_texts(host.tokenizer, task, texts, np.zeros(len(texts)), kind)
    teacher = Teacher(host, technique(request.donor.technique), request.config, donor)
    return teacher.answers(encoded, class_readout(host, task, donor))


def no_answers(request: Request) -> str | None:
    """Why a donor has no answers to learn from: it neither tells classes apart nor writes."""
    if request.donor.kind != USUAL:
        return None
    return no_classes(request)


def _no_words(request: Request) -> str | None:
    """Why classes cannot be read off the receiving host: it is read by words, and has none."""
    if request.receiver.kind == "encoder" or request.donor.task.get("label_words"):
        return None
    return (
        "the receiving host is read by label words and the module does not say any; give its "
        "--label-words, or a --task that has them"
    )


def no_classes(request: Request) -> str | None:
    """Why a donor has no class scores: it tells no classes apart."""
    kind = request.donor.kind
    if kind != USUAL:
        return f"the module is for a task of kind {kind} and has no scores of classes"
    if request.classes > 1:
        return _no_words(request)
    why = "the module does not say which classes it tells apart"
    if request.origin.kind == "encoder":
        return f"{why}: it has no head"
    return f"{why}; give its --label-words, or a --task that has them; or what it does with --kind"
