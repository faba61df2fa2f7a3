"""Classes are read off label words, or off the head of an encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from peftport.errors import BadInput
from peftport.tasks import label_tokens, load_task
from peftport.training import ClassReadout, class_logits, readout_of
from tiny_runs import encoded, host_in, task_in


def test_a_host_with_label_words_is_read_at_their_tokens_in_class_order(tiny_host, tiny_task):
    for family in ("t5", "gpt2"):
        host, task = host_in(tiny_host(family)), task_in(tiny_task)
        readout = readout_of(host, task)
        assert readout == ClassReadout(2, label_tokens(host.tokenizer, task, host.geometry.kind))
        batch = encoded(host, task, "test").batch(np.arange(3))
        with torch.no_grad():
            every = host.next_token_logits(batch.input_ids, batch.attention_mask)
            found = class_logits(host, batch, {}, readout)
            turned = class_logits(host, batch, {}, ClassReadout(2, readout.label_tokens[::-1]))
        expected = every[:, list(readout.label_tokens)]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(turned, found.flip(1), atol=1e-5, rtol=0)


def test_an_encoder_is_read_by_its_head_and_needs_no_words(tiny_host, tmp_path):
    host = host_in(tiny_host("bert"))
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\nthe film,1\nthe plot,2\nthe cast,3\n")
    task = load_task(str(tmp_path))
    assert task.label_words is None
    readout = readout_of(host, task)
    assert readout == ClassReadout(3, None)
    head = {
        "head.weight": torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(1)),
        "head.bias": torch.tensor([[0.0, 10.0, 20.0]]),
    }
    batch = encoded(host, task, "test").batch(np.array([0]))
    states = host.token_states(batch.input_ids, batch.attention_mask)
    mean = states[0, : int(batch.attention_mask.sum())].mean(0)
    expected = head["head.weight"][0] @ mean + head["head.bias"][0]
    torch.testing.assert_close(class_logits(host, batch, head, readout)[0], expected)


def test_words_that_a_host_cannot_tell_apart_are_refused(tiny_host, tiny_task):
    task = load_task(str(tiny_task), label_words=("great", "great"))
    with pytest.raises(BadInput, match="begin with the same token"):
        readout_of(host_in(tiny_host("t5")), task)
    assert readout_of(host_in(tiny_host("bert")), task).label_tokens is None
