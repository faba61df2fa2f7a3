"""Prior correction without labels: a ported module should give each class as often as its donor.

A map can lose a constant that speaks for one of the classes, so that a module which ranks texts
well names one class for all of them. The donor's own answers on the texts tell how often each
class is to be expected: no label is needed, and no class has to be as frequent as another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.porting.reading import TokenRows, parts_for
from peftport.techniques.base import Parameters, Technique
from peftport.techniques.embeddings import attached
from peftport.training.readout import ClassReadout, class_logits

if TYPE_CHECKING:
    from peftport.hosts.host import Host

_SWEEPS = 200


@torch.no_grad()
def class_scores(
    host: Host,
    technique: Technique,
    config: Any,
    module: Parameters,
    rows: TokenRows,
    readout: ClassReadout,
) -> Tensor:
    """Class scores of texts under a module without lane axis: (texts, classes), on the CPU."""
    lanes = {name: tensor[None].to(host.device) for name, tensor in module.items()}
    with attached(host, technique, config, lanes):
        parts = [
            class_logits(host, part, lanes, readout).float().cpu()
            for part in parts_for(host.geometry, rows)
        ]
    return torch.cat(parts)


def prior_offsets(donor: Tensor, ported: Tensor) -> Tensor:
    """What to add to a ported module's class scores so that classes are as frequent as the
    donor's: (classes,), of mean 0.

    The ported scores are first spread as widely as the donor's, because a module whose scores lie
    close together would otherwise be judged by its hesitation.

    Args:
        donor, ported: class scores (texts, classes) of the same texts.
    """
    wanted = donor.softmax(1).mean(0).clamp_min(1e-4).log()  # (classes,)
    sharp = _spread(donor) / _spread(ported)
    scores, shift = ported * sharp, torch.zeros(ported.shape[1])
    for _ in range(_SWEEPS):
        found = (scores + shift).softmax(1).mean(0).clamp_min(1e-6).log()
        shift = shift + wanted - found
    return (shift - shift.mean()) / sharp


def _spread(scores: Tensor) -> Tensor:
    """Deviation of the scores' differences within the texts' own means."""
    centred = scores - scores.mean(1, keepdim=True)
    return (centred - centred.mean(0)).square().mean().sqrt().clamp_min(1e-6)
