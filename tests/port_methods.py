"""Port methods for tests of what is around them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from pydantic import Field

from peftport.porting import METHODS, Account, Entry
from peftport.porting.base import Made, MethodOptions, PortMethod, Request
from peftport.porting.copy import Copy

if TYPE_CHECKING:
    from peftport.porting.means import Means
    from peftport.techniques.base import Parameters


class SoftOptions(MethodOptions):
    """Options of the method `soft`."""

    scale: float = Field(0.5, gt=0, description="What every tensor is multiplied with.")
    layers: Literal["proportional", "every", "cka"] = "proportional"
    steps: int = Field(0, ge=0, description="Steps that it says it trained.")


class Soft(PortMethod):
    """Multiplies every tensor of a LoRA module with a number; cuts or pads it for other widths."""

    name = "soft"
    about = "Every tensor times a number, for tests."
    limits = "It ports nothing but LoRA."
    source = "nobody"
    needs = frozenset({"weights", "texts"})
    techniques = frozenset({"lora"})
    Options = SoftOptions

    def account(self, request: Request) -> Account:
        """Mapped where the donor has a tensor of this name."""
        return Account(
            self.name,
            tuple(
                Entry(name, name, "mapped", shape)
                if name in request.shapes
                else Entry(None, name, "initialised", shape, why="a layer more")
                for name, shape in request.wanted.items()
            ),
        )

    def problem(self, account: Account) -> str | None:
        """Further layers do not matter."""
        return None

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """The donor's tensors, scaled; it tells which host it was given."""
        assert means is not None
        tensors = {}
        for name, shape in request.wanted.items():
            tensors[name] = torch.zeros(shape)
            if name in donor:
                inside = tuple(map(slice, map(min, zip(shape, donor[name].shape, strict=True))))
                tensors[name][inside] = donor[name][inside] * request.options.scale
        found: dict[str, Any] = {"receiver": means.receiver.name, "steps": request.options.steps}
        return Made(tensors, self.account(request), details=found)


class Hungry(Copy):
    """Copies, and takes 200 MB for a moment."""

    name = "hungry"

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """A copy."""
        assert torch.ones(50_000_000).sum()
        return super().port(request, donor, generator, means)


class Dying(Copy):
    """Ends its process."""

    name = "dying"

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """Nothing comes of it."""
        os._exit(9)


class Killed(Copy):
    """Ends as a process does that the kernel kills for want of memory."""

    name = "killed"

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """Nothing comes of it."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("no process outlives this signal")


@contextmanager
def registered(*names: str) -> Iterator[None]:
    """Methods of this file by these names, for a while."""
    for name in names:
        METHODS.add(name, f"port_methods:{name.capitalize()}")
    yield
    for name in names:
        METHODS.remove(name)


@pytest.fixture
def soft() -> Iterator[str]:
    """The method `soft`, registered for one test."""
    with registered("soft"):
        yield "soft"


@pytest.fixture
def extreme() -> Iterator[None]:
    """The methods `hungry`, `dying` and `killed`, registered for one test."""
    with registered("hungry", "dying", "killed"):
        yield


class Turned(Copy):
    """Makes a LoRA module of another rank: what it makes is not what the study planned."""

    name = "turned"
    about = "A module of rank 2, for tests."

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """The first two ranks of every tensor."""
        tensors = {
            name: tensor[:2] if name.endswith("lora_A") else tensor[:, :2]
            for name, tensor in donor.items()
        }
        config = {**request.donor.config, "rank": 2}
        return Made(tensors, self.account(request), record={"config": config})


@pytest.fixture
def turned() -> Iterator[str]:
    """The method `turned`, registered for one test."""
    with registered("turned"):
        yield "turned"
