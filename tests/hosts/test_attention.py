"""A prefix is keys and values before the host's: held against attention written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import create_position_bias_mask

from peftport.hosts.attention import Prefix, attention, set_prefix
from techniques.references import batch, our_answer
from tiny_runs import host_in

ROWS, HEADS, QUERIES, SIZE, LENGTH = 4, 4, 6, 5, 3


class Layer(nn.Module):
    """What transformers' attention functions read off the layer that calls them."""

    def __init__(self, causal: bool, groups: int) -> None:
        super().__init__()
        self.is_causal = causal
        self.num_key_value_groups = groups


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def inputs(kv_heads: int, seed: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of QUERIES tokens."""
    return tuple(
        torch.randn(ROWS, heads, QUERIES, SIZE, generator=seed)
        for heads in (HEADS, kv_heads, kv_heads)
    )


def prefix_of(lanes: int, kv_heads: int, seed: torch.Generator) -> Prefix:
    keys, values = torch.randn(2, lanes, kv_heads, LENGTH, SIZE, generator=seed)
    return Prefix(keys, values)


def by_hand(query: Tensor, key: Tensor, value: Tensor, added: Tensor) -> Tensor:
    """Softmax attention; `added` goes on the scores: (rows, queries, heads, size)."""
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = query @ key.mT / SIZE**0.5 + added
    return (scores.softmax(-1) @ value).transpose(1, 2)


def with_prefix(prefix: Prefix, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Each lane's prefix before the keys and values of its own rows, one row at a time."""
    per_lane = ROWS // len(prefix.keys)
    rows = [
        [torch.cat([p[row // per_lane], t[row]], dim=1) for row in range(ROWS)]
        for p, t in ((prefix.keys, key), (prefix.values, value))
    ]
    return torch.stack(rows[0]), torch.stack(rows[1])


def causal() -> Tensor:
    return torch.ones(QUERIES, QUERIES).tril().bool()[None, None].expand(ROWS, 1, -1, -1)


def padding() -> Tensor:
    """The last tokens of every second row are padding."""
    mask = torch.ones(ROWS, 1, QUERIES, QUERIES, dtype=torch.bool)
    mask[::2, ..., -2:] = False
    return mask


# name -> (mask as given, whether the layer is causal, what may be seen)
MASKS = {
    "nothing masked": (None, False, torch.ones(ROWS, 1, QUERIES, QUERIES, dtype=torch.bool)),
    "causal by the layer": (None, True, causal()),
    "causal by the mask": (causal(), True, causal()),
    "padding": (padding(), False, padding()),
    "padding, added": (
        torch.zeros(ROWS, 1, QUERIES, QUERIES).masked_fill(~padding(), torch.finfo().min),
        False,
        padding(),
    ),
    "causal and padding": (causal() & padding(), True, causal() & padding()),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_prefix_stands_before_the_keys_and_everyone_sees_it(mask, kv_heads, lanes):
    given, is_causal, seen = mask
    seed = generator()
    query, key, value = inputs(kv_heads, seed)
    layer, prefix = Layer(is_causal, HEADS // kv_heads), prefix_of(lanes, kv_heads, seed)
    everyone = torch.ones(ROWS, 1, QUERIES, LENGTH, dtype=torch.bool)
    seen = torch.cat([everyone, seen], dim=-1)
    added = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    expected = by_hand(query, *with_prefix(prefix, key, value), added)

    bare, _ = attention(layer, query, key, value, given)
    set_prefix(layer, prefix)
    found, _ = attention(layer, query, key, value, given)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - bare).abs().max() > 0.1

    set_prefix(layer, None)
    again, _ = attention(layer, query, key, value, given)
    assert torch.equal(again, bare)


@pytest.mark.parametrize("window", [2, 4, 7, 20])
@pytest.mark.parametrize("masked", [False, True])
def test_a_prefix_slides_out_of_a_window_s_sight(window, masked):
    """As if its places were those of tokens before the text."""
    seed = generator()
    query, key, value = inputs(2, seed)
    layer, prefix = Layer(True, HEADS // 2), prefix_of(2, 2, seed)
    places = torch.arange(LENGTH + QUERIES)
    near = places[LENGTH:, None] - places < window
    seen = near & (places <= places[LENGTH:, None])
    # A model makes no mask where all of the text is in sight.
    given = seen[None, None, :, LENGTH:].expand(ROWS, -1, -1, -1)
    given = given if masked or window < QUERIES else None
    kept = None if given is None else given.clone()
    set_prefix(layer, prefix)
    found, _ = attention(layer, query, key, value, given, sliding_window=window)
    added = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    expected = by_hand(query, *with_prefix(prefix, key, value), added)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert given is None or torch.equal(given, kept)


@pytest.mark.parametrize("mask", ["nothing masked", "padding"])
def test_without_a_bias_of_its_own_a_prefix_stands_at_no_distance(mask):
    """Cross-attention of T5: the text may have a bias, the prefix has none."""
    given, _, seen = MASKS[mask]
    seed = generator()
    query, key, value = inputs(HEADS, seed)
    bias = torch.randn(1, HEADS, QUERIES, QUERIES, generator=seed)
    layer, prefix = Layer(False, 1), prefix_of(2, HEADS, seed)
    added = bias.masked_fill(~seen, -torch.inf)
    added = torch.cat([torch.zeros(ROWS, HEADS, QUERIES, LENGTH), added], dim=-1)
    set_prefix(layer, prefix)
    found, _ = attention(layer, query, key, value, given, position_bias=bias)
    expected = by_hand(query, *with_prefix(prefix, key, value), added)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prefixed", [False, True])
def test_layers_that_share_bias_and_mask_share_what_is_made_of_them(prefixed, monkeypatch):
    seed = generator()
    query, key, value = inputs(HEADS, seed)
    bias = torch.randn(1, HEADS, QUERIES, QUERIES, generator=seed)
    layers = [Layer(False, 1), Layer(False, 1)]
    made = []

    def counted(*args):
        made.append(create_position_bias_mask(*args))
        return made[-1]

    monkeypatch.setattr("peftport.hosts.attention.create_position_bias_mask", counted)
    for layer in layers:
        set_prefix(layer, prefix_of(2, HEADS, seed) if prefixed else None)
        attention(layer, query, key, value, padding(), position_bias=bias)
    assert len(made) == 2  # each had a mask of its own
    mask = padding()
    for layer in layers:
        attention(layer, query, key, value, mask, position_bias=bias)
    assert len(made) == 3
    set_prefix(layers[0], prefix_of(1, HEADS, generator()))
    attention(layers[0], query, key, value, mask, position_bias=bias)
    set_prefix(layers[0], None)
    bare, _ = attention(layers[0], query, key, value, mask, position_bias=bias)
    fresh, _ = attention(layers[0], query, key, value, mask, position_bias=bias.clone())
    assert torch.equal(bare, fresh)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_in_t5_a_prefix_stands_just_before_the_text(stack, tiny_host):
    """Its bias is that of the distance from every text token to the places before the first."""
    model = host_in(tiny_host("t5")).model
    owner = model.get_submodule(f"{stack}.block.0.layer.0.SelfAttention")
    prefix = Prefix(*torch.zeros(2, 1, 4, LENGTH, 6), bias=owner)
    found = prefix.position_bias(QUERIES)
    assert found is not None
    distance = torch.arange(-LENGTH, 0)[None] - torch.arange(QUERIES)[:, None]
    bucket = owner._relative_position_bucket(
        distance,
        bidirectional=stack == "encoder",
        num_buckets=owner.relative_attention_num_buckets,
        max_distance=owner.relative_attention_max_distance,
    )
    assert torch.equal(found, owner.relative_attention_bias(bucket).permute(2, 0, 1)[None])
    assert found.unique().numel() > 4


def test_a_prefix_is_no_part_of_the_model(tiny_host):
    """It is not saved with the host, and does not count among its parameters."""
    host = host_in(tiny_host("llama"))
    names = set(host.model.state_dict())
    layer = host.model.get_submodule("model.layers.0.self_attn")
    set_prefix(layer, prefix_of(1, 2, generator()))
    try:
        assert set(host.model.state_dict()) == names
    finally:
        set_prefix(layer, None)


def test_hosts_run_with_this_attention_and_transformers_masks(tiny_host):
    host = host_in(tiny_host("llama"))
    assert host.model.config._attn_implementation == "peftport"
    one, other = batch(host.tokenizer), batch(host.tokenizer)
    last = int(one["attention_mask"][0].sum()) - 1
    other["input_ids"][0, last] = 9
    states = [host.model.base_model(**inputs).last_hidden_state for inputs in (one, other)]
    # The text before a token does not depend on it; the token itself does.
    assert torch.equal(states[0][0, :last], states[1][0, :last])
    assert (states[0][0, last] - states[1][0, last]).abs().max() > 0.1
    assert torch.equal(our_answer(host, one)[1:], our_answer(host, other)[1:])
