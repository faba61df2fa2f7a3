"""Readings of states: exact relations are found, errors are those of texts left out."""

from __future__ import annotations

import pytest
import torch

from peftport.porting.regression import fit_reading


def drawn(texts: int, width: int, seed: int = 0) -> torch.Tensor:
    """States with a mean, as those of hosts are."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(width, generator=generator)
    return 2 * mean + torch.randn(texts, width, generator=generator)


@pytest.mark.parametrize(("texts", "width", "figures"), [(60, 12, 1), (80, 30, 3)])
def test_a_linear_relation_with_a_constant_is_found(texts: int, width: int, figures: int) -> None:
    states = drawn(texts, width).double()
    true = torch.randn(figures, width, generator=torch.Generator().manual_seed(1)).double()
    mean = states.mean(0)
    wanted = states @ true.mT + 5.0 * (states @ mean)[:, None] / mean.square().sum()
    found = fit_reading(states, wanted, strengths=[1e-10])
    assert torch.allclose(states @ found.matrix.mT, wanted, atol=1e-4)
    assert found.missed < 1e-6


def test_the_error_is_that_of_texts_left_out() -> None:
    states = drawn(25, 40).double()
    wanted = torch.randn(25, 2, generator=torch.Generator().manual_seed(3)).double()
    whole = fit_reading(states, wanted, strengths=[0.1])
    # Leaving texts out one by one changes the mean and the scale of the ridge a little.
    missed = torch.zeros(())
    for text in range(25):
        rest = [row for row in range(25) if row != text]
        found = fit_reading(states[rest], wanted[rest], strengths=[0.1])
        missed = missed + (wanted[text] - found.matrix @ states[text]).square().sum()
    told = float(missed / (wanted - wanted.mean(0)).square().sum())
    assert whole.missed == pytest.approx(told, rel=0.15)


def test_noise_is_read_with_a_strong_ridge_and_a_signal_with_a_weak_one() -> None:
    states = drawn(100, 200).double()
    generator = torch.Generator().manual_seed(4)
    noise = fit_reading(states, torch.randn(100, 1, generator=generator).double())
    direction = torch.randn(1, 200, generator=generator).double()
    signal = fit_reading(drawn(400, 200), drawn(400, 200).double() @ direction.mT)
    assert noise.strength > signal.strength
    assert noise.missed > 0.9
    assert signal.missed < 0.05
