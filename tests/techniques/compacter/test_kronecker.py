"""Sums of Kronecker products are found again, and what is lost is told truly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from peftport.techniques.compacter import RULE, weight
from peftport.techniques.compacter.kronecker import factor
from porting.spaces import drawn

sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
seeds = st.integers(0, 10_000)


def product(rule: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The weight that rule and factors stand for."""
    return sum(torch.kron(each, a @ b) for each, a, b in zip(rule, left, right, strict=True))


def lost(weights: list[Tensor], rule: Tensor, factors: list[tuple[Tensor, Tensor]]) -> float:
    apart = [w - product(rule, *f) for w, f in zip(weights, factors, strict=True)]
    total = sum(float(w.square().sum()) for w in weights)
    return sum(float(a.square().sum()) for a in apart) / total


def drawn_weights(seed: int, n: int, rows: int, columns: int, rank: int) -> tuple[list, Tensor]:
    """Two weights of one rule, the second with its sides the other way around, as down and up."""
    rule = drawn(seed, n, n, n)
    shapes = ((rows, columns), (columns, rows))
    factors = [
        (drawn(seed + 1 + k, n, a, rank), drawn(seed + 3 + k, n, rank, b))
        for k, (a, b) in enumerate(shapes)
    ]
    return [product(rule, *each) for each in factors], rule


@given(sizes, st.integers(1, 2), seeds)
def test_weights_that_are_such_sums_are_factored_without_loss_by_their_rule(size, rank, seed):
    weights, rule = drawn_weights(seed, *size, rank)
    found, factors, share = factor(weights, rule, rank)
    assert share < 1e-6
    for each, (left, right) in zip(weights, factors, strict=True):
        assert torch.allclose(product(found, left, right), each, atol=1e-3 * float(each.norm()))


@given(sizes, seeds)
def test_without_a_bound_on_the_rank_any_rule_leads_to_the_right_one(size, seed):
    """One sweep is then a projection on the space of the true rule."""
    weights, rule = drawn_weights(seed, *size, 4)
    other = drawn(seed + 9, *rule.shape)
    assert factor(weights, other, rank=4)[2] < 1e-4


@given(sizes, st.integers(1, 2), seeds)
def test_what_is_lost_is_what_the_factors_miss(size, rank, seed):
    n, rows, columns = size
    weights = [drawn(seed, n * rows, n * columns), drawn(seed + 1, n * columns, n * rows)]
    rule, factors, share = factor(weights, drawn(seed + 2, n, n, n), rank, sweeps=4)
    assert share == pytest.approx(lost(weights, rule, factors), abs=1e-4)
    assert 0 <= share <= 1 + 1e-6


@given(sizes, seeds)
def test_more_sweeps_and_the_best_of_them_never_lose_more(size, seed):
    n, rows, columns = size
    weights, start = [drawn(seed, n * rows, n * columns)], drawn(seed + 2, n, n, n)
    shares = [factor(weights, start, 1, sweeps)[2] for sweeps in (1, 3, 9)]
    assert shares == sorted(shares, reverse=True)


def test_factors_are_laid_out_as_compacter_reads_them():
    weights, rule = drawn_weights(0, 2, 3, 4, 1)
    found, ((left, right), _), _ = factor(weights, rule, 1)
    assert (left.shape, right.shape) == ((2, 3, 1), (2, 1, 4))
    lanes = {RULE: found[None], "a.left": left[None], "a.right": right[None]}
    assert torch.allclose(weight(lanes, "a")[0], weights[0], atol=1e-4)


def test_factors_have_the_rank_that_is_asked_for_where_blocks_are_narrower():
    """A module with narrower ones could be written, and not be read."""
    weights = [drawn(1, 16, 4)]
    rule = drawn(2, 4, 4, 4)
    _, ((left, right),), share = factor(weights, rule, 3)
    assert (left.shape, right.shape) == ((4, 4, 3), (4, 3, 1))
    assert not left[..., 1:].any()
    assert share == pytest.approx(factor(weights, rule, 1)[2])
