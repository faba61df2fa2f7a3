"""A prefix that begins as words: what the host is under it, and what training keeps of it."""

from __future__ import annotations

import pytest
import torch

from families import ALL_KINDS, FAMILIES
from peftport.errors import BadInput
from peftport.hosts.host import Host
from peftport.modules import HostName, load_module
from peftport.porting import port
from peftport.techniques import technique
from peftport.training.module import initial_module, train_module
from techniques.references import batch, our_answer, reference_model
from tiny_runs import few_rows_of, host_in

prefix = technique("prefix")
WORDS = "the music was lovely and the cast was warm ."
DECODERS = [family for family in FAMILIES if ALL_KINDS[family] == "decoder"]


def start_of(host: Host, **options):
    config = prefix.configure({"length": 4, "initial_text": WORDS, **options})
    return config, initial_module(prefix, config, host, 2, seed=3)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_answers_as_if_it_had_read_the_words(family, tiny_host):
    host = host_in(tiny_host(family))
    config, start = start_of(host)
    inputs = batch(host.tokenizer)
    mask = inputs["attention_mask"]
    words = torch.tensor(host.tokenizer(WORDS)["input_ids"][:4]).expand(len(mask), -1)
    with torch.no_grad():
        read = torch.cat([words, inputs["input_ids"]], dim=1)
        logits = reference_model(family, tiny_host(family))(
            input_ids=read, attention_mask=torch.cat([torch.ones_like(words), mask], dim=1)
        ).logits
    wanted = logits[torch.arange(len(mask)), 4 + mask.sum(1) - 1]
    with prefix.attach(host, config, {name: tensor[None] for name, tensor in start.items()}):
        torch.testing.assert_close(our_answer(host, inputs), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_has_the_shapes_of_a_drawn_one_and_needs_no_seed(family, tiny_host):
    host = host_in(tiny_host(family))
    config, start = start_of(host)
    shapes = prefix.shapes(config, host.geometry)
    assert {n: tuple(start[n].shape) for n in shapes} == shapes
    other = initial_module(prefix, config, host, 2, seed=4)
    assert all(torch.equal(start[name], other[name]) for name in shapes)
    drawn = initial_module(prefix, config.model_copy(update={"initial_text": None}), host, 2, 3)
    assert all(not torch.equal(start[name], drawn[name]) for name in shapes)


def test_encoder_and_decoder_of_one_host_each_read_the_words(tiny_host):
    _, start = start_of(host_in(tiny_host("t5")))
    _, longer = start_of(host_in(tiny_host("t5")), length=6)
    for name in ("decoder.0.self.keys", "encoder.0.self.values"):  # before any token is mixed
        torch.testing.assert_close(longer[name][:4], start[name])
    assert start["decoder.0.cross.keys"].abs().sum() > 0


def test_words_are_read_again_where_they_are_fewer_than_the_prefix_is_long(tiny_host):
    host = host_in(tiny_host("gpt2"))
    _, short = start_of(host, length=6, initial_text=" the film")
    _, twice = start_of(host, length=6, initial_text=" the film" * 3)
    assert len(host.tokenizer(" the film")["input_ids"]) == 2
    assert all(torch.equal(short[name], twice[name]) for name in short)


def test_some_attentions_alone(tiny_host):
    host = host_in(tiny_host("t5"))
    _, start = start_of(host, attentions=("decoder.self",))
    assert {name.split(".", 2)[2] for name in start} == {"self.keys", "self.values"}


def test_words_and_a_network_are_two_starts():
    with pytest.raises(BadInput, match=r"^technique prefix: initial_text and reparametrise"):
        prefix.configure({"initial_text": WORDS, "reparametrise": True})


def test_the_name_of_a_run_tells_of_words_alone_and_is_as_it_was_where_there_are_none():
    config = prefix.configure({"length": 4})
    assert "initial_text" not in config.computed()
    assert prefix.configure(config.computed()) == config
    spoken = prefix.configure({"length": 4, "initial_text": WORDS})
    assert spoken.computed()["initial_text"] == WORDS


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_a_text_without_a_word_is_refused(text):
    with pytest.raises(BadInput, match=r"^technique prefix: initial_text has no word: give some"):
        prefix.configure({"initial_text": text})


def test_a_text_without_a_token_is_refused(tiny_host, monkeypatch):
    host = host_in(tiny_host("llama"))
    monkeypatch.setattr(host, "tokenizer", lambda *_, **__: _Nothing())
    with pytest.raises(BadInput, match="initial_text: 'unheard' has no token on host"):
        start_of(host, initial_text="unheard")


class _Nothing:
    input_ids: tuple[int, ...] = ()


def test_a_prefix_longer_than_the_host_has_positions_is_refused(tiny_host):
    host = host_in(tiny_host("gpt2"))
    with pytest.raises(BadInput, match="positions"):
        start_of(host, length=host.model.config.max_position_embeddings + 1)


def test_training_begins_there_and_the_module_says_so(tiny_host, tiny_task, tmp_path):
    host, task = host_in(tiny_host("llama")), few_rows_of(tiny_task)
    config, start = start_of(host)
    options = config.model_dump(mode="json")
    trained = train_module(host, task, "prefix", options, steps=1, seed=3, learning_rate=1e-3)
    moved = max(float((trained.module.tensors[n] - t).abs().max()) for n, t in start.items())
    assert 0 < moved < 2e-3  # one step of Adam
    trained.module.save(tmp_path / "module")
    assert load_module(tmp_path / "module").config == config


def test_the_control_without_the_host_at_hand_is_refused(tiny_host, tiny_task):
    host, task = host_in(tiny_host("llama")), few_rows_of(tiny_task)
    options = {"length": 4, "initial_text": WORDS}
    module = train_module(host, task, "prefix", options, steps=1, seed=3).module
    name = HostName(name=host.name, fingerprint=host.fingerprint)
    with pytest.raises(BadInput, match="by its initial_text a prefix starts from the receiving"):
        port(module, host.geometry, name, "scratch")
    copied = port(module, host.geometry, name, "copy").module
    assert all(torch.equal(copied.tensors[n], t) for n, t in module.tensors.items())
