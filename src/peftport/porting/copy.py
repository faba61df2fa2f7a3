"""Copy: every tensor goes over as it is (Sabry & Belz 2024, arXiv 2401.14228)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftport.porting.account import Account
from peftport.porting.base import Made, PortMethod, Request, matched
from peftport.techniques.base import Parameters

if TYPE_CHECKING:
    from peftport.porting.means import Means


class Copy(PortMethod):
    """Needs hosts of equal geometry; works while the receiver is a short continuation."""

    name = "copy"
    about = "Every tensor as it is. For hosts of equal geometry that share a pretraining."
    limits = "Between hosts that were pretrained independently nothing of the module survives."
    source = "Sabry & Belz 2024, arXiv 2401.14228"

    def account(self, request: Request) -> Account:
        """Copied where name and shape agree."""
        return matched(request, self.name)

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """The donor's tensors; what it lacks starts as the technique starts it."""
        account, result = self.account(request), request.scratch(generator)
        for entry in account.entries:
            if entry.action == "copied" and entry.target is not None:
                result[entry.target] = donor[entry.target].clone()
        return Made(result, account)
