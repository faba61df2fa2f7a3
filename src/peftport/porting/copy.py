"""Copy: every tensor goes over as it is (Sabry & Belz 2024, arXiv 2401.14228)."""

from __future__ import annotations

import torch

from peftport.porting.account import Account
from peftport.porting.base import PortMethod, Request, matched
from peftport.techniques.base import Parameters


class Copy(PortMethod):
    """Needs hosts of equal geometry; works while the receiver is a short continuation."""

    name = "copy"
    about = "Every tensor as it is. For hosts of equal geometry that share a pretraining."

    def account(self, request: Request) -> Account:
        """Copied where name and shape agree."""
        return matched(request, self.name)

    def tensors(
        self, request: Request, donor: Parameters, generator: torch.Generator
    ) -> Parameters:
        """The donor's tensors; what it lacks starts as the technique starts it."""
        result = request.scratch(generator)
        for entry in self.account(request).entries:
            if entry.action == "copied" and entry.target is not None:
                result[entry.target] = donor[entry.target].clone()
        return result
