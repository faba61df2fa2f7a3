"""A port method for tests of the seam: it scales a LoRA module, and needs both hosts and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
from pydantic import Field

from peftport.porting import METHODS, Account
from peftport.porting.base import Made, MethodOptions, PortMethod, Request, matched

if TYPE_CHECKING:
    import torch

    from peftport.porting.means import Means
    from peftport.techniques.base import Parameters


class SoftOptions(MethodOptions):
    """Options of the method `soft`."""

    scale: float = Field(0.5, gt=0, description="What every tensor is multiplied with.")
    layers: Literal["proportional", "every", "cka"] = "proportional"


class Soft(PortMethod):
    """Multiplies every tensor of a LoRA module with a number."""

    name = "soft"
    about = "Every tensor times a number, for tests."
    limits = "It ports nothing but LoRA."
    source = "nobody"
    needs = frozenset({"weights", "texts"})
    techniques = frozenset({"lora"})
    Options = SoftOptions

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
        """The donor's tensors, scaled; it tells which host it was given."""
        assert means is not None
        tensors = {name: donor[name] * request.options.scale for name in request.wanted}
        found = {"receiver": means.receiver.name}
        return Made(tensors, self.account(request), details=found)


@pytest.fixture
def soft(monkeypatch: pytest.MonkeyPatch) -> str:
    """The method `soft`, registered for one test."""
    monkeypatch.setitem(METHODS._places, "soft", "port_methods:Soft")
    return "soft"
