"""Few samples of a wide space are its whole, to whatever is fitted on them."""

from __future__ import annotations

import pytest
import torch

from peftport.errors import RunFailed
from peftport.porting import wide
from peftport.porting.span import Span, cholesky, gram
from porting.spaces import drawn


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("sizes", [(12,), (12, 9)])
def test_samples_go_in_and_out_as_they_were(sizes):
    parts = [10.0**place * drawn(place, size, 60).double() for place, size in enumerate(sizes)]
    span, coordinates = Span.of(*parts)
    for part, within in zip(parts, coordinates, strict=True):
        assert within.shape == (len(part), sum(sizes))
        assert apart(span.into(part), within) < 1e-9
        assert apart(span.out(within), part) < 1e-9


def test_lengths_and_angles_stay_and_what_lies_beside_the_samples_is_dropped():
    samples, vectors = drawn(0, 15, 60).double(), drawn(1, 4, 60).double()
    span, (coordinates,) = Span.of(samples)
    assert apart(coordinates @ coordinates.mT, samples @ samples.mT) < 1e-9
    onto = torch.linalg.pinv(samples) @ samples  # (width, width), the projection
    assert apart(span.out(span.into(vectors)), vectors @ onto) < 1e-9


def test_samples_that_fill_the_space_are_left_as_they_are():
    samples, vectors = drawn(0, 60, 60), drawn(1, 4, 60)
    span, (coordinates,) = Span.of(samples)
    assert coordinates is samples
    assert span.into(vectors) is vectors and span.out(vectors) is vectors


@pytest.mark.parametrize(("origin", "receiver"), [(90, 120), (120, 90), (30, 120), (120, 30)])
def test_maps_of_few_samples_are_those_of_the_whole_spaces(origin, receiver, monkeypatch):
    """Whether both spaces are wider than their samples, or one of the two."""
    shared = drawn(0, 40, 20).double()
    there = shared @ drawn(1, 20, origin).double() + drawn(2, 40, origin).double()
    here = shared @ drawn(3, 20, receiver).double() + drawn(4, 40, receiver).double()
    slopes = 1e-3 * drawn(5, 2, 10, origin).double(), drawn(6, 2, 10, receiver).double()
    down, up = drawn(7, 4, origin).double(), drawn(8, origin, 4).double()

    def maps():
        read = wide.fit_wide_input(there, here)
        return read.linear(down), wide.fit_wide_output(there, here, slopes, 0.3) @ up

    found = maps()
    monkeypatch.setattr(Span, "of", lambda *parts: (Span(parts[0].shape[1]), list(parts)))
    for mine, whole in zip(found, maps(), strict=True):
        assert apart(mine, whole) < 1e-3


def test_no_matrix_of_the_whole_space_is_made():
    there, here = drawn(0, 20, 50_000), drawn(1, 20, 40_000)  # a square of it would be 10 GB
    read, change = wide.fit_wide_input(there, here), wide.fit_wide_output(there, here, None, 0.0)
    assert read.linear(drawn(2, 3, 50_000)).shape == (3, 40_000)
    assert (change @ drawn(3, 50_000, 3)).shape == (40_000, 3)


def test_a_product_that_is_rounded_below_nothing_is_factored():
    values = torch.logspace(0, -9, 40, dtype=torch.double)
    turn, _ = torch.linalg.qr(drawn(2, 40, 40).double())
    square = (turn * values.square()) @ turn.mT - 1e-7 * torch.eye(40, dtype=torch.double)
    lower = cholesky(square.float(), 1e-12)
    assert apart(lower.double() @ lower.double().mT, square) < 1e-4


def test_what_is_no_number_has_no_span():
    samples = drawn(0, 20, 40)
    samples[3, 4] = torch.inf
    with pytest.raises(RunFailed, match="activations of a host are not finite"):
        Span.of(samples)


@pytest.mark.parametrize("rows", [1, 256, 257, 700])
def test_products_of_rows_are_made_once_and_stand_twice(rows):
    samples = drawn(0, rows, 30)
    found = gram(samples)
    assert torch.allclose(found, samples @ samples.mT, atol=1e-4)
    assert torch.allclose(found, found.mT, atol=1e-4)
