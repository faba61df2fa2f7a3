"""Maps between wide spaces are those that decompositions give, on vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from peftport.errors import RunFailed
from peftport.porting import semi_orthogonal, wide
from peftport.porting.wide import Polar, inverse_root
from porting.spaces import drawn


@pytest.fixture(autouse=True)
def every_space_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "WIDE", 8)


def falling(seed: int, rows: int, columns: int, least: float) -> Tensor:
    """A matrix whose singular values fall from 1 to `least`."""
    left, _, right = torch.linalg.svd(drawn(seed, rows, columns).double(), full_matrices=False)
    values = torch.logspace(0, float(np.log10(least)), min(rows, columns), dtype=torch.double)
    return left * values @ right


def apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("least", "inverses"), [(1e-6, 8), (1e-10, 10)])
def test_an_inverse_root_is_a_sum_of_shifted_inverses(least, inverses):
    shifts, shares = np.array(inverse_root(least, inverses)).T
    places = np.logspace(np.log10(least), 0, 300)
    found = (shares / (places[:, None] + shifts)).sum(1)
    assert np.allclose(found * places**0.5, 1, atol=2e-3)
    below = (shares / (least / 1e4 + shifts)).sum() * (least / 1e4) ** 0.5
    assert below < 0.05, "what is smaller fades"


@pytest.mark.parametrize(("rows", "columns"), [(20, 33), (33, 20), (24, 24)])
def test_vectors_go_through_a_polar_factor_as_through_its_matrix(rows, columns):
    matrix = falling(0, rows, columns, 1e-4)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    vectors, factor = drawn(1, 5, rows).double(), Polar.of(matrix, 1e-10, 10)
    assert apart(factor.after(vectors), vectors @ left @ right) < 3e-3
    assert factor.norm(vectors) == pytest.approx(float((vectors @ left @ right).norm()), rel=0.01)


@pytest.mark.parametrize(("origin", "receiver"), [(20, 33), (33, 20), (24, 24)])
def test_inputs_and_changes_are_mapped_as_between_narrow_spaces(origin, receiver, monkeypatch):
    """Samples that have to do with each other, about means that stand off."""
    shared = drawn(0, 300, 40)
    there = shared @ drawn(1, 40, origin) + drawn(2, 300, origin) + drawn(3, origin)
    here = shared @ drawn(4, 40, receiver) + drawn(5, 300, receiver) + drawn(6, receiver)
    slopes = drawn(7, 2, 300, origin), drawn(8, 2, 300, receiver)
    down, up, bias = drawn(9, 4, origin), drawn(10, origin, 4), drawn(11, 4)
    read = semi_orthogonal.fit_input(there, here, whitening=1.0)
    change = semi_orthogonal.fit_output(there, here, slopes, 0.3)
    assert not isinstance(change, Tensor)
    monkeypatch.setattr(wide, "WIDE", 384)
    wanted = semi_orthogonal.fit_input(there, here, whitening=1.0)
    assert apart(read.weight(down), wanted.weight(down)) < 5e-3
    assert apart(read.bias(down, bias), wanted.bias(down, bias)) < 5e-3
    assert apart(read.linear(down), wanted.linear(down)) < 5e-3
    assert apart(change @ up, semi_orthogonal.fit_output(there, here, slopes, 0.3) @ up) < 5e-3


def test_fewer_samples_than_dimensions_give_finite_maps():
    there, here = drawn(0, 12, 40), drawn(1, 12, 30)
    read, change = (
        semi_orthogonal.fit_input(there, here, whitening=1.0),
        semi_orthogonal.fit_output(there, here),
    )
    assert torch.isfinite(read.linear(drawn(2, 3, 40))).all()
    assert torch.isfinite(change @ drawn(3, 40, 3)).all()


@pytest.mark.parametrize("samples", [16, 200])
def test_a_sample_that_stands_far_off_hinders_no_map(samples):
    """An attention sink among few texts: products are rounded by more than is added to them."""
    there, here = drawn(0, samples, 700), drawn(1, samples, 900)
    there[0] *= 1e5
    here[0] *= 1e5
    read = semi_orthogonal.fit_input(there, here, whitening=1.0)
    change = semi_orthogonal.fit_output(there, here)
    assert torch.isfinite(read.linear(drawn(2, 3, 700))).all()
    assert torch.isfinite(change @ drawn(3, 700, 3)).all()


def test_samples_that_do_not_vary_give_a_map_of_nothing():
    same = torch.ones(20, 40)
    assert not semi_orthogonal.fit_input(same, same, whitening=1.0).weight(drawn(2, 3, 40)).any()


def test_what_is_no_number_is_no_map():
    there = drawn(0, 20, 40)
    there[3, 4] = torch.inf
    with pytest.raises(RunFailed, match="activations of a host are not finite"):
        semi_orthogonal.fit_input(there, drawn(1, 20, 40), whitening=1.0)
