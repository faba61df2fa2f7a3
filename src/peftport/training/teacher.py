"""A donor on its own host, asked without labels: what it answers is what others learn from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.errors import RunFailed
from peftport.techniques.base import Parameters, Technique, stack_lanes
from peftport.techniques.embeddings import attached
from peftport.training.evaluate import scores
from peftport.training.readout import Readout

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded


@dataclass(frozen=True)
class Teacher:
    """A module on the host that it is made for.

    module: its tensors, the embeddings that it brings along among them, without lane axis.
    """

    host: Host
    technique: Technique
    config: Any
    module: Parameters

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Its module acts on its host meanwhile."""
        lanes = {n: t[None].to(self.host.device) for n, t in self.module.items()}
        with attached(self.host, self.technique, self.config, lanes):
            yield

    def answers(self, encoded: Encoded, readout: Readout) -> Tensor:
        """What is kept of every row, (rows, columns): of classes their logits.

        Raises:
            RunFailed: a number is not finite.
        """
        lanes = stack_lanes([self.module])
        found = scores(self.host, self.technique, self.config, lanes, encoded, readout)[0]
        if not torch.isfinite(found).all():
            raise RunFailed(f"the module's scores on {self.host.name} are not finite.")
        return found
