"""Layers are paired in order, each at most once, and by likeness where that is asked for."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftport.errors import BadInput
from peftport.porting.layers import linear_cka, order_keeping, pair_layers

DEPTHS = st.integers(1, 9)


@given(st.sampled_from(["proportional", "every"]), DEPTHS, DEPTHS)
def test_pairs_keep_order_serve_once_and_use_all_of_the_smaller_side(
    how: str, origin: int, receiver: int
) -> None:
    pairs = pair_layers(how, {"decoder": origin}, {"decoder": receiver})
    partners = [int(p.split(".")[1]) for p in pairs.values() if p is not None]
    assert list(pairs) == [f"decoder.{i}" for i in range(receiver)]
    assert partners == sorted(set(partners)) and len(partners) == min(origin, receiver)
    assert max(partners) < origin
    if how == "every":
        assert partners[0] == 0 and pairs["decoder.0"] == "decoder.0"
    else:
        assert pairs[f"decoder.{receiver - 1}"] == f"decoder.{origin - 1}"


def test_hosts_of_one_depth_are_paired_layer_by_layer() -> None:
    depth = {"encoder": 3, "decoder": 2}
    for how in ("proportional", "every", "cka"):
        assert all(k == v for k, v in pair_layers(how, depth, depth).items())


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_order_keeping_finds_the_best_of_all_assignments(
    rows: int, columns: int, seed: int
) -> None:
    similarity = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    found = [(i, j) for i, j in enumerate(order_keeping(similarity)) if j is not None]
    size = min(rows, columns)
    best = max(
        sum(float(similarity[i, j]) for i, j in zip(some, others, strict=True))
        for some in itertools.combinations(range(rows), size)
        for others in itertools.combinations(range(columns), size)
    )
    assert len(found) == size
    assert sum(float(similarity[i, j]) for i, j in found) == pytest.approx(best)


def test_of_layers_that_are_alike_the_earlier_one_is_taken() -> None:
    assert order_keeping(torch.tensor([[1.0, 0.2], [1.0, 0.2], [0.2, 1.0], [0.2, 1.0]])) == [
        0,
        None,
        1,
        None,
    ]


def test_cka_is_one_for_turned_states_and_small_for_unrelated_ones() -> None:
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(500, 8, generator=draw)
    turn, _ = torch.linalg.qr(torch.randn(8, 8, generator=draw))
    assert float(linear_cka(states, 3 * states @ turn + 1)) == pytest.approx(1)
    assert float(linear_cka(states, torch.randn(500, 8, generator=draw))) < 0.1


def test_an_unknown_pairing_and_unlike_stacks_are_refused() -> None:
    with pytest.raises(BadInput, match="unknown pairing of layers 'nearest'"):
        pair_layers("nearest", {"decoder": 2}, {"decoder": 2})
    with pytest.raises(BadInput, match="encoder and decoder"):
        pair_layers("every", {"encoder": 1, "decoder": 1}, {"decoder": 2})
