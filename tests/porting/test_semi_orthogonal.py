"""Maps between spaces are those that are known: linear relations, turns, and what is constant."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from peftport.porting.semi_orthogonal import (
    InputMap,
    Spread,
    covariance,
    fit_input,
    fit_output,
    semi_orthogonal,
    spread,
)

widths = st.integers(1, 9)
seeds = st.integers(0, 10_000)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turned(seed: int, rows: int, columns: int) -> Tensor:
    """A semi-orthogonal matrix: orthonormal along its shorter side."""
    flat = torch.linalg.qr(drawn(seed, max(rows, columns), min(rows, columns)).double())[0]
    return (flat if rows >= columns else flat.mT).float()


def relation(seed: int, rows: int, columns: int) -> Tensor:
    """A matrix of full rank with singular values between 1 and 3."""
    values = torch.linspace(1, 3, min(rows, columns))
    left, right = turned(seed, rows, len(values)), turned(seed + 1, len(values), columns)
    return left * values @ right


def through(found: InputMap, states: Tensor) -> Tensor:
    return (states - found.centre) @ found.matrix.mT + found.mean


def close(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).norm() <= 2e-3 * wanted.norm())


@given(widths, widths, seeds, st.floats(0, 5))
def test_whitened_maps_recover_any_linear_relation_between_widths(origin, receiver, seed, far):
    """Also where a mean stands far off, and in states that were not among the samples."""
    samples = drawn(seed, 200, receiver) + far * drawn(seed + 2, receiver)
    matrix = relation(seed + 3, origin, receiver)
    found = fit_input(samples @ matrix.mT, samples, whitening=1.0)
    new = drawn(seed + 5, 20, receiver)
    assert close(through(found, new), new @ matrix.mT)
    assert close(found.matrix, matrix)


@given(widths, widths, seeds)
def test_whitened_maps_recover_what_an_embedding_in_more_dimensions_took(narrow, more, seed):
    """The receiving host's states then lie in a part of its space."""
    samples, matrix = drawn(seed, 200, narrow), relation(seed + 1, narrow + more, narrow)
    found = fit_input(samples, samples @ matrix.mT, whitening=1.0)
    new = drawn(seed + 3, 20, narrow)
    assert close(through(found, new @ matrix.mT), new)


@given(widths, widths, seeds)
def test_means_that_are_not_related_do_not_bend_a_whitened_map(origin, receiver, seed):
    samples, matrix = drawn(seed, 200, receiver), relation(seed + 1, origin, receiver)
    here = samples + 4 * drawn(seed + 3, receiver)
    there = samples @ matrix.mT + 4 * drawn(seed + 4, origin)
    assert close(fit_input(there, here, whitening=1.0).matrix, matrix)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
@given(st.integers(2, 9), seeds, st.floats(0.1, 10))
def test_a_turn_with_a_scale_is_found_however_far_inputs_are_whitened(whitening, width, seed, size):
    samples, turn = (
        drawn(seed, 200, width) * torch.linspace(1, 3, width),
        turned(seed, width, width),
    )
    found = fit_input(size * samples @ turn.mT, samples, whitening)
    assert close(found.matrix, size * turn)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
@given(widths, widths, seeds)
def test_mapped_states_are_as_large_as_those_of_the_space_they_come_to(
    whitening, origin, receiver, seed
):
    """However unlike the spaces, and whichever is wider."""
    there, here = drawn(seed, 60, origin), 3 * drawn(seed + 1, 60, receiver)
    found = fit_input(there, here, whitening)
    size = float(((here - found.centre) @ found.matrix.mT).norm())
    assert size == pytest.approx(float((there - found.mean).norm()), rel=1e-3)


@given(widths, widths, seeds)
def test_a_change_stays_as_large_beside_the_states_as_it_was(origin, receiver, seed):
    there, here = drawn(seed, 60, origin), 3 * drawn(seed + 1, 60, receiver)
    found = fit_output(there, here)
    assert found.shape == (receiver, origin)
    there, here = there - there.mean(0), here - here.mean(0)
    assert float((there @ found.mT).norm()) == pytest.approx(float(here.norm()), rel=1e-3)


@given(widths, st.integers(0, 5), seeds)
def test_changes_go_to_a_space_that_has_all_of_the_originating_one(width, more, seed):
    there, matrix = drawn(seed, 100, width), turned(seed + 1, width + more, width)
    assert close(fit_output(there, 2 * there @ matrix.mT), 2 * matrix)


