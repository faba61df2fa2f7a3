"""What a donor answers on its own host, which methods that look at answers alone learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from peftport.errors import RunFailed
from peftport.porting.base import Request
from peftport.tasks import Task, encode_texts
from peftport.techniques import technique
from peftport.techniques.base import Parameters, stack_lanes
from peftport.training import class_readout, scores

if TYPE_CHECKING:
    from peftport.hosts.host import Host


def donor_scores(
    host: Host, request: Request, donor: Parameters, task: Task, texts: tuple[str, ...]
) -> Tensor:
    """The donor's class scores of every text: (texts, classes).

    Raises:
        BadInput: the host cannot tell the words of the donor's classes apart.
        RunFailed: a score is not finite.
    """
    kind = host.geometry.kind
    encoded = encode_texts(host.tokenizer, task, texts, np.zeros(len(texts)), kind)
    found = scores(
        host,
        technique(request.donor.technique),
        request.config,
        stack_lanes([donor]),
        encoded,
        class_readout(host, task, donor),
    )[0]
    if not torch.isfinite(found).all():
        raise RunFailed(f"the module's scores on {host.name} are not finite.")
    return found


def no_answers(request: Request) -> str | None:
    """Why a donor has no answers to learn from: it tells no classes apart."""
    if request.classes > 1:
        return None
    why = "the module does not say which classes it tells apart"
    if request.origin.kind == "encoder":
        return f"{why}: it has no head"
    return f"{why}; give its --label-words, or a --task that has them"
