"""Controls: modules that look like a port and carry nothing of what the donor learnt.

`scratch` is the technique's own initialisation. The three others are drawn from the ported
module's distribution, in three readings of "the same distribution" (Sabry & Belz 2024): a Gaussian
per tensor, the tensor's own entries shuffled, or its singular values with random singular vectors.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peftport.porting.account import Account, Entry
from peftport.porting.base import Made, PortMethod, Request, matched
from peftport.techniques import technique
from peftport.techniques.base import Parameters

if TYPE_CHECKING:
    from peftport.porting.means import Means


class Scratch(PortMethod):
    """A fresh module of the donor's technique and configuration."""

    name = "scratch"
    about = "Control: the technique's own initialisation; nothing of the donor."
    control = True
    carries = False

    def refusal(self, request: Request) -> str | None:
        """A start that is made of the receiving host's weights, which a control does not read."""
        made = technique(request.donor.technique)
        if option := made.starts_from_weights(request.config):
            return (
                f"by its {option} a {made.name} starts from the receiving host's weights, which "
                "assess and studies have at hand"
            )
        return super().refusal(request)

    def account(self, request: Request) -> Account:
        """Everything is initialised."""
        why = "control: the technique's own initialisation"
        return Account(
            self.name,
            tuple(Entry(None, n, "initialised", s, why=why) for n, s in request.wanted.items()),
        )

    def problem(self, account: Account) -> str | None:
        """A fresh module is always whole."""
        return None

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """The technique's own initialisation on the receiving host."""
        return Made(request.scratch(generator), self.account(request))


class _Sampled(PortMethod):
    """Draw every tensor anew from the distribution of the donor's."""

    control = True
    carries = False

    def account(self, request: Request) -> Account:
        """Everything is drawn where name and shape agree."""
        why = f"drawn: {self.about}"
        entries = matched(request, self.name).entries
        return Account(
            self.name,
            tuple(
                replace(e, action="initialised", scale=None, why=why) if e.scale else e
                for e in entries
            ),
        )

    def problem(self, account: Account) -> str | None:
        """A sample of a module that does not fit is no control."""
        unlike = [e for e in account.entries if e.source is None or e.target is None]
        if not unlike:
            return None
        return f"{unlike[0].source or unlike[0].target}: {unlike[0].why}"

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """A draw for every tensor that could be copied; the technique's start for the others."""
        result = request.scratch(generator)
        for entry in matched(request, self.name).entries:
            if entry.action == "copied" and entry.target is not None:
                result[entry.target] = self.draw(donor[entry.target], generator)
        return Made(result, self.account(request))

    @abstractmethod
    def draw(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a tensor of the same shape from the distribution of `tensor`."""


class Gaussian(_Sampled):
    """Independent normal entries with the tensor's mean and standard deviation."""

    name = "gaussian"
    about = "Control: normal entries with each tensor's mean and deviation."

    def draw(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        """A normal draw with the moments of `tensor`."""
        noise = torch.randn(tensor.shape, generator=generator)
        return tensor.mean() + noise * tensor.std(correction=0)


class Permuted(_Sampled):
    """The tensor's own entries in random order."""

    name = "permuted"
    about = "Control: each tensor's own entries in random order."

    def draw(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        """The entries of `tensor`, shuffled."""
        order = torch.randperm(tensor.numel(), generator=generator)
        return tensor.flatten()[order].view(tensor.shape)


class Spectrum(_Sampled):
    """The same singular values between random singular vectors: the strongest of the three."""

    name = "spectrum"
    about = "Control: each matrix's singular values between random singular vectors."

    def draw(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        """Matrices over the last two axes; a vector keeps its norm and gets a random direction."""
        if tensor.ndim == 1:
            noise = torch.randn(tensor.shape, generator=generator)
            return noise * tensor.norm() / noise.norm()
        values = torch.linalg.svdvals(tensor)  # (..., rank)
        left = _orthonormal(tensor.shape, generator)
        right = _orthonormal((*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2]), generator)
        return (left * values[..., None, :]) @ right.mT


def _orthonormal(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    """Random orthonormal columns (Haar): (..., rows, min(rows, columns))."""
    columns = min(shape[-2:])
    noise = torch.randn((*shape[:-2], shape[-2], columns), generator=generator)
    basis, triangle = torch.linalg.qr(noise)
    return basis * triangle.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
