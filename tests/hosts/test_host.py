"""A loaded host is frozen, whole, and answers as transformers' own model does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from families import ALL_KINDS, FAMILIES, KINDS, ONE_OF_EACH_KIND
from peftport.errors import BadInput
from peftport.hosts import load_host
from peftport.hosts.fingerprint import fingerprint
from peftport.techniques import technique
from techniques.references import (
    batch,
    drawn,
    our_answer,
    reference_answer,
    reference_model,
    target_logits,
)
from tiny_runs import host_in

DECODERS = [family for family in FAMILIES if KINDS[family] == "decoder"]
POSITIONS = ("bert", "roberta", "gpt2")


def changed(folder: Path, to: Path) -> Path:
    """A copy of a host that a test may spoil."""
    return Path(shutil.copytree(folder, to / "host"))


# Loading


@pytest.mark.parametrize("family", FAMILIES)
def test_a_host_is_frozen_and_in_evaluation(family, tiny_host):
    host = host_in(tiny_host(family))
    assert not any(parameter.requires_grad for parameter in host.model.parameters())
    assert not any(module.training for module in host.model.modules())
    assert host.fingerprint == fingerprint(tiny_host(family))
    assert host.device == torch.device("cpu")
    assert host.tokenizer.padding_side == "right"
    assert host.tokenizer.pad_token_id is not None


@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
def test_a_host_that_lacks_a_tensor_is_refused(family, tiny_host, tmp_path):
    folder = changed(tiny_host(family), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(n for n in sorted(tensors) if ".1." in n and n.endswith("weight"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks 1 weights, '.*\.1\..*weight' among them"):
        load_host(str(folder))


@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
@pytest.mark.parametrize("more", [{"layers": 1}, {"ffn": 16}])
def test_a_configuration_of_other_sizes_than_the_weights_is_refused(
    family, more, tiny_host, tmp_path
):
    folder = changed(tiny_host(family), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    keys = {"layers": ("num_layers", "num_hidden_layers"), "ffn": ("d_ff", "intermediate_size")}
    for size, added in more.items():
        key = next(key for key in keys[size] if key in config)
        config[key] += added
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=f"host {folder}(:| lacks| cannot be loaded)"):
        load_host(str(folder))


def test_pickled_weights_are_not_read(tiny_host, tmp_path):
    folder = changed(tiny_host("bert"), tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="read from safetensors only"):
        load_host(str(folder))


def test_a_truncated_host_is_refused(tiny_host, tmp_path):
    folder = changed(tiny_host("bert"), tmp_path)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(BadInput, match=r"model\.safetensors is not a whole safetensors file"):
        load_host(str(folder))


def test_a_host_without_a_tokenizer_is_refused(tiny_host, tmp_path):
    folder = changed(tiny_host("gpt2"), tmp_path)
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(BadInput, match=r"has no tokenizer: .* holds no tokenizer\.json"):
        load_host(str(folder))


def test_a_tokenizer_that_cannot_be_read_is_refused(tiny_host, tmp_path):
    folder = changed(tiny_host("gpt2"), tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="has no tokenizer that can be read"):
        load_host(str(folder))


def test_an_unknown_model_is_refused_before_any_weight_is_looked_for(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "lama"}')
    with pytest.raises(BadInput, match="no model of type 'lama'"):
        load_host(str(tmp_path))


# Answers


@pytest.mark.parametrize("family", FAMILIES)
def test_a_host_answers_as_transformers_own_model(family, tiny_host):
    """Rows of different lengths, so padded; the reference has transformers' own attention."""
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    assert inputs["attention_mask"].sum(1).unique().numel() > 1
    theirs = reference_answer(reference_model(family, tiny_host(family)), family, inputs)
    assert theirs.std() > 0.1
    torch.testing.assert_close(our_answer(host, inputs), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family, tiny_host):
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    answers = []
    for row in range(len(inputs["input_ids"])):
        tokens = int(inputs["attention_mask"][row].sum())
        alone = {name: tensor[row : row + 1, :tokens] for name, tensor in inputs.items()}
        answers.append(our_answer(host, alone))
    noise = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"], 7)
    padded = our_answer(host, {**inputs, "input_ids": noise})
    torch.testing.assert_close(padded, torch.cat(answers), atol=1e-5, rtol=0)


