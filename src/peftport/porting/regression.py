"""Ridge regression of a few wanted figures on a host's states, its strength chosen without labels.

With two hundred texts and two thousand dimensions the states fit anything, so what counts is the
error that each text has when it is left out; for ridge regression it is known in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

STRENGTHS = tuple(10.0**power for power in range(-4, 3))
"""Ridge strengths that are tried, in multiples of the states' mean squared length."""


@dataclass(frozen=True)
class LinearProbe:
    """A linear reading of states without an intercept: wanted = states @ matrix.mT.

    matrix: (wanted, width). missed: share of the wanted variance that is missed by texts that are
    left out, in [0, inf). strength: the ridge that was chosen.
    """

    matrix: Tensor = field(repr=False)
    missed: float
    strength: float


def fit_reading(
    states: Tensor,
    wanted: Tensor,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearProbe:
    """Fit `wanted` on `states` by the strength whose left-out texts are missed by least.

    A constant is read off the states' mean, for a low-rank change of a weight has no bias: the
    direction of the mean is not penalised.

    Args:
        states: (texts, width). wanted: (texts, figures).
    """
    states, wanted = states.double(), wanted.double()
    mean = states.mean(0)
    unit = mean / mean.square().sum().clamp_min(1e-30)  # states @ unit is 1 on average
    constant = states @ unit  # (texts,)
    varied = states - constant[:, None] * mean  # (texts, width)
    along = constant / constant.norm().clamp_min(1e-30)
    bare, aim = (t - along[:, None] * (along @ t) for t in (varied, wanted))
    values, vectors = torch.linalg.eigh(bare @ bare.mT)  # (texts,), (texts, texts)
    values = values.clamp_min(0)
    aimed = vectors.mT @ aim  # (texts, figures)
    spread = (wanted - wanted.mean(0)).square().sum().clamp_min(1e-30)
    best: LinearProbe | None = None
    for strength in strengths:
        ridge = strength * values.mean().clamp_min(1e-30)
        keep = values / (values + ridge)
        missed = aim - vectors @ (keep[:, None] * aimed)  # (texts, figures)
        leverage = vectors.square() @ keep + along.square()  # (texts,)
        left_out = missed / (1 - leverage).clamp_min(1e-6)[:, None]
        error = float(left_out.square().sum() / spread)
        if best is None or error < best.missed:
            weight = bare.mT @ (vectors @ (aimed / (values + ridge)[:, None]))  # (width, figures)
            base = along @ (wanted - varied @ weight) / constant.norm().clamp_min(1e-30)
            matrix = weight.mT + (base - mean @ weight)[:, None] * unit  # (figures, width)
            best = LinearProbe(matrix, error, strength)
    assert best is not None
    return best
