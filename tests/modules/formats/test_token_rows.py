"""Rows that peft trains for single tokens: read as embeddings, and acting as they do there."""

from __future__ import annotations

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from modules.formats.modules import PEFT, change, read_apart, refused, same
from modules.formats.test_saved_by_others import save_quietly
from peftport.errors import BadInput
from peftport.hosts.fingerprint import read_header
from peftport.modules import Module, formats, load_module, read_outline
from peftport.porting.embeddings import embedding
from peftport.porting.means import side
from peftport.techniques.embeddings import embeddings_among
from porting.test_embeddings import answer, moved
from techniques.references import batch, our_answer, reference_answer
from tiny_hosts import drawn_like
from tiny_runs import host_in

INPUT, OUTPUT = "embedding.input", "embedding.output"
ROWS = "model.embed_tokens.token_adapter.trainable_tokens_delta"
PLACES = {"gpt2": ["c_attn"], "llama": ["q_proj"], "qwen2": ["q_proj"]}
OTHERS = {
    "roberta": (AutoModel, None, ["query"]),
    "t5": (AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM", ["q"]),
    "t5-v1.0": (AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM", ["q"]),
}


def tokens_of(folder) -> list[int]:
    """Two tokens of the texts that answers are compared on."""
    ids = batch(host_in(folder).tokenizer)["input_ids"]
    return [int(ids[0, 1]), int(ids[1, 2])]


def from_stock(family, folder, into, tokens=None, grown=0, **options):
    """Save a module of peft's with trained rows; the model."""
    made_of, task, places = OTHERS.get(family) or (
        AutoModelForCausalLM,
        "CAUSAL_LM",
        PLACES[family],
    )
    model = made_of.from_pretrained(folder)
    if grown:
        model.resize_token_embeddings(model.config.vocab_size + grown, mean_resizing=False)
    config = peft.LoraConfig(
        task_type=task,
        r=4,
        fan_in_fan_out=family == "gpt2",
        trainable_token_indices=tokens or tokens_of(folder),
        **{"target_modules": places, **options},
    )
    torch.manual_seed(0)  # peft draws the first factors
    made = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "lora_" in name or "trainable_tokens" in name:
                value.add_(drawn_like(value, name))
    save_quietly(made, into)
    return made.eval()


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.:UserWarning")
@pytest.mark.parametrize("family", PLACES)
def test_they_act_here_as_there_and_on_another_host_when_written_again(
    family, tiny_host, tiny_continuation, tmp_path
):
    """As rows; where a host is tied, peft has them in its scores, too."""
    model = from_stock(family, tiny_host(family), tmp_path / "theirs")
    module = load_module(tmp_path / "theirs")
    assert set(module.record.embeddings) == {f"{INPUT}.rows", f"{INPUT}.tokens"}
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    theirs, ours = reference_answer(model, family, inputs), answer(module, host, inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (theirs - our_answer(host, inputs)).abs().max() > 0.03
    there = tiny_continuation(family)
    ported = moved(module, there).module
    formats.save(ported, tmp_path / "out", "peft")
    stored = {name: tensor.shape for name, tensor in load_file(tmp_path / "out" / PEFT).items()}
    assert stored == {
        name: tensor.shape for name, tensor in load_file(tmp_path / "theirs" / PEFT).items()
    }
    again = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(there), str(tmp_path / "out")
    ).eval()
    ours = answer(ported, host_in(there), inputs)
    theirs = reference_answer(again, family, inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_row_goes_to_the_token_of_the_same_text_and_no_other_is_touched(
    tiny_host, tiny_continuation, tmp_path
):
    tokens = tokens_of(tiny_host("llama"))
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs")
    ported = moved(load_module(tmp_path / "theirs"), tiny_continuation("llama"))
    made = ported.module.tensors
    stored = load_file(tmp_path / "theirs" / PEFT)[f"base_model.model.{ROWS}"]
    assert torch.equal(made[f"{INPUT}.rows"], stored)
    assert made[f"{INPUT}.tokens"].tolist() == tokens
    assert any("rows of 2 of 2 tokens" in entry.why for entry in ported.account.entries)


def test_both_embeddings_can_be_named_with_tokens_of_their_own(tiny_host, tmp_path):
    host = tiny_host("llama")
    from_stock("llama", host, tmp_path / "theirs", {"embed_tokens": [3, 5], "lm_head": [7]})
    module = load_module(tmp_path / "theirs")
    for name, tokens in ((INPUT, [3, 5]), (OUTPUT, [7])):
        assert module.tensors[f"{name}.tokens"].tolist() == tokens
    record, shapes = read_outline(tmp_path / "theirs")
    assert record.embeddings == module.record.embeddings
    assert shapes == {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    formats.save(module, tmp_path / "again", "peft")
    assert same(load_module(tmp_path / "again"), module)


def test_rows_of_tokens_that_the_host_does_not_have_are_counted(tiny_host, tmp_path):
    """Which nobody can say the texts of, after the vocabulary grew."""
    host = tiny_host("llama")
    size = len(embedding(side(str(host)), INPUT))
    from_stock("llama", host, tmp_path / "theirs", [3, size + 1], grown=5)
    refused(tmp_path / "theirs", "trainable_tokens_delta'.* --allow-partial")
    record = load_module(tmp_path / "theirs", partial=True).record
    assert record.left_out == {ROWS: (1, 32)}
    assert record.embeddings == {f"{INPUT}.rows": (1, 32), f"{INPUT}.tokens": (1,)}


def test_they_are_read_without_the_host_s_weights(tiny_host, tmp_path):
    bare, theirs = tmp_path / "bare", tmp_path / "theirs"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_bytes((tiny_host("llama") / name).read_bytes())
    from_stock("llama", tiny_host("llama"), theirs)
    change(theirs, base_model_name_or_path=str(bare))
    assert load_module(theirs).record.embeddings[f"{INPUT}.rows"] == (2, 32)


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.:UserWarning")
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_rows_beside_factors_of_the_scores_act_as_in_peft(
    family, tiny_host, tiny_continuation, tmp_path
):
    """On a tied host factors change what the rows gave."""
    places = [*PLACES[family], "lm_head"]
    model = from_stock(family, tiny_host(family), tmp_path / "theirs", target_modules=places)
    module, host = load_module(tmp_path / "theirs"), host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    torch.testing.assert_close(
        answer(module, host, inputs), reference_answer(model, family, inputs), atol=1e-5, rtol=1e-5
    )
    there = tiny_continuation(family)
    ported = moved(module, there).module
    assert ported.tensors.keys() == module.tensors.keys()
    formats.save(ported, tmp_path / "out", "peft")
    again = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(there), str(tmp_path / "out")
    ).eval()
    torch.testing.assert_close(
        answer(ported, host_in(there), inputs),
        reference_answer(again, family, inputs),
        atol=1e-5,
        rtol=1e-5,
    )


def respelt(folder, rename):
    """Have the tensors of a folder under other names; None leaves one out."""
    named = {rename(name): tensor for name, tensor in read_apart(folder / PEFT).items()}
    save_file({name: t.clone() for name, t in named.items() if name}, folder / PEFT)


def test_rows_under_the_name_of_an_adapter_are_read(tiny_host, tmp_path):
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs")
    respelt(tmp_path / "theirs", lambda name: name.replace("_delta", "_delta.mine"))
    assert load_module(tmp_path / "theirs").record.embeddings[f"{INPUT}.rows"] == (2, 32)


def test_rows_that_a_tied_host_has_twice_are_read_once(tiny_host, tmp_path):
    """peft saves them so where a vocabulary grew."""
    host = tiny_host("qwen2")
    from_stock("qwen2", host, tmp_path / "theirs", tokens_of(host), grown=3)
    names = [name for name in load_file(tmp_path / "theirs" / PEFT) if "tokens_delta" in name]
    assert len(names) == 2
    assert set(load_module(tmp_path / "theirs").record.embeddings) == {
        f"{INPUT}.rows",
        f"{INPUT}.tokens",
    }
    path = tmp_path / "theirs" / PEFT
    scored = next(name for name in names if "lm_head" in name)
    save_file({n: t + 1.0 if n == scored else t for n, t in read_apart(path).items()}, path)
    refused(tmp_path / "theirs", "does not say which tokens it is of, and its rows are not those")


def test_rows_that_the_file_lacks_are_missed(tiny_host, tmp_path):
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs")
    respelt(tmp_path / "theirs", lambda name: None if "tokens_delta" in name else name)
    refused(tmp_path / "theirs", "lacks the rows that `trainable_token_indices` of .* names")


def test_the_own_format_keeps_them_in_any_type(tiny_host, tmp_path):
    """Numbers of tokens are no floats, which would round them."""
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs", [219, 223])
    module = load_module(tmp_path / "theirs")
    record = module.record.model_copy(update={"dtype": "bfloat16"})
    Module(record, module.tensors).save(tmp_path / "own")
    header, _ = read_header(tmp_path / "own" / "module.safetensors")
    types = {header[f"{INPUT}.{each}"]["dtype"] for each in ("rows", "tokens")}
    assert types == {"BF16", "I64"}
    again = load_module(tmp_path / "own")
    assert again.tensors[f"{INPUT}.tokens"].tolist() == [219, 223]
    formats.save(again, tmp_path / "again", "peft")
    assert load_module(tmp_path / "again").record.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        (torch.tensor([3, 3]), "expected different tokens of the host's"),
        (torch.tensor([3, -1]), "expected different tokens of the host's"),
        (torch.tensor([3, 1 << 40]), "expected different tokens of the host's"),
        (torch.tensor([3.0, 5.0]), "is of type F32, expected numbers of tokens, I64"),
        (torch.tensor([[3, 5]]), r"has shape \(1, 2\), expected the numbers of tokens"),
        (torch.tensor([3]), "are not of as many tokens"),
    ],
)
def test_numbers_that_are_no_tokens_of_the_host_are_refused(tokens, why, tiny_host, tmp_path):
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs")
    module = load_module(tmp_path / "theirs")
    tensors = module.tensors | {f"{INPUT}.tokens": tokens}
    shapes = {name: tuple(tensor.shape) for name, tensor in embeddings_among(tensors).items()}
    record = module.record.model_copy(update={"embeddings": shapes})
    Module(record, tensors).save(tmp_path / "own")
    refused(tmp_path / "own", why)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (None, "expected the numbers of the tokens"),
        ({"lm_head": [3, 5]}, "expected the numbers of the tokens"),
        ([3, -5], "expected the numbers of the tokens"),
        ([3, 3], "a token stands in it twice"),
        ([3], r"shape \(2, 32\), expected \(1, 32\): a row for each"),
    ],
)
def test_rows_that_the_configuration_does_not_tell_of_are_refused(told, why, tiny_host, tmp_path):
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs")
    change(tmp_path / "theirs", trainable_token_indices=told)
    refused(tmp_path / "theirs", why)


def test_rows_of_another_width_are_refused(tiny_host, tiny_continuation, tmp_path):
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs")
    path = tmp_path / "theirs" / PEFT
    tensors = {n: t[:, :16].clone() if "trainable" in n else t for n, t in read_apart(path).items()}
    save_file(tensors, path)
    with pytest.raises(BadInput, match=r"shape \(2, 16\), and its host's embeddings are 32 wide"):
        moved(load_module(tmp_path / "theirs"), tiny_continuation("llama"))
