"""A streamed host computes what the whole one does, with one layer's weights in memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from peftport.hosts import host as host_module
from peftport.hosts import load_host, streaming
from peftport.hosts.streaming import holding, layer_paths, stream_host
from peftport.techniques.embeddings import replaced
from techniques.references import batch, drawn, our_answer

DECODERS = ("llama", "gpt2", "gemma3_text", "qwen3")


@pytest.fixture(autouse=True)
def no_host_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "LOADED_WHOLE", 0)


def empty(host) -> set[str]:
    return {name for name, parameter in host.model.named_parameters() if parameter.is_meta}


@pytest.mark.parametrize("family", DECODERS)
def test_it_gives_the_same_logits_and_lets_go_of_its_weights(family, tiny_host):
    name = str(tiny_host(family))
    whole, streamed = load_host(name), stream_host(name)
    assert streamed.fingerprint == whole.fingerprint
    before = empty(streamed)
    assert before >= {f"{linear.path}.weight" for linear in whole.geometry.linears.values()}
    inputs = batch(whole.tokenizer)
    for _ in range(2):
        found, wanted = (
            host.next_token_logits(inputs["input_ids"], inputs["attention_mask"], (5, 3))
            for host in (streamed, whole)
        )
        assert torch.equal(found, wanted)
        assert empty(streamed) == before


@pytest.mark.parametrize("sides", [("input",), ("output",), ("input", "output")])
@pytest.mark.parametrize("family", DECODERS)
def test_a_module_s_own_embeddings_act_as_on_the_whole_host(family, sides, tiny_host):
    """Those of a host that is tied, too, and more rows than the host has."""
    name = str(tiny_host(family))
    whole, streamed = load_host(name), stream_host(name)
    rows, width = whole.model.get_input_embeddings().weight.shape
    brought = drawn({f"embedding.{side}.weight": (rows + 2, width) for side in sides})
    inputs = batch(whole.tokenizer)
    inputs["input_ids"][0, 0] = rows + 1 if "input" in sides else 0
    found, wanted = (our_answer_under(host, brought, inputs) for host in (streamed, whole))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    inputs["input_ids"][0, 0] = 0
    bare = our_answer(whole, inputs)
    assert torch.allclose(our_answer(streamed, inputs), bare, atol=1e-6)
    assert not torch.allclose(wanted[:, : bare.shape[1]], bare, atol=0.1)


def our_answer_under(host, embeddings, inputs):
    with replaced(host, None, embeddings):
        return our_answer(host, inputs)


@pytest.mark.parametrize("words", [7, 1 << 14])
def test_a_vocabulary_of_another_type_is_converted_in_parts(words, tiny_host, monkeypatch):
    host = load_host(str(tiny_host("llama")))
    ids, mask = batch(host.tokenizer).values()
    head = host.model.get_output_embeddings()
    # In bfloat16 and back again it is the same vocabulary in another type.
    stored = head.weight.detach().to(torch.bfloat16)
    head._parameters["weight"] = torch.nn.Parameter(stored.float(), requires_grad=False)
    wanted = host.next_token_logits(ids, mask)
    head._parameters["weight"] = torch.nn.Parameter(stored, requires_grad=False)
    monkeypatch.setattr(host_module, "WORDS_AT_ONCE", words)
    converted: list[int] = []
    product = functional.linear

    def watched(states, weight, bias=None):
        converted.append(len(weight))
        return product(states, weight, bias)

    monkeypatch.setattr(functional, "linear", watched)
    found = host.next_token_logits(ids, mask)
    torch.testing.assert_close(found, wanted)
    assert (len(stored) in converted) == (words >= len(stored))


def test_a_held_layer_stays_until_it_is_let_go(tiny_host):
    host = stream_host(str(tiny_host("llama")))
    before, path = empty(host), layer_paths(host)["decoder.1"]
    with holding(host.part(path)):
        inputs = batch(host.tokenizer)
        host.next_token_logits(inputs["input_ids"], inputs["attention_mask"], (5, 3))
        assert before - empty(host) == {name for name in before if name.startswith(path)}
    assert empty(host) == before


def test_weights_are_let_go_of_when_a_run_fails(tiny_host):
    host = stream_host(str(tiny_host("llama")))
    before = empty(host)
    handle = host.part(host.geometry.linears["decoder.0.ffn.up"].path).register_forward_hook(
        lambda *_: 1 / 0
    )
    inputs = batch(host.tokenizer)
    with pytest.raises(ZeroDivisionError):
        host.next_token_logits(inputs["input_ids"], inputs["attention_mask"], (5, 3))
    handle.remove()
    assert empty(host) == before


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_other_kinds_are_loaded_whole(family, tiny_host):
    assert not empty(stream_host(str(tiny_host(family))))


@pytest.mark.parametrize("family", ["bert", "t5", "gpt2", "llama"])
def test_each_layer_is_a_module_of_its_own_that_holds_its_linear_layers(family, tiny_host):
    host = load_host(str(tiny_host(family)))
    paths = layer_paths(host)
    assert list(paths) == list(host.geometry.blocks)
    assert len(set(paths.values())) == len(paths)
    for point, linear in host.geometry.linears.items():
        assert linear.path.startswith(f"{paths['.'.join(point.split('.')[:2])]}.")