@given(st.integers(2, 9), seeds)
def test_signs_of_a_direction_without_variance_are_those_of_the_means(width, seed):
    """As a LayerNorm gives it: constant in one direction but for rounding, and nowhere else."""
    basis = turned(seed, width, width)
    constant, rest = basis[:, :1], basis[:, 1:]
    turn = turned(seed + 2, width, width)

    def rounded(draw: int) -> Tensor:
        noise = 1e-5 * drawn(seed + draw, 300, 1)
        return drawn(seed + 1, 300, width - 1) @ rest.mT + (noise - 0.5) * constant.mT

    here, there = rounded(10), rounded(11) @ turn.mT
    for whitening in (0.0, 1.0):
        moved = fit_input(there, here, whitening).matrix @ constant[:, 0]
        assert torch.cosine_similarity(moved, turn @ constant[:, 0], dim=0) > 0.999
    assert close(fit_output(here, there), turn)


@given(st.integers(2, 7), seeds)
def test_gradients_tell_signs_that_states_do_not(width, seed):
    """States that say next to nothing of each other, and gradients that are turned."""
    turn = turned(seed, width, width)
    there, here = drawn(seed + 1, 300, width), drawn(seed + 2, 300, width)
    slopes = drawn(seed + 3, 2, 300, width)
    found = fit_output(there, here, (slopes, slopes @ turn.mT), weight=100.0)
    assert torch.allclose(found / found.norm(), turn / turn.norm(), atol=0.05)
    without = fit_output(there, here, (slopes, slopes @ turn.mT), weight=0.0)
    assert torch.equal(without, fit_output(there, here))


@given(widths, widths, seeds)
def test_semi_orthogonal_matrices_keep_lengths_and_are_nearest(rows, columns, seed):
    matrix = drawn(seed, rows, columns)
    found = semi_orthogonal(matrix)
    assert torch.allclose(torch.linalg.svdvals(found), torch.ones(min(rows, columns)), atol=1e-5)
    for other in range(3):
        away = turned(seed + other, rows, columns)
        assert (matrix - found).norm() <= (matrix - away).norm() + 1e-5


def test_a_covariance_has_no_unit():
    one, other = drawn(0, 50, 3), drawn(1, 50, 4)
    assert torch.allclose(covariance(one, other), covariance(7 * one, 0.1 * other), atol=1e-6)
    assert float(covariance(one, one).trace()) == pytest.approx(1, abs=1e-6)


@given(widths, seeds, st.floats(0.1, 10))
def test_roots_are_powers_of_a_covariance_whose_shares_add_up_to_one(width, seed, size):
    centred = size * drawn(seed, 100, width)
    found: Spread = spread(centred)
    whole = found.root(1.0)
    wanted = (centred.mT @ centred).double() / float(centred.double().square().sum())
    assert torch.allclose(whole @ whole, wanted, atol=1e-5)
    assert torch.allclose(found.root(-1.0) @ whole, torch.eye(width).double(), atol=1e-4)
    assert torch.allclose(found.root(0.0), torch.eye(width).double(), atol=1e-6)


def test_a_vector_stands_still_only_where_samples_do():
    centred = torch.cat([drawn(0, 50, 2), torch.zeros(50, 1)], 1)
    still = spread(centred).still(torch.tensor([1.0, 2.0, 3.0]))
    assert torch.allclose(still, torch.tensor([0.0, 0.0, 3.0]).double(), atol=1e-6)


@given(widths, widths, seeds)
def test_weights_and_biases_read_the_receiver_as_they_read_the_mapped_states(
    origin, receiver, seed
):
    found = InputMap(
        drawn(seed, origin, receiver), drawn(seed + 1, origin), drawn(seed + 2, receiver)
    )
    weight, bias, states = (
        drawn(seed + 3, 4, origin),
        drawn(seed + 4, 4),
        drawn(seed + 5, 9, receiver),
    )
    wanted = through(found, states) @ weight.mT + bias
    read = states @ found.weight(weight).mT + found.bias(weight, bias)
    assert torch.allclose(read, wanted, atol=1e-3)
    assert torch.allclose(found.linear(weight) @ found.centre, weight @ found.mean, atol=1e-3)


def test_without_a_constant_a_map_of_a_centre_at_nothing_is_its_matrix():
    found = InputMap(drawn(0, 3, 4), drawn(1, 3), torch.zeros(4))
    weight = drawn(2, 5, 3)
    assert torch.equal(found.linear(weight), found.weight(weight))
