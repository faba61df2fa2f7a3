"""Products of a frozen host in bfloat16, everything around them in single precision.

A host's weights never change, so that they are cast once. What trains (a module's parameters, its
optimizer, the loss) and what is summed over layers (the residual stream, the norms) stay as they
are. On CPUs and GPUs that multiply bfloat16 natively its products are several times as fast.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from peftport.hosts.attention import set_attention_dtype
from peftport.hosts.geometry import Geometry


def lower_products(model: Any, geometry: Geometry) -> None:
    """Have a host's linear layers and its head multiply in bfloat16, and on a GPU its attentions
    as well.

    They take and give single precision as before. Embeddings are left alone: they multiply nothing.
    """
    for linear in geometry.linears.values():
        module = model.get_submodule(linear.path)
        module.weight.data = module.weight.data.to(torch.bfloat16)
        if module.bias is not None:
            module.bias.data = module.bias.data.to(torch.bfloat16)
        module.forward = partial(_product, module, linear.transposed)
    head = model.get_output_embeddings()
    if head is not None:
        head.forward = HeadProduct(head)
    # On CPUs attention in bfloat16 is slower than in single precision.
    if model.device.type == "cuda":
        for attention in geometry.attentions.values():
            set_attention_dtype(model.get_submodule(attention.path), torch.bfloat16)


def _product(module: Any, transposed: bool, states: Tensor) -> Tensor:
    weight = module.weight.mT if transposed else module.weight  # (outputs, inputs)
    return functional.linear(states.to(weight.dtype), weight, module.bias).float()


class HeadProduct:
    """The product of a head with the whole vocabulary, in bfloat16.

    The head's weight stays as it is: embeddings can be tied to it, classes are read from a few of
    its rows, and a module can put another in its place. So the product has a copy of its own, made
    when it is first wanted.
    """

    def __init__(self, head: Any) -> None:
        self._head = head
        self._weight, self._low = None, torch.empty(0)

    def __call__(self, states: Tensor) -> Tensor:
        """States (..., width) -> logits (..., vocabulary), in single precision."""
        weight, bias = self._head.weight, self._head.bias
        if self._weight is not weight:
            self._weight, self._low = weight, weight.detach().to(torch.bfloat16)
        logits = functional.linear(states.to(torch.bfloat16), self._low).float()
        return logits if bias is None else logits + bias.float()
