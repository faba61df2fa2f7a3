"""A port by maps between hosts of other widths, where the right module is known."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import peftport as pp
from peftport.errors import RunFailed
from peftport.modules import Module, formats
from peftport.porting.layerwise import map_module, read_passes
from peftport.porting.methods import port_method
from peftport.porting.reading import task_of
from peftport.techniques.head import BIAS
from porting.hosts_and_texts import how_of, means_of, request_of, twin
from porting.test_procrustes import answers, missed, module_of
from tiny_runs import host_in, task_in

__all__ = ["twin"]


def mapped(module, origin, receiver, prior=False, **changes):
    request = request_of(module, receiver)
    generator = torch.Generator().manual_seed(0)
    how = replace(how_of(request, prior), **changes)
    return map_module(request, module.tensors, means_of(origin, receiver), how, generator)


def as_module(made, donor: Module, receiver) -> Module:
    head = "words" if BIAS in made.tensors and receiver.geometry.kind != "encoder" else "mean"
    changes = {
        "technique": made.technique,
        "config": made.config.model_dump(mode="json"),
        "geometry": receiver.geometry.record(),
        "head": head,
    }
    return Module(donor.record.model_copy(update=changes), made.tensors)


@pytest.mark.parametrize("case", ["lora", "houlsby", "compacter", "prefix"])
def test_a_module_answers_alike_on_a_host_of_twice_the_width_and_back(
    case, twin, tiny_host, tiny_task
):
    host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    assert (host.geometry.width, wide.geometry.width) == (32, 64)
    task = task_in(tiny_task)
    donor = module_of(case, host, task)
    wanted, bare = answers(host, donor, task), answers(host, None, task)
    assert missed(answers(wide, None, task), bare, wanted) < 1e-4, "a twin answers alike"
    there = as_module(mapped(donor, host, wide), donor, wide)
    assert missed(answers(wide, there, task), wanted, bare) < 0.01
    back = as_module(mapped(there, wide, host), there, host)
    assert missed(answers(host, back, task), wanted, bare) < 0.01


def test_an_encoder_s_head_goes_along(twin, tiny_host, tiny_task):
    host, other = host_in(tiny_host("bert")), host_in(twin("permuted", "bert"))
    task = task_in(tiny_task)
    donor = module_of("lora", host, task)
    made = as_module(mapped(donor, host, other), donor, other)
    assert missed(answers(other, made, task), answers(host, donor, task), 0) < 0.01
    assert not torch.allclose(made.tensors["head.weight"], donor.tensors["head.weight"], atol=0.1)


def test_a_head_goes_along_though_the_last_layer_has_no_partner(twin, tiny_host, tiny_task):
    """As where layers are paired one to one from the first, and the receiving host is deeper."""
    host, other = host_in(tiny_host("bert")), host_in(twin("permuted", "bert"))
    task = task_in(tiny_task)
    donor = module_of("lora", host, task)
    last = list(other.geometry.blocks)[-1]
    usual = mapped(donor, host, other)
    pairs = {**{layer: layer for layer in other.geometry.blocks}, last: None}
    made = mapped(donor, host, other, pairs=pairs)
    for name in ("head.weight", "head.bias"):
        assert torch.equal(made.tensors[name], usual.tensors[name])
    assert not any(tensor.any() for name, tensor in made.tensors.items() if name.startswith(last))


@pytest.mark.parametrize(
    ("method", "what"),
    [
        *((method, "states are") for method in ("ridge", "procrustes", "correlation")),
        *((method, r"weight .*self_attn\.q_proj\.weight is") for method in ("subspace", "prolora")),
    ],
)
def test_a_receiving_host_with_a_weight_that_is_no_number_is_named(
    method, what, tiny_host, tiny_task, tmp_path
):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_host("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "self_attn.q_proj" in name)
    weights[name].view(-1)[3] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    donor = module_of("lora", host_in(tiny_host("llama")), task_in(tiny_task))
    formats.save(donor, tmp_path / "donor")
    texts = str(tiny_task) if "texts" in port_method(method).needs else None
    with pytest.raises(RunFailed, match=f"host {folder}.*: its {what} not finite"):
        pp.port(tmp_path / "donor", folder, method=method, texts=texts, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_texts_of_one_word_each_are_halved_by_their_letters(
    tiny_host, tiny_continuation, tiny_task, tmp_path
):
    """As those of languages are that have no spaces between words."""
    donor = module_of("lora", host_in(tiny_host("t5")), task_in(tiny_task))
    formats.save(donor, tmp_path / "donor")
    words = [f"{one}{other}film" for one in "abcdefg" for other in "hijklmn"]
    (tmp_path / "words.txt").write_text("\n\n".join(words))
    ported = pp.port(
        tmp_path / "donor",
        tiny_continuation("t5"),
        method="procrustes",
        texts=tmp_path / "words.txt",
    )
    assert ported.account.counts()["mapped"] > 0


def test_layers_without_a_partner_change_nothing(twin, tiny_host, tiny_task):
    host, deep = host_in(tiny_host("llama")), host_in(twin("deeper", "llama"))
    donor = module_of("lora", host, task_in(tiny_task))
    pairs = {"decoder.0": "decoder.0", "decoder.1": None, "decoder.2": "decoder.1"}
    made = mapped(donor, host, deep, pairs={**pairs, "decoder.3": None})
    for name, tensor in made.tensors.items():
        assert tensor.any() == (pairs.get(name[:9]) is not None), name


def test_a_prior_is_a_bias_by_which_classes_are_as_frequent_as_before(twin, tiny_host, tiny_task):
    """A twin needs none; a bias that the donor has already is kept by it."""
    host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    task = task_in(tiny_task)
    donor = module_of("lora", host, task)
    plain = mapped(donor, host, wide)
    corrected = mapped(donor, host, wide, prior=True)
    assert BIAS not in plain.tensors
    assert torch.allclose(corrected.tensors[BIAS], torch.zeros(2), atol=0.02)
    assert corrected.details["prior_offsets"] == pytest.approx(
        corrected.tensors[BIAS].tolist(), abs=1e-4
    )
    shifted = Module(
        donor.record.model_copy(update={"head": "words"}),
        donor.tensors | {BIAS: torch.tensor([2.0, -2.0])},
    )
    again = mapped(shifted, host, wide, prior=True)
    assert torch.allclose(again.tensors[BIAS], torch.tensor([2.0, -2.0]), atol=0.05)


def test_a_module_without_label_words_is_told_what_it_goes_without(
    twin, tiny_host, tiny_task, caplog
):
    host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    donor = module_of("lora", host, task_in(tiny_task))
    unnamed = {**donor.record.task, "label_words": None}
    bare = Module(donor.record.model_copy(update={"task": unnamed}), donor.tensors)
    with caplog.at_level(logging.WARNING, logger="peftport"):
        mapped(donor, host, wide, prior=True)
        assert not caplog.records
        made = mapped(bare, host, wide, prior=True)
    (notice,) = caplog.messages
    for said in ("label words", "gradients", "as frequent", "--label-words", "--template"):
        assert said in notice
    assert BIAS not in made.tensors


def test_texts_are_read_by_each_host_s_own_tokenizer_and_start(tiny_host, tiny_task):
    host, other = host_in(tiny_host("t5")), host_in(tiny_host("t5-v1.0"))
    donor = module_of("lora", host, task_in(tiny_task))
    request = request_of(donor, other)
    texts = means_of(host, other)
    task, draw = task_of(donor.record.task), torch.Generator().manual_seed(0)
    origin, receiver = read_passes(request, texts, task, 500, draw)
    assert [len(each) for each in (origin, receiver)] == [2, 2]
    for rows in (*origin, *receiver):
        assert rows.decoder_ids[:, 0].tolist() == [0] * len(rows.decoder_ids)
        assert {len(places) for places in rows.places.values()} <= {500, len(texts.texts)}


def test_two_draws_of_one_seed_make_the_same_tensors(twin, tiny_host, tiny_task):
    host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    donor = module_of("lora", host, task_in(tiny_task))
    one, two = (mapped(donor, host, wide).tensors for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
