"""What tells cheaply how far two hosts of one shape are from each other where a module acts.

Weights are read one tensor at a time; hosts are loaded, one after the other, for their streams
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftport.correction import agreement, most_likely
from peftport.hosts.geometry import Geometry
from peftport.metrics import offsets_of
from peftport.porting.activations import observe
from peftport.porting.copy import Copy
from peftport.porting.embeddings import carry
from peftport.porting.layers import linear_cka
from peftport.porting.layerwise import read_passes
from peftport.porting.prior import class_scores
from peftport.porting.reading import TokenRows, task_of
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.techniques.embeddings import without_embeddings
from peftport.training.readout import class_readout

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.porting.base import Request
    from peftport.porting.means import Means, Side

TEXTS = 256
"""Unlabelled texts that are asked for; with 256, kappa is known to about 0.05."""
RANK = 8
"""Singular directions of a weight that are compared."""
_PLACES = 4096
Answers = NDArray[np.int64]


@dataclass(frozen=True)
class WeightSignals:
    """What the weights of the layers in which a module stands say.

    distance: sqrt(2 |there - here|^2 / (|here|^2 + |there|^2)), all weights taken together: 0 for
        one host, the root of 2 for weights that have nothing in common.
    overlap: share of the first `RANK` singular directions, of inputs and of outputs, that the
        hosts have in common, the mean over weights: 1 for one host.
    """

    distance: float
    overlap: float


@dataclass(frozen=True)
class TextSignals:
    """What the hosts make of the same unlabelled texts.

    cka: linear CKA of the residual streams at the end of each layer, the mean over layers
        (Kornblith et al. 2019, arXiv 1905.00414): 1 for one host.
    answers: how far the copy answers on the receiving host as the module does on its own, both
        after the label-free correction, as Cohen's kappa: 1 always, 0 no more than by chance. None
        where the module does not know its label words.
    """

    cka: float
    answers: float | None


def layers_of(tensors: Iterable[str], geometry: Geometry) -> tuple[str, ...]:
    """The layers in which a module's tensors stand, "encoder.0" and the like."""
    found = {".".join(name.split(".")[:2]) for name in tensors}
    return tuple(layer for layer in geometry.blocks if layer in found)


def compare_weights(origin: Side, receiver: Side, layers: Sequence[str]) -> WeightSignals:
    """Compare all linear weights of some layers of two hosts."""
    apart, size, overlaps = 0.0, 0.0, []
    for point in origin.geometry.linears:
        if ".".join(point.split(".")[:2]) in layers:
            here, there = origin.linear(point).float(), receiver.linear(point).float()
            apart += float((there - here).square().sum())
            size += float(here.square().sum() + there.square().sum()) / 2
            overlaps.append(subspace_overlap(here, there))
    return WeightSignals(sqrt(apart / size), sum(overlaps) / len(overlaps))


def subspace_overlap(first: Tensor, second: Tensor, rank: int = RANK) -> float:
    """Mean squared cosine between the spaces of the first `rank` left, and of the first right,
    singular vectors of two matrices of one shape; layers are so compared by LoRA-X (arXiv
    2501.16559)."""
    rank = min(rank, *first.shape)
    shared = [
        float((here.mT @ there).square().sum()) / rank
        for here, there in zip(_directions(first, rank), _directions(second, rank), strict=True)
    ]
    return sum(shared) / len(shared)


def _directions(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """First singular directions, (outputs, rank) and (inputs, rank), by the randomised method of
    Halko et al. 2011 (arXiv 0909.4061): whole decompositions of large hosts take hours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, _, right = torch.svd_lowrank(matrix, q=min(2 * rank, *matrix.shape), niter=4)
    return left[:, :rank], right[:, :rank]


def compare_on_texts(request: Request, donor: Parameters, means: Means) -> TextSignals:
    """Run both hosts, one after the other, over the texts as the module's task is read: bare, and
    with the module.

    Args:
        request: a copy, between hosts of one shape.
        donor: the module's tensors, without lane axis; the copy has its embeddings as far as both
            hosts have the tokens.

    Raises:
        BadInput: too few texts, or the tokenizers have nothing in common on them.
    """
    streams, answers = [], []
    sides, passes = (means.origin, means.receiver), read_both(request, means)
    copy = without_embeddings(donor) | carry(donor, means, Copy(), request).tensors
    for side, rows, module in zip(sides, passes, (donor, copy), strict=True):
        host = side.load()
        streams.append(layer_ends(host, rows))
        answers.append(named_classes(host, request, module, rows[0]))
    here, there = answers
    alike = None if here is None or there is None else shared_answers(here, there)
    return TextSignals(mean_cka(*streams), alike)


def shared_answers(here: Answers, there: Answers) -> float:
    """Cohen's kappa of two series of answers (texts,); 0 where all of them are one class."""
    return agreement(here, there) or 0.0


def read_both(request: Request, means: Means) -> tuple[list[TokenRows], list[TokenRows]]:
    """The texts as passes of both hosts, with the tokens that are compared."""
    generator = torch.Generator().manual_seed(0)
    return read_passes(request, means, task_of(request.donor.task), _PLACES, generator)


def layer_ends(host: Host, passes: Sequence[TokenRows]) -> dict[str, Tensor]:
    """The residual stream at the end of each layer of the bare host: (tokens, width)."""
    return observe(host, passes, (), host.geometry.blocks).outputs


def mean_cka(here: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> float:
    """Linear CKA of two hosts' streams, the mean over layers."""
    return sum(float(linear_cka(here[layer], there[layer])) for layer in here) / len(here)


def named_classes(
    host: Host, request: Request, donor: Parameters, rows: TokenRows
) -> Answers | None:
    """Classes that a host names with the module, after the label-free correction on these very
    texts, (texts,); None where it is not known how classes are read off."""
    task = task_of(request.donor.task)
    if len(task.labels) < 2 or not (task.label_words or host.geometry.kind == "encoder"):
        return None
    made, readout = technique(request.donor.technique), class_readout(host, task)
    scores = class_scores(host, made, request.config, donor, rows, readout).numpy()
    return most_likely(scores, offsets_of(scores))
