"""Texts are as probable as lm-evaluation-harness finds them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftport.errors import BadInput
from peftport.kind import kind_named
from peftport.kinds.language import text_windows
from peftport.kinds.likelihood import Likelihood
from peftport.tasks import load_task
from peftport.training import readout_of
from peftport.training.evaluate import evaluate_one
from techniques.references import reference_model
from tiny_runs import encoded, host_in
from written_rows import texts, write_splits


@given(st.integers(1, 60), st.integers(1, 20))
@settings(deadline=None, derandomize=True, database=None)
def test_windows_are_the_harness_s(tokens, most):
    utils = pytest.importorskip("lm_eval.utils", reason="no lm-evaluation-harness")
    ids = list(range(1, tokens + 1))
    theirs = [
        utils.make_disjoint_window(window)
        for window in utils.get_rolling_token_windows(ids, 0, most, context_len=1)
    ]
    ours = [
        (whole[: len(whole) - predicted], whole[len(whole) - predicted :])
        for whole, predicted in text_windows([0, *ids], most)
    ]
    assert ours == [(list(before), list(after)) for before, after in theirs]
    assert [token for _, after in ours for token in after] == ids


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "llama"])
def test_figures_are_those_of_the_harness(family, tiny_host, tmp_path):
    """Texts longer than the limit, in windows; bytes of characters that have several, too."""
    instances = pytest.importorskip("lm_eval.api.instance", reason="no lm-evaluation-harness")
    from lm_eval.models.huggingface import HFLM

    host = host_in(tiny_host(family))
    rows = [*texts(), {"text": "the plot … it was très good"}]
    task = load_task(str(write_splits(tmp_path, rows)), kind="language", max_tokens=17)
    read = encoded(host, task, "test")
    found = evaluate_one(host, None, None, {}, read, readout_of(host, task))
    theirs = HFLM(
        pretrained=reference_model(family, tiny_host(family)),
        tokenizer=host.tokenizer,
        max_length=16,
        add_bos_token=False,
        device="cpu",
    )
    told = theirs.loglikelihood_rolling(
        [
            instances.Instance("loglikelihood_rolling", {}, (row["text"],), n)
            for n, row in enumerate(rows)
        ]
    )
    assert -found.scored.nats == pytest.approx(np.array(told), abs=1e-4)
    size = sum(len(row["text"].encode()) for row in rows)
    bits = -sum(told) / size / np.log(2)
    assert found.figures["bits_per_byte"] == pytest.approx(bits, abs=1e-5)
    tokens = sum(
        len(host.tokenizer(row["text"], add_special_tokens=False)["input_ids"]) for row in rows
    )
    assert found.figures["token_loss"] == pytest.approx(-sum(told) / tokens, abs=1e-5)
    assert found.figures["perplexity"] == pytest.approx(np.exp(-sum(told) / tokens), rel=1e-5)
    assert found.figures["n_test"] == len(rows)
    assert len(read) > len(rows)


def test_an_encoder_decoder_reads_the_first_half_and_writes_the_second(tiny_host, tmp_path):
    host = host_in(tiny_host("t5"))
    rows = [{"text": "the film was very good ."}, {"text": "great"}]
    task = load_task(str(write_splits(tmp_path, rows)), kind="language")
    read = encoded(host, task, "test")
    told = [host.tokenizer.decode(p, skip_special_tokens=True) for p in read.prompts(np.arange(2))]
    assert told == ["the film was", ""]
    batch = read.batch(np.arange(2))
    asked = [host.tokenizer.decode(row[row >= 0]) for row in batch.labels]
    assert asked == ["very good .</s>", "great</s>"]
    figures = evaluate_one(host, None, None, {}, read, readout_of(host, task)).figures
    assert np.isfinite(figures["bits_per_byte"])


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_text_without_tokens_is_refused(family, tiny_host, tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": ""}) + "\n")
    task = load_task(str(tmp_path), kind="language")
    with pytest.raises(BadInput, match="gives no token"):
        encoded(host_in(tiny_host(family)), task, "test")


def test_labels_and_a_word_for_each_are_not_asked_for(tiny_host, tiny_task):
    task = load_task(str(tiny_task), kind="language")
    assert (task.classes, task.form) == (0, "texts")
    assert task.templates["decoder"] == "{text}"
    figures = evaluate_one(
        (host := host_in(tiny_host("gpt2"))),
        None,
        None,
        {},
        encoded(host, task, "test"),
        readout_of(host, task),
    ).figures
    assert figures["n_test"] == 48


def test_losses_by_tokens_do_not_compare_where_tokens_differ():
    nats, sizes = np.array([4.0, 6.0]), np.array([8, 16])
    one, other = (Likelihood(nats, np.array(tokens), sizes) for tokens in ([2, 4], [3, 4]))
    metrics = kind_named("language").metrics
    assert metrics["bits_per_byte"].difference(one, other) == (0, 0, 0)
    assert metrics["token_loss"].difference(one, other) is None
    assert metrics["perplexity"].difference(one, other) is None
    assert metrics["token_loss"].difference(one, one) == (0, 0, 0)
