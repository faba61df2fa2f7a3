"""What a host is run for, whose gradients maps are fitted on: the scores of a module's classes, or
the likelihood of what the donor itself wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from peftport.porting.activations import contrasts_of
from peftport.porting.reading import TokenRows
from peftport.techniques.base import Parameters
from peftport.techniques.head import head_logits
from peftport.training.readout import ClassReadout, class_logits

if TYPE_CHECKING:
    from peftport.hosts.host import Host


class Grade(Protocol):
    """What a host is run for."""

    def states(self, host: Host, part: TokenRows) -> Tensor:
        """What a run over some rows gives, with its graph."""

    def sums(self, host: Host, states: Tensor, part: TokenRows, head: Parameters) -> Tensor:
        """The numbers whose gradients are wanted, (contrasts,), from what the run gave.

        Args:
            head: an encoder's, with a lane axis.
        """


@dataclass(frozen=True)
class ClassGrade:
    """Contrasts of the classes' scores, summed over the rows."""

    readout: ClassReadout

    def states(self, host: Host, part: TokenRows) -> Tensor:
        """An encoder's last states, or the classes' scores."""
        if self.readout.label_tokens is None:
            ids, mask = part.input_ids.to(host.device), part.attention_mask.to(host.device)
            return host.token_states(ids, mask)
        return class_logits(host, part, {}, self.readout, whole=True)

    def sums(self, host: Host, states: Tensor, part: TokenRows, head: Parameters) -> Tensor:
        """Each contrast of the classes."""
        scores = states
        if self.readout.label_tokens is None:
            mask = part.attention_mask.to(host.device)
            scores = head_logits(states, mask, head)  # (rows, classes)
        return (scores @ contrasts_of(self.readout.classes).mT.to(scores)).sum(0)  # (contrasts,)


@dataclass(frozen=True)
class AnswerGrade:
    """The log-likelihood of the answers in the rows, summed."""

    def states(self, host: Host, part: TokenRows) -> Tensor:
        """The log-probabilities of the answers' tokens, (tokens,)."""
        assert part.labels is not None
        labels = part.labels.to(host.device)
        ids, mask = part.input_ids.to(host.device), part.attention_mask.to(host.device)
        return -host.predictions(ids, mask, labels).nats(labels[labels >= 0])

    def sums(self, host: Host, states: Tensor, part: TokenRows, head: Parameters) -> Tensor:
        """Their sum, one contrast."""
        return states.sum()[None]
