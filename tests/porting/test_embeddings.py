"""Embeddings that a module brings along: carried token by token, and acting as stock peft's do."""

from __future__ import annotations

from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from modules.formats.test_saved_by_others import PEFT, from_stock
from peftport.errors import BadInput
from peftport.modules import HostName, Module, formats, load_module
from peftport.porting import port, port_method
from peftport.porting.answers import donor_scores
from peftport.porting.copy import Copy
from peftport.porting.embeddings import embedding, token_texts
from peftport.porting.map_based import MappedMethod
from peftport.porting.means import Means, side
from peftport.porting.methods import METHODS
from peftport.porting.prior import prior_offsets
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.techniques.embeddings import attached
from porting.embedded import FACTORS as FACTORS_OF_INPUT
from porting.embedded import ROWS, last_answers, loaded, scores_of, trained
from porting.hosts_and_texts import twin
from techniques.references import batch, our_answer
from tiny_runs import few_rows_of, host_in

__all__ = ["twin"]

BOTH = {"modules_to_save": ["embed_tokens", "lm_head"]}
FACTORS = {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}


def moved(module, receiver, **options):
    """A module ported to another host by copy."""
    host = host_in(receiver)
    means = Means(side(module.record.host.name), side(str(receiver)))
    name = HostName(name=str(receiver), fingerprint=host.fingerprint)
    return port(module, host.geometry, name, means=means, **options)


def answer(module, host, inputs):
    lane = stack_lanes([module.tensors])
    with torch.no_grad(), attached(host, technique("lora"), module.config, lane):
        return our_answer(host, inputs)


@pytest.mark.parametrize("options", [BOTH, FACTORS], ids=["rows", "factors"])
def test_embeddings_of_peft_act_here_as_there_and_when_written_again(
    options, tiny_host, tiny_continuation, tmp_path
):
    from_stock(tiny_host("llama"), tmp_path / "theirs", **options)
    ported = moved(load_module(tmp_path / "theirs"), tiny_continuation("llama")).module
    formats.save(ported, tmp_path / "out", "peft")
    host = host_in(tiny_continuation("llama"))
    model = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_continuation("llama")), str(tmp_path / "out")
    ).eval()
    inputs = batch(host.tokenizer)
    before = our_answer(host, inputs)
    ours, last = answer(ported, host, inputs), inputs["attention_mask"].sum(1) - 1
    with torch.no_grad():
        theirs = model(**inputs).logits[torch.arange(len(last)), last]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (theirs - before).abs().max() > 0.03
    assert torch.equal(our_answer(host, inputs), before)  # and the host is as it was


def test_rows_go_to_the_tokens_of_the_same_text(tiny_host, tmp_path):
    """From GPT-2's byte-level vocabulary to Llama's pieces, both of width 32."""
    options = {"target_modules": ["attn.c_attn"], "modules_to_save": ["wte"]}
    from_stock(tiny_host("gpt2"), tmp_path / "theirs", fan_in_fan_out=True, **options)
    module, llama = load_module(tmp_path / "theirs"), tiny_host("llama")
    with pytest.raises(BadInput, match="--allow-partial"):
        moved(module, llama)
    ported = moved(module, llama, allow_partial=True)
    (entry,) = (e for e in ported.account.entries if e.target == "embedding.input.weight")
    kept = int(entry.why.split()[2])
    own = embedding(side(str(llama)), "embedding.input")
    changed = (ported.module.tensors["embedding.input.weight"] != own).any(1)
    assert 0 < kept == int(changed.sum()) < len(own)
    origin, receiver = (host_in(tiny_host(name)).tokenizer for name in ("gpt2", "llama"))
    here = receiver.get_vocab()
    place = next(n for piece, n in here.items() if piece == "\u2581good" or piece == "good")
    text = receiver.convert_ids_to_tokens(place).replace("\u2581", "\u0120")
    row = origin.get_vocab()[text]
    trained = module.tensors["embedding.input.weight"][row]
    assert torch.equal(ported.module.tensors["embedding.input.weight"][place], trained)


@pytest.mark.parametrize("method", [name for name in METHODS if port_method(name).carries])
@pytest.mark.parametrize("wider", [False, True], ids=["of one width", "wider"])
def test_every_method_says_what_becomes_of_embeddings(method, wider, tiny_host, tmp_path):
    """Mapped where the method has a map, copied by a copy alone, and never to another width."""
    from_stock(tiny_host("llama"), tmp_path / "theirs", **BOTH)
    module = load_module(tmp_path / "theirs")
    receiver = host_in(tiny_host("llama")).geometry
    receiver = replace(receiver, width=48) if wider else receiver
    made = port_method(method)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    request = made.request(module.record, shapes, receiver)
    found = {entry.action for entry in made.besides(request)}
    assert found == ({"mapped"} if method != "copy" else {"dropped" if wider else "copied"})


