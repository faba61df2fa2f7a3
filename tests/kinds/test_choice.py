"""A choice is scored as lm-evaluation-harness scores multiple choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from families import KINDS
from peftport.errors import BadInput
from peftport.kinds.choice import ABSENT, Choice, Chosen
from peftport.tasks import encode_unlabelled, load_task
from peftport.training import readout_of
from peftport.training.evaluate import evaluate_one
from techniques.references import reference_model
from tiny_runs import encoded, host_in
from written_rows import choices, write_splits


def figures_of(host, task, unlabelled=None):
    return evaluate_one(
        host, None, None, {}, encoded(host, task, "test"), readout_of(host, task), unlabelled
    )


OF_HARNESS = [
    *((family, "{text}") for family in ("gpt2", "llama", "qwen2", "t5-v1.0")),
    # The harness takes space off the end of a prompt and puts it before the answer.
    *((family, "{text} so\n") for family in ("gpt2", "llama", "qwen2")),
]


@pytest.mark.parametrize(("family", "template"), OF_HARNESS)
def test_figures_are_those_of_the_harness(family, template, tiny_host, tmp_path):
    """Answers of several tokens that begin alike, and rows with more answers than others."""
    instances = pytest.importorskip("lm_eval.api.instance", reason="no lm-evaluation-harness")
    from lm_eval.models.huggingface import HFLM

    host, rows = host_in(tiny_host(family)), choices()
    task = load_task(str(write_splits(tmp_path, rows)), template=template)
    assert task.kind == "choice"
    found = figures_of(host, task)
    backend = "seq2seq" if KINDS[family] == "encoder-decoder" else "causal"
    theirs = HFLM(
        pretrained=reference_model(family, tiny_host(family)),
        tokenizer=host.tokenizer,
        backend=backend,
        device="cpu",
    )
    # The harness's delimiter; a new line needs none.
    between = "" if template.endswith("\n") else " "
    asked = [
        (template.replace("{text}", row["text"]), between + answer)
        for row in rows
        for answer in row["choices"]
    ]
    told = theirs.loglikelihood(
        [instances.Instance("loglikelihood", {}, each, n) for n, each in enumerate(asked)]
    )
    likely = iter([likelihood for likelihood, _ in told])
    right, by_length = [], []
    for number, row in enumerate(rows):
        expected = np.array([next(likely) for _ in row["choices"]])
        ours = found.scored.scores[number]
        assert ours[: len(expected)] == pytest.approx(expected, abs=1e-4)
        assert (ours[len(expected) :] == np.float32(ABSENT)).all()
        right.append(expected.argmax() == row["label"])
        sizes = np.array([len(answer) for answer in row["choices"]])
        by_length.append((expected / sizes).argmax() == row["label"])
    assert found.figures["accuracy"] == pytest.approx(np.mean(right))
    assert found.figures["length_accuracy"] == pytest.approx(np.mean(by_length))
    assert found.figures["n_test"] == len(rows)


def test_an_answer_that_a_row_lacks_never_wins():
    scores = np.array([[-30_000.0, -40_000.0, ABSENT], [-1.0, -2.0, -3.0]], np.float32)
    chosen = Chosen(scores, np.array([0, 0]), sizes=np.array([[9000, 1, 1], [1, 1, 1]]))
    assert chosen.predictions.tolist() == [0, 0]
    assert Choice().metrics["length_accuracy"].parts(chosen).tolist() == [1, 1]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_classes_are_answered_by_their_words_and_corrected(family, tiny_host, tiny_task):
    """Words of one token each, unlike: the order of classification, and its correction, which rests
    on the log-likelihoods of unlabelled texts."""
    host = host_in(tiny_host(family))
    task = load_task(str(tiny_task), kind="choice")
    usual = load_task(str(tiny_task), max_tokens=512)
    assert task.classes == 2
    beside = encode_unlabelled(host.tokenizer, task, host.geometry.kind)
    found = figures_of(host, task, beside)
    expected = figures_of(host, usual, encode_unlabelled(host.tokenizer, usual, host.geometry.kind))
    ours, theirs = (each.scored.wide[:, 1] - each.scored.wide[:, 0] for each in (found, expected))
    assert ours == pytest.approx(theirs, abs=1e-4)
    for name in ("accuracy", "corrected_accuracy", "auroc"):
        assert found.figures[name] == pytest.approx(expected.figures[name])


def test_words_may_begin_alike(tiny_host, tiny_task):
    host, words = host_in(tiny_host("llama")), ("not very good", "not very bad")
    with pytest.raises(BadInput, match="begin with the same token"):
        readout_of(host, load_task(str(tiny_task), label_words=words))
    figures = figures_of(host, load_task(str(tiny_task), label_words=words, kind="choice")).figures
    assert 0 <= figures["accuracy"] <= 1


def test_rows_with_answers_of_their_own_are_not_corrected(tiny_host, tmp_path):
    host = host_in(tiny_host("llama"))
    task = load_task(str(write_splits(tmp_path, choices(), train=4)))
    assert task.classes == 0
    assert encode_unlabelled(host.tokenizer, task, "decoder") is None
    assert figures_of(host, task).figures["corrected_accuracy"] is None


def test_a_row_s_right_answer_is_what_is_trained(tiny_host, tmp_path):
    host = host_in(tiny_host("llama"))
    task = load_task(str(write_splits(tmp_path, choices(), train=1)))
    read, rows = encoded(host, task, "train"), choices()
    assert len(read) == len(task.split("train"))
    known = {row["text"]: row["choices"][row["label"]] for row in rows}
    batch = read.batch(np.arange(len(read)))
    for row, text in enumerate(task.split("train").texts):
        wanted = batch.labels[row][batch.labels[row] >= 0]
        assert host.tokenizer.decode(wanted).strip() == known[text]
        assert torch.equal(
            wanted, batch.input_ids[row, read.lengths[row] - len(wanted) :][: len(wanted)]
        )


def test_labels_without_words_are_refused(tiny_host, tmp_path):
    rows = [{"text": f"the film {n}", "label": n % 3} for n in range(9)]
    task = load_task(str(write_splits(tmp_path, rows)), kind="choice")
    with pytest.raises(BadInput, match="Name one for each, in this order, with --label-words"):
        encoded(host_in(tiny_host("llama")), task, "test")