def test_behind_a_sliding_window_a_host_answers_as_transformers_own_model(tiny_host):
    """Texts of several windows, padded; what was long before matters through the other layers."""
    host = host_in(tiny_host("gemma3_text"))
    window = host.model.config.sliding_window
    ids = torch.randint(4, 100, (3, 5 * window), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(5 * window) < torch.tensor([[5 * window], [3 * window], [window - 1]])
    inputs = {"input_ids": ids.where(mask, 0), "attention_mask": mask.long()}
    model = reference_model("gemma3_text", tiny_host("gemma3_text"))
    theirs = reference_answer(model, "gemma3_text", inputs)
    torch.testing.assert_close(our_answer(host, inputs), theirs, atol=1e-5, rtol=0)
    model.config.sliding_window = 5 * window
    without = reference_answer(model, "gemma3_text", inputs)
    assert (without - theirs).abs().amax(1)[:2].min() > 0.1


def test_the_shapes_are_rows_by_vocabulary_and_rows_by_tokens_by_width(tiny_host):
    t5, bert = host_in(tiny_host("t5")), host_in(tiny_host("bert"))
    inputs = batch(t5.tokenizer)
    found = t5.next_token_logits(**inputs)
    assert found.shape == (len(inputs["input_ids"]), t5.geometry.vocabulary)
    inputs = batch(bert.tokenizer)
    assert bert.token_states(**inputs).shape == (*inputs["input_ids"].shape, 32)


@pytest.mark.parametrize("family", [f for f in FAMILIES if KINDS[f] != "encoder"])
def test_logits_may_be_asked_for_a_few_tokens_only(family, tiny_host):
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    every, few = our_answer(host, inputs), host.next_token_logits(**inputs, vocabulary=[5, 3])
    torch.testing.assert_close(few, every[:, [5, 3]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoders_last_layer_computes_only_the_token_that_is_read(family, tiny_host):
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    rows, tokens = inputs["input_ids"].shape
    seen = []

    def note(layer: int):
        module = host.model.get_submodule(host.geometry.linears[f"decoder.{layer}.ffn.down"].path)
        return module.register_forward_hook(lambda _, given, out: seen.append(given[0].shape[:2]))

    notes = [note(layer) for layer in range(host.geometry.stacks["decoder"])]
    host.next_token_logits(**inputs, vocabulary=[5, 3])
    *below, last = seen
    assert last == (rows, 1)
    assert set(below) == {(rows, tokens)}
    seen.clear()
    host.next_token_logits(**inputs)
    host.next_token_logits(**inputs, vocabulary=(), whole=True)
    assert len(seen) == 2 * host.geometry.stacks["decoder"]
    assert set(seen) == {(rows, tokens)}
    for each in notes:
        each.remove()


# Positions


@pytest.mark.parametrize("family", POSITIONS)
def test_a_shift_moves_the_text_to_later_positions(family, tiny_host, monkeypatch):
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    before = our_answer(host, inputs)
    monkeypatch.setattr(host, "position_shift", 4)
    shifted = our_answer(host, inputs)
    first = {"bert": 4, "gpt2": 4, "roberta": 4 + 2}[family]
    positions = torch.arange(first, first + inputs["input_ids"].shape[1])[None]
    model = reference_model(family, tiny_host(family))
    theirs = reference_answer(model, family, {**inputs, "position_ids": positions})
    torch.testing.assert_close(shifted, theirs, atol=1e-5, rtol=0)
    assert (shifted - before).abs().max() > 0.1


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "t5"])
def test_a_shift_means_nothing_where_positions_are_relative(family, tiny_host, monkeypatch):
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    before = our_answer(host, inputs)
    monkeypatch.setattr(host, "position_shift", 4)
    torch.testing.assert_close(our_answer(host, inputs), before, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", POSITIONS)
def test_a_text_that_passes_the_last_position_is_refused(family, tiny_host):
    host, prefix = host_in(tiny_host(family)), technique("prefix")
    config = prefix.configure({"length": 30})
    lanes = {n: t[None] for n, t in drawn(prefix.shapes(config, host.geometry)).items()}

    def answer(tokens: int) -> torch.Tensor:
        ids = torch.ones(1, tokens, dtype=torch.long)
        return our_answer(host, {"input_ids": ids, "attention_mask": ids})

    answer(128)
    with prefix.attach(host, config, lanes):
        answer(98)
        with pytest.raises(BadInput, match="texts of 99 tokens after a prefix of 30 do not fit"):
            answer(99)
    with pytest.raises(BadInput, match="texts of 129 tokens after a prefix of 0 do not fit"):
        answer(129)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "t5"])
def test_a_host_without_a_last_position_takes_longer_texts(family, tiny_host):
    ids = torch.ones(1, 200, dtype=torch.long)
    found = our_answer(host_in(tiny_host(family)), {"input_ids": ids, "attention_mask": ids})
    assert torch.isfinite(found).all()


# Targets


@pytest.mark.parametrize("family", [f for f in ALL_KINDS if ALL_KINDS[f] != "encoder"])
def test_logits_where_tokens_are_asked_for_are_transformers_own(family, tiny_host):
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    labels = targets_of(host, inputs)
    model = reference_model(family, tiny_host(family))
    with torch.no_grad():
        ours = target_logits(host, **inputs, labels=labels)
        if host.geometry.kind == "encoder-decoder":
            start = torch.zeros(len(labels), 1, dtype=torch.long)
            before = torch.cat([start, labels[:, :-1].clamp(min=0)], dim=1)
            theirs = model(**inputs, decoder_input_ids=before).logits[labels >= 0]
        else:
            theirs = model(**inputs).logits[labels >= 0]
    assert ours.shape == ((labels >= 0).sum(), theirs.shape[-1])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert torch.equal(target_logits(host, **inputs, labels=labels), ours)


def targets_of(host, inputs) -> torch.Tensor:
    """Tokens to be predicted: of each row its last few that are no padding."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    if host.geometry.kind == "encoder-decoder":
        return torch.tensor([[7, 9, 8, 1], [5, 6, 1, -100], [9, 1, -100, -100]])
    following = torch.cat([ids[:, 1:], ids[:, :1]], dim=1)
    place, last = torch.arange(ids.shape[1]), mask.sum(1, keepdim=True) - 1
    return following.where((place < last) & (place >= last - 3), -100)
