"""A donor that is asked on its own host answers as stock peft's model does, embeddings included."""

from __future__ import annotations

import pytest
import torch

from modules.formats.test_saved_by_others import from_stock
from peftport.modules import load_module
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.techniques.embeddings import attached
from peftport.training.teacher import Teacher
from techniques.references import batch, our_answer
from tiny_runs import host_in

SAVED = {
    "rows": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "factors": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "more rows": {"modules_to_save": ["embed_tokens", "lm_head"], "grown": 3},
}


@pytest.mark.parametrize("saved", SAVED)
def test_it_answers_with_its_embeddings(saved, tiny_host, tmp_path):
    model = from_stock(tiny_host("llama"), tmp_path / "theirs", **SAVED[saved])
    host, donor = host_in(tiny_host("llama")), load_module(tmp_path / "theirs")
    inputs = batch(host.tokenizer)
    before, last = our_answer(host, inputs), inputs["attention_mask"].sum(1) - 1
    with Teacher(host, technique("lora"), donor.config, donor.tensors).attached():
        found = our_answer(host, inputs)
    with torch.no_grad():
        theirs = model(**inputs).logits[torch.arange(len(last)), last]
    torch.testing.assert_close(found, theirs, atol=1e-5, rtol=0)
    assert (found[:, : before.shape[1]] - before).abs().max() > 0.03
    assert torch.equal(our_answer(host, inputs), before)


def test_modules_with_embeddings_do_not_act_side_by_side(tiny_host, tmp_path):
    from_stock(tiny_host("llama"), tmp_path / "theirs", **SAVED["rows"])
    host, donor = host_in(tiny_host("llama")), load_module(tmp_path / "theirs")
    two = stack_lanes([donor.tensors] * 2)
    with (
        pytest.raises(ValueError, match="cannot act side by side"),
        attached(host, technique("lora"), donor.config, two),
    ):
        pass
