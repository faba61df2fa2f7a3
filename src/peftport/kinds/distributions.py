"""What a donor finds probable at every token of what it wrote, for a host with the same vocabulary.

Where both hosts have one vocabulary a new module learns more than which token was written: how
probable the others were, too (Hinton et al. 2015, arXiv 1503.02531; for text Kim & Rush 2016, arXiv
1606.07947, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from peftport.kinds.sequences import SequenceLosses, lane_means, predictions, with_few_logits
from peftport.metrics import Evaluation
from peftport.tasks.pairs import IGNORED, EncodedPairs
from peftport.techniques.base import Parameters
from peftport.training.readout import Readout

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.training.teacher import Teacher

MOST = 32
"""Tokens that are kept at each place, the most probable ones."""


@dataclass(frozen=True)
class Distributions:
    """At every token of the rows' answers the tokens that the donor finds most probable there.

    Attributes:
        targets, ends: the answers' own tokens, (places,), and where each row's end, (rows + 1,).
        tokens, shares: the most probable ones, and their probabilities among themselves, both
            (places, most).
    """

    targets: Tensor = field(repr=False)
    ends: Tensor = field(repr=False)
    tokens: Tensor = field(repr=False)
    shares: Tensor = field(repr=False)


@torch.no_grad()
def distributions(teacher: Teacher, rows: EncodedPairs) -> Distributions:
    """What a donor finds probable in rows that its host's tokenizer has made."""
    host = teacher.host
    known = len(host.tokenizer)  # some hosts have logits beyond their vocabulary
    most, ends = min(MOST, known), torch.from_numpy(rows.target_offsets)
    tokens = torch.zeros(len(rows.targets), most, dtype=torch.long)
    shares = torch.zeros(len(rows.targets), most)
    with teacher.attached():
        for chosen, batch in rows.evaluation_batches(with_few_logits(host)):
            begins, stops = rows.target_offsets[chosen], rows.target_offsets[chosen + 1]
            places = torch.cat(
                [torch.arange(int(a), int(b)) for a, b in zip(begins, stops, strict=True)]
            )
            for at, logits in predictions(host, batch.to(host.device)).parts():
                top = logits[:, :known].topk(most)  # (places, most)
                tokens[places[at]] = top.indices.cpu()
                shares[places[at]] = top.values.softmax(-1).cpu()
    return Distributions(torch.from_numpy(rows.targets).long(), ends, tokens, shares)


@dataclass(frozen=True)
class TaughtPairs(EncodedPairs):
    """Rows whose labels are places in `seen`; `targets` are 0, 1, 2 and so on."""

    seen: Distributions | None = None

    @classmethod
    def of(cls, rows: EncodedPairs, seen: Distributions) -> EncodedPairs:
        """The rows with what the donor saw; the rows as they are where this host's tokens of an
        answer are others than its own."""
        same = torch.equal(torch.from_numpy(rows.targets).long(), seen.targets)
        if not same or not torch.equal(torch.from_numpy(rows.target_offsets), seen.ends):
            return rows
        counted = replace(rows, targets=np.arange(len(rows.targets), dtype=np.int32))
        return cls(**vars(counted), seen=seen)


@dataclass(frozen=True)
class DistributionReadout(SequenceLosses):
    """Trains on a donor's distributions; what is read off is as `usual` has it."""

    usual: Readout
    seen: Distributions

    def losses(self, host: Host, batch: Any, parameters: Parameters, lanes: int) -> Tensor:
        """Cross-entropy with the donor's distributions in nats, a mean over a lane's tokens."""
        asked = batch.labels != IGNORED
        places = batch.labels[asked]  # (tokens,)
        written = batch.labels.clone()
        written[asked] = self.seen.targets[places]
        batch = replace(batch, labels=written).to(host.device)
        tokens = self.seen.tokens[places].to(host.device)  # (tokens, most)
        shares = self.seen.shares[places].to(host.device)

        def losses(logits: Tensor, at: slice) -> Tensor:
            found = logits.log_softmax(-1).gather(-1, tokens[at])  # (tokens, most)
            return -(shares[at] * found).sum(-1)

        return lane_means(host, batch, lanes, lambda found, weights: found.each(losses, weights))

    def evaluation(self, *args: Any) -> Evaluation:
        """As of rows that nobody has taught."""
        return self.usual.evaluation(*args)


def learning(rows: Any, usual: Readout) -> Readout:
    """How a new module is trained on rows that a donor has taught."""
    seen = getattr(rows, "seen", None)
    return usual if seen is None else DistributionReadout(usual, seen)
