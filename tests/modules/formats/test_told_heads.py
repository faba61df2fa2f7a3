"""Heads that a host's own configuration builds otherwise than most of its family."""

from __future__ import annotations

import json
import shutil

import pytest

import peftport
from modules.formats.modules import answer_of, refused, silenced
from modules.formats.test_sequence_heads import PARTS, assert_copied_as_in_peft, lora
from modules.formats.test_with_peft import assert_same, from_peft, stock_answer
from peftport.errors import BadInput
from peftport.modules import load_module
from techniques.references import batch
from tiny_runs import host_in

OTHERWISE = [
    ("deberta", {"pooler_hidden_act": "tanh"}, "first"),
    ("deberta-v2", {"pooler_hidden_act": "relu"}, "first_relu"),
    ("modernbert", {"classifier_pooling": "mean"}, "mean_gelu_norm"),
]
"""Hosts whose configurations build heads otherwise than most of their family, and how they pool."""


def built(folder, into, said):
    """A host again, with more said in its configuration."""
    shutil.copytree(folder, into)
    path = into / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    return into


@pytest.mark.parametrize(("family", "said", "pooling"), OTHERWISE)
def test_a_head_is_built_as_its_host_s_configuration_says(
    family, said, pooling, tiny_host, tiny_continuation, tmp_path
):
    host = host_in(built(tiny_host(family), tmp_path / "host", said))
    model = from_peft(family, host.folder, lora(family), tmp_path / "theirs")
    module = load_module(tmp_path / "theirs")
    assert module.record.head == pooling
    inputs, bare = batch(host.tokenizer), answer_of(silenced(module), host, batch(host.tokenizer))
    theirs = stock_answer(model, family, "SEQ_CLS", inputs)
    assert_same(answer_of(module, host, inputs), theirs, bare)

    there = host_in(built(tiny_continuation(family), tmp_path / "near", said))
    assert_copied_as_in_peft(module, family, there, tmp_path / "copied")


@pytest.mark.parametrize(("family", "said", "pooling"), OTHERWISE)
def test_a_head_is_written_for_no_host_that_builds_it_otherwise(
    family, said, pooling, tiny_host, tmp_path
):
    """Told before anything is done, in both directions."""
    usual, other = tiny_host(family), built(tiny_host(family), tmp_path / "host", said)
    key, value = next(iter(said.items()))
    for here, there in ((usual, other), (other, usual)):
        theirs = tmp_path / f"from-{here.name}"
        from_peft(family, here, lora(family), theirs)
        found = peftport.check(theirs, there, method="copy").to_dict()
        assert "sequence classifiers of" in f"{found['problem']} {found['note']}"
        if there == other:
            assert f"with {key} '{value}'" in f"{found['problem']} {found['note']}"
        with pytest.raises(BadInput, match="--format peftport"):
            peftport.port(theirs, there, out=tmp_path / "out", method="copy", format="peft")
        own = peftport.port(theirs, there, out=tmp_path / theirs.name / "own", format="peftport")
        assert own.module.made.record.head == (pooling if here == other else PARTS[family][1])


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("deberta", {"pooler_hidden_act": "silu"}),
        ("modernbert", {"classifier_activation": "relu"}),
        ("modernbert", {"norm_eps": 1e-12}),
        ("modernbert", {"classifier_bias": True}),
    ],
)
def test_a_head_as_none_here_is_refused_with_what_the_configuration_says(
    family, said, tiny_host, tmp_path
):
    host = built(tiny_host(family), tmp_path / "host", said)
    from_peft(family, host, lora(family), tmp_path / "theirs")
    (key,) = said
    refused(tmp_path / "theirs", f"with {key} .*as none that peftport has.*--allow-partial")
    load_module(tmp_path / "theirs", partial=True)


def test_the_head_of_a_host_is_taken_where_only_the_classes_layer_was_saved(tiny_host, tmp_path):
    """ModernBERT's is in its weights: masked language models have it, too."""
    folder = tiny_host("modernbert")
    host, settings = host_in(folder), lora("modernbert", ["classifier"])
    model = from_peft("modernbert", folder, settings, tmp_path / "theirs")
    module, inputs = load_module(tmp_path / "theirs"), batch(host.tokenizer)
    theirs = stock_answer(model, "modernbert", "SEQ_CLS", inputs)
    bare = answer_of(silenced(module), host, inputs)
    assert_same(answer_of(module, host, inputs), theirs, bare)


def test_maps_go_through_no_head_with_a_norm(tiny_host, tmp_path):
    from_peft("modernbert", tiny_host("modernbert"), lora("modernbert"), tmp_path / "theirs")
    found = peftport.check(tmp_path / "theirs", tiny_host("modernbert"), method="procrustes")
    assert "without a bias, and maps need one" in found.to_dict()["problem"]