def test_a_method_without_a_map_leaves_embeddings_out_where_that_is_allowed(
    tiny_host, tiny_continuation, tmp_path, monkeypatch
):
    monkeypatch.setattr(Copy, "rows", None)
    from_stock(tiny_host("llama"), tmp_path / "theirs", **BOTH)
    module, there = load_module(tmp_path / "theirs"), tiny_continuation("llama")
    with pytest.raises(BadInput, match=r"copy has no map for embeddings.*--allow-partial"):
        moved(module, there)
    assert moved(module, there, allow_partial=True).account.counts()["dropped"] == 2


def test_without_the_donor_s_host_embeddings_are_left_out_where_that_is_allowed(
    tiny_host, tiny_continuation, tmp_path, call
):
    """A copy takes nothing else of it; what the files say of the host is enough to read them."""
    from_stock(tiny_host("llama"), tmp_path / "theirs", **BOTH)
    module = load_module(tmp_path / "theirs")
    gone = module.record.host.model_copy(update={"name": str(tmp_path / "gone")})
    Module(module.record.model_copy(update={"host": gone}), module.tensors).save(tmp_path / "m")
    asked = ("port", tmp_path / "m", "--to", tiny_continuation("llama"), "--method", "copy")
    code, _, error = call(*asked, "--out", tmp_path / "out")
    assert code == 2
    assert "the module's own host is needed" in error
    code, text, error = call(*asked, "--out", tmp_path / "out", "--allow-partial", "--no-verify")
    assert code == 0, error
    assert "the module's embeddings are left out: the module's own host is needed" in error
    assert "8 copied, 2 dropped" in text
    assert not load_module(tmp_path / "out").record.embeddings


def test_what_cannot_be_carried_is_counted(tiny_host, tiny_continuation, tmp_path):
    from_stock(tiny_host("llama"), tmp_path / "theirs", modules_to_save=["norm"])
    module = load_module(tmp_path / "theirs", partial=True)
    with pytest.raises(
        BadInput, match=r"only 8 of the module.s 13 tensors .*norm.weight: peftport cannot"
    ):
        moved(module, tiny_continuation("llama"))
    ported = moved(module, tiny_continuation("llama"), allow_partial=True)
    assert ported.account.counts()["dropped"] == 5
    assert not ported.module.record.left_out


def test_a_module_with_embeddings_is_ported_tested_and_trained_on(
    tiny_host, tiny_continuation, tiny_task, tmp_path, call
):
    from_stock(tiny_host("llama"), tmp_path / "theirs", **BOTH)
    receiver, words = tiny_continuation("llama"), ("--label-words", "bad,good")
    asked = ("port", tmp_path / "theirs", "--to", receiver, "--out", tmp_path / "out", *words)
    code, _, error = call(*asked, "--task", tiny_task, "--steps", 2)
    assert code == 0, error
    written = load_module(tmp_path / "out")
    assert set(written.record.embeddings) == {"embedding.input.weight", "embedding.output.weight"}
    code, text, error = call(
        "test", tmp_path / "out", "--host", receiver, "--task", tiny_task, *words
    )
    assert (code, "accuracy" in text) == (0, True), error


@pytest.mark.parametrize(
    ("shape", "why"),
    [((224, 64), "embeddings are 32 wide"), ((7,), "expected tokens, widths")],
)
def test_embeddings_that_no_host_of_the_module_has_are_refused_by_name(
    shape, why, tiny_host, tiny_continuation, tmp_path
):
    theirs = tmp_path / "theirs"
    from_stock(tiny_host("llama"), theirs, modules_to_save=["embed_tokens"])
    tensors = load_file(theirs / PEFT)
    (name,) = (name for name in tensors if "embed_tokens" in name)
    save_file(tensors | {name: torch.ones(shape)}, theirs / PEFT)
    with pytest.raises(BadInput, match=f"'embedding.input.weight' has shape .*{why}"):
        moved(load_module(theirs), tiny_continuation("llama"))


@pytest.fixture
def taught(tiny_host, tiny_task, tmp_path):
    """A function that trains embeddings of stock peft on a few texts: the model, and the module
    that is read from its folder."""

    def of(options):
        task = few_rows_of(tiny_task)
        model = trained(tiny_host("llama"), task, tmp_path / "theirs", **options)
        return model, loaded(tmp_path / "theirs", task), task

    return of


EMBEDDINGS = pytest.mark.parametrize("options", [ROWS, FACTORS_OF_INPUT], ids=["rows", "factors"])


