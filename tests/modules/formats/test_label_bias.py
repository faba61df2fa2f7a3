"""A bias of label words, which other libraries do not have, comes back from their folders."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from modules.formats.modules import made, same
from peftport.modules import Module, formats, load_module, read_outline
from peftport.modules.formats import LABEL_BIAS
from tiny_runs import host_in

CASES = [("peft", "lora"), ("peft", "prefix"), ("adapterhub", "houlsby"), ("adapterhub", "lora")]


@pytest.fixture
def biased(tiny_host):
    """A function from a case to a module of it on a decoder, with a bias of its label words."""

    def module(case: str) -> Module:
        plain = made(host_in(tiny_host("llama")), case)
        task = {**plain.record.task, "label_words": ["bad", "good"]}
        record = plain.record.model_copy(update={"head": "words", "task": task})
        bias = {"head.bias": torch.tensor([0.25, -0.5])}
        return replace(plain, record=record, tensors=plain.tensors | bias)

    return module


@pytest.mark.parametrize(("format", "case"), CASES)
def test_it_comes_back_and_the_card_says_what_to_add(format, case, biased, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "peftport")
    module = biased(case)
    formats.save(module, tmp_path / "m", format)
    assert same(load_module(tmp_path / "m"), module)
    assert read_outline(tmp_path / "m")[1]["head.bias"] == (2,)
    assert f"has no bias of label words: it is in {LABEL_BIAS}" in caplog.text
    card = (tmp_path / "m" / "README.md").read_text()
    assert "# then add 0.2500, -0.5000 to the scores of the label words bad, good\n```" in card


def test_without_its_file_the_folder_is_the_other_library_s_alone(biased, tmp_path, caplog):
    formats.save(biased("lora"), tmp_path / "m", "peft")
    (tmp_path / "m" / LABEL_BIAS).unlink()
    assert "head.bias" not in load_module(tmp_path / "m").tensors
    assert "is not used" in caplog.text
