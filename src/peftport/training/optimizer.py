"""AdamW over lanes: each lane has its own learning rate, clipping and failure.

torch's optimizers take one learning rate for a whole tensor, so that lanes, which share tensors,
need this one; `tests/training/test_optimizer.py` holds it against `torch.optim.AdamW`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peftport.techniques.base import Parameters

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class LaneAdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) on all of a module's tensors at once.

    The tensors of every lane lie in one buffer (lanes, parameters), so that a step costs a few
    operations however many tensors the technique has.

    Whatever changes from step to step is a tensor that is changed in place, the number of steps
    too, so that a recorded step can be replayed.

    Attributes: `flat`, all parameters (lanes, parameters); `mean`, of their gradients so far, of
        the same shape; `alive`, (lanes,); `steps` taken so far, ().

    Args:
        start: the modules' parameters with the lane axis; not changed.
        learning_rates: one per lane, (lanes,).
        clip: largest norm of a lane's gradient; None does not clip.
        warmup: steps over which the learning rates rise from 0; they are constant afterwards.
    """

    def __init__(
        self,
        start: Parameters,
        learning_rates: Tensor,
        clip: float | None = 1.0,
        weight_decay: float = 0.0,
        warmup: int = 0,
    ) -> None:
        self._shapes = {name: tensor.shape for name, tensor in start.items()}
        flat = torch.cat([tensor.detach().flatten(1) for tensor in start.values()], dim=1)
        self.flat = flat.clone().requires_grad_()  # (lanes, parameters)
        self.alive = torch.ones(len(flat), dtype=torch.bool, device=flat.device)  # (lanes,)
        self._rates = learning_rates.to(flat)[:, None]  # (lanes, 1)
        self._clip, self._decay, self._warmup = clip, weight_decay, max(1, warmup)
        self.mean, self._square = torch.zeros_like(flat), torch.zeros_like(flat)
        self.steps = torch.zeros((), dtype=torch.float64, device=flat.device)

    def parameters(self) -> Parameters:
        """The tensors by name, as views through which gradients reach the buffer."""
        sizes = [shape[1:].numel() for shape in self._shapes.values()]
        parts = self.flat.split(sizes, dim=1)
        named = zip(self._shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in named}

    @torch.no_grad()
    def step(self) -> None:
        """Take one step from the gradients in the buffer and clear them.

        A lane whose gradient is not finite dies: it keeps its parameters from then on.
        """
        gradient = self.flat.grad
        assert gradient is not None
        norm = gradient.norm(dim=1, keepdim=True)  # (lanes, 1)
        self.alive &= norm[:, 0].isfinite()
        alive = self.alive[:, None]
        gradient = torch.where(alive, gradient, 0.0)
        if self._clip is not None:
            gradient = gradient * torch.clamp(self._clip / (norm + 1e-6), max=1.0).nan_to_num(0.0)
        self.steps += 1
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self._square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        mean = self.mean / (1 - BETAS[0] ** self.steps)
        scale = (self._square / (1 - BETAS[1] ** self.steps)).sqrt_().add_(EPSILON)
        risen = (self.steps / self._warmup).clamp(max=1.0)
        rates = torch.where(alive, self._rates * risen, 0.0)
        self.flat.mul_(1 - rates * self._decay).sub_(rates * mean / scale)
        self.flat.grad = None