@EMBEDDINGS
def test_what_a_donor_answers_is_what_stock_peft_does_with_its_embeddings(options, taught):
    model, donor, task = taught(options)
    host = host_in(donor.record.host.name)
    means = Means(*[side(host.name)] * 2, tuple(task.split("train").texts))
    request = port_method("ridge").request(donor.record, {}, host.geometry)
    theirs = last_answers(model, host, task)
    ours = donor_scores(host, request, donor.tensors, task, means.texts)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    bare = last_answers(host.model, host, task)
    assert set(bare.argmax(1).tolist()) != set(theirs.argmax(1).tolist())


@EMBEDDINGS
@pytest.mark.parametrize("receiver", ["gpt2", "t5"])
@pytest.mark.parametrize("method", ["distill", "ridge"])
def test_what_is_in_the_embeddings_alone_is_taught(method, receiver, options, taught, tiny_host):
    _, donor, task = taught(options)
    assert not any(t.any() for n, t in donor.tensors.items() if n.endswith("q.lora_B"))
    host, other = host_in(donor.record.host.name), host_in(tiny_host(receiver))
    settings = {"distill": {"steps": 60, "learning_rate": 0.02}, "ridge": {}}[method]
    means = Means(side(host.name), side(other.name), tuple(task.split("train").texts))
    name = HostName(name=other.name, fingerprint=other.fingerprint)
    made = port(donor, other.geometry, name, method, options=settings, means=means, seed=1)
    assert not made.module.record.embeddings
    wanted, bare, found = (
        scores_of(*each, task).argmax(1)
        for each in ((host, donor), (other, None), (other, made.module))
    )
    assert (bare == wanted).float().mean() < 0.8
    assert (found == wanted).float().mean() > 0.9


@EMBEDDINGS
@pytest.mark.parametrize("how", ["kin", "wider", "without"])
def test_a_map_corrects_by_what_both_hosts_answer_with_the_embeddings(
    how, options, taught, tiny_continuation, twin, monkeypatch
):
    """Where none are carried, what they say of the classes is made up for."""
    if how == "without":
        monkeypatch.setattr(MappedMethod, "rows", None)
    _, donor, task = taught(options)
    folder = tiny_continuation("llama") if how == "kin" else twin("wider", "llama")
    host, other = host_in(donor.record.host.name), host_in(folder)
    means = Means(side(host.name), side(other.name), tuple(task.split("train").texts))
    name = HostName(name=other.name, fingerprint=other.fingerprint)
    made = port(donor, other.geometry, name, "procrustes", means=means, allow_partial=True).module
    assert bool(made.record.embeddings) == (how != "without")
    bias = made.tensors.pop("head.bias")
    theirs, ours = (scores_of(*each, task) for each in ((host, donor), (other, made)))
    torch.testing.assert_close(bias, prior_offsets(theirs, ours), atol=1e-3, rtol=0)
    assert (bias.abs().max() > 0.5) == (how == "without")


def test_modules_with_embeddings_are_assessed_with_them(
    tiny_host, tiny_continuation, tiny_task, tmp_path, call
):
    from_stock(tiny_host("llama"), tmp_path / "theirs", **BOTH)
    asked = ("--host", tiny_continuation("llama"), "--task", tiny_task, "--methods", "copy")
    more = ("--label-words", "terrible,great", "--native-steps", 1, "--budgets", "0")
    code, text, error = call("assess", tmp_path / "theirs", *asked, *more, "--seeds", 1)
    assert code == 0, error
    assert "the module brings trained embeddings" in error
    assert "copy" in text


class Vocabulary:
    """As much of a tokenizer as its pieces."""

    all_special_ids = (0,)

    def __init__(self, *pieces: str) -> None:
        self._pieces = pieces

    def get_vocab(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(("<s>", *self._pieces))}


@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        (
            ("\u2581film", "\u2581a", "film", "##", "\u0120", "\uac00"),
            " film| a|film|##|\u0120|\uac00",
        ),
        (
            ("\u0120film", "\u0120a", "film", "##", "\u00e9"),
            " film| a|film|##|\\xe9",
        ),
        (("film", "##film", "##s", "a", "\u2581", "\u0120"), " film|film|s| a| \u2581| \u0120"),
        (("film", " film"), "film| film"),
    ],
)
def test_a_vocabulary_is_read_by_the_mark_that_most_of_its_words_have(pieces, texts):
    """Those of large models have pieces that look like each other's marks."""
    found = token_texts(Vocabulary(*pieces))
    assert "|".join(found[number] for number in sorted(found) if number) == texts
    assert found[0] == "<s>"
