"""Rows of single tokens on other hosts: still rows, and doing there in stock peft what they do
here."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from modules.formats.modules import PEFT
from modules.formats.test_token_rows import from_stock, tokens_of
from peftport.errors import BadInput
from peftport.hosts.host import load_host
from peftport.modules import formats, load_module
from peftport.porting import port_method
from peftport.porting.embeddings import Carried, embedding
from peftport.porting.estimate import Load
from peftport.porting.means import side
from peftport.porting.tied import as_on_tied
from peftport.proof.prove import prove
from peftport.techniques.embeddings import INPUT, OUTPUT
from porting.hosts_and_texts import twin
from porting.test_embeddings import answer, moved
from porting.test_mapped_embeddings import carried
from techniques.references import batch, our_answer, reference_answer
from tiny_runs import host_in

__all__ = ["twin"]

ROWS, TOKENS = f"{INPUT}.rows", f"{INPUT}.tokens"
SCORED = {f"{OUTPUT}.rows", f"{OUTPUT}.tokens"}


def like(folder, into, tied: bool):
    """A tiny host again, with embeddings that are tied or not."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    rows = model.get_input_embeddings().weight
    model.lm_head.weight = rows if tied else torch.nn.Parameter(rows.detach().flip(1).clone())
    model.config.tie_word_embeddings = tied
    model.save_pretrained(into)
    AutoTokenizer.from_pretrained(folder).save_pretrained(into)
    return into


def proven(ported, there, into) -> None:
    """Hold what stock peft does with a ported module against what it does here."""
    formats.save(ported.module, into, "peft")
    host = load_host(str(there))
    model = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(there), str(into)
    ).eval()
    inputs = batch(host.tokenizer)
    ours, theirs = answer(ported.module, host, inputs), reference_answer(model, "llama", inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (ours - our_answer(host, inputs)).abs().max() > 0.03
    found = prove(into, host.folder, host.geometry, lambda: host)
    assert (found.equal, found.problems) == (True, ())


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.:UserWarning")
@pytest.mark.parametrize("there", [True, False], ids=["to a tied host", "to one that is not"])
@pytest.mark.parametrize("here", [True, False], ids=["from a tied host", "from one that is not"])
def test_a_copy_does_the_same_whether_hosts_tie_their_embeddings_or_not(
    here, there, tiny_host, tmp_path
):
    """Rows of the input alone are in a tied host's scores, and in no other's."""
    own, other = (
        like(tiny_host("llama"), tmp_path / name, tied)
        for name, tied in (("own", here), ("other", there))
    )
    from_stock("llama", own, tmp_path / "theirs")
    ported = moved(load_module(tmp_path / "theirs"), other)
    proven(ported, other, tmp_path / "out")
    tensors = ported.module.tensors
    assert (tensors.keys() >= SCORED) == (here != there)
    if there and not here:  # a row of the host's own, which keeps the scores what they are
        (token,) = tensors[f"{OUTPUT}.tokens"].tolist()
        assert token not in tensors[TOKENS].tolist()
        assert torch.equal(tensors[f"{OUTPUT}.rows"][0], embedding(side(str(other)), OUTPUT)[token])
    if here and not there:
        assert torch.equal(tensors[f"{OUTPUT}.rows"], tensors[ROWS])


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.:UserWarning")
@pytest.mark.parametrize("tied", [True, False])
def test_maps_write_rows_to_a_wider_host(tied, tiny_host, twin, tmp_path):
    own, other = (
        like(folder, tmp_path / name, tied)
        for name, folder in (("own", tiny_host("llama")), ("other", twin("wider", "llama")))
    )
    from_stock("llama", own, tmp_path / "theirs")
    module = load_module(tmp_path / "theirs")
    ported = carried(module, host_in(own), load_host(str(other)), "procrustes", prior=False)
    proven(ported, other, tmp_path / "out")
    tensors = ported.module.tensors
    assert tensors[TOKENS].tolist() == module.tensors[TOKENS].tolist()
    assert tensors[ROWS].shape[1] > module.tensors[ROWS].shape[1]
    told = {e.target: e.action for e in ported.account.entries if e.target in (ROWS, TOKENS)}
    assert told == {ROWS: "mapped", TOKENS: "copied"}


def _lacking(one, other) -> int:
    """A token of one host that the other does not have."""
    texts = {" " + piece.lstrip("\u2581") for piece in other.tokenizer.get_vocab()}
    words = [piece for piece in one.tokenizer.get_vocab() if piece.startswith("\u0120")]
    piece = next(p for p in words if len(p) > 2 and f" {p[1:]}" not in texts)
    return one.tokenizer.convert_tokens_to_ids(piece)


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.:UserWarning")
@pytest.mark.parametrize("method", ["copy", "procrustes"])
def test_another_vocabulary_gets_rows_of_the_tokens_that_it_has(method, tiny_host, tmp_path):
    """From GPT-2's byte-level vocabulary to Llama's pieces."""
    gpt2, llama = host_in(tiny_host("gpt2")), host_in(tiny_host("llama"))
    good = gpt2.tokenizer.convert_tokens_to_ids("\u0120good")
    from_stock("gpt2", tiny_host("gpt2"), tmp_path / "theirs", [_lacking(gpt2, llama), good])
    module = load_module(tmp_path / "theirs")
    if method == "copy":
        ported = moved(module, tiny_host("llama"), allow_partial=True)
    else:
        ported = carried(module, gpt2, llama, method, allow_partial=True, prior=False)
    there = ported.module.tensors[TOKENS].tolist()
    assert [text.strip() for text in llama.tokenizer.batch_decode([[t] for t in there])] == ["good"]
    why = {entry.why for entry in ported.account.entries if entry.action == "dropped"}
    assert "1 of 2 tokens are not in the receiving host's vocabulary" in why
    formats.save(ported.module, tmp_path / "out", "peft")
    stored = load_file(tmp_path / "out" / PEFT)
    assert max(t.shape[0] for name, t in stored.items() if "token_adapter" in name) <= 2
    peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_host("llama")), str(tmp_path / "out")
    )


def test_no_rows_are_written_where_no_token_has_a_partner(tiny_host, tmp_path):
    gpt2, llama = host_in(tiny_host("gpt2")), host_in(tiny_host("llama"))
    from_stock("gpt2", tiny_host("gpt2"), tmp_path / "theirs", [_lacking(gpt2, llama)])
    ported = moved(load_module(tmp_path / "theirs"), tiny_host("llama"), allow_partial=True)
    formats.save(ported.module, tmp_path / "out", "peft")
    assert ported.module.record.embeddings == {}
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert "trainable_token_indices" not in config


def test_an_estimate_counts_rows_and_no_vocabulary(tiny_host, tmp_path):
    host = tiny_host("llama")
    sizes = {}
    for name, tokens in (("two", tokens_of(host)), ("three", [3, 5, 7])):
        from_stock("llama", host, tmp_path / name, tokens)
        module = load_module(tmp_path / name)
        shapes = {key: tuple(tensor.shape) for key, tensor in module.tensors.items()}
        made = port_method("copy")
        request = made.request(module.record, shapes, host_in(host).geometry)
        sizes[name] = made.takes(request, Load(1, 1.0)).disk
    assert sizes["three"] - sizes["two"] == 4 * (32 + 1)


@pytest.mark.parametrize("family", ["roberta", "t5", "t5-v1.0"])
def test_hosts_of_other_kinds_get_rows_too(family, tiny_host, tiny_continuation, tmp_path):
    """Encoders, which score no tokens by their embeddings, and hosts of two stacks."""
    tokens = tokens_of(tiny_host(family))
    from_stock(family, tiny_host(family), tmp_path / "theirs", tokens)
    ported = moved(load_module(tmp_path / "theirs"), tiny_continuation(family))
    assert ported.module.record.embeddings == {ROWS: (2, 32), TOKENS: (2,)}
    formats.save(ported.module, tmp_path / "out", "peft")
    host = load_host(str(tiny_continuation(family)))
    found = prove(tmp_path / "out", host.folder, host.geometry, lambda: host)
    assert (found.equal, found.problems, found.acts) == (True, (), True)


def test_rows_of_every_token_have_no_place_on_a_tied_host():
    rows, tokens = torch.ones(5, 2), torch.arange(5)
    with pytest.raises(BadInput, match="changes the row of every token"):
        as_on_tied(Carried({ROWS: rows, TOKENS: tokens}, ()), torch.zeros(5, 2))
    carried = as_on_tied(Carried({ROWS: rows[:4], TOKENS: tokens[:4]}, ()), torch.zeros(5, 2))
    assert carried.tensors[f"{OUTPUT}.tokens"].tolist() == [4]
