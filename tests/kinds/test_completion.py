"""Completions are judged as the metrics' own libraries judge them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from peftport.errors import BadInput
from peftport.kinds.completion.judging import Judged, normalised, scorer_named
from peftport.kinds.writing import Writing, write
from peftport.tasks import encode, load_task
from peftport.training import readout_of
from peftport.training.evaluate import evaluate
from tiny_runs import encoded, host_in, start_of
from written_rows import chats, pairs, write_splits

WRITTEN = ("the film was great", "Bad.", "", "a  b c", "the plot")
REFERENCES = ("the film was very great", "bad", "great", "a b  C", "the plot")


def judged(scorer: str | None = None) -> Judged:
    ones = np.ones(len(WRITTEN))
    return Judged(ones, ones.astype(int), ones.astype(int), WRITTEN, REFERENCES, scorer)


def test_chrf_is_sacrebleu_s():
    sacrebleu = pytest.importorskip("sacrebleu", reason="no sacrebleu")
    expected = [
        sacrebleu.sentence_chrf(one, [other]).score
        for one, other in zip(WRITTEN, REFERENCES, strict=True)
    ]
    assert judged().chrf == pytest.approx(expected, abs=1e-6)
    assert judged().chrf[-1] == 100


def test_rouge_l_is_rouge_score_s():
    scorers = pytest.importorskip("rouge_score.rouge_scorer", reason="no rouge-score")
    scorer = scorers.RougeScorer(["rougeL"])
    expected = [
        scorer.score(other, one)["rougeL"].fmeasure
        for one, other in zip(WRITTEN, REFERENCES, strict=True)
    ]
    assert judged().rouge_l == pytest.approx(expected, abs=1e-9)
    assert judged().rouge_l[0] == pytest.approx(8 / 9)


def test_an_exact_match_overlooks_what_no_reader_would_see():
    assert judged().exact.tolist() == [0, 1, 0, 1, 1]
    assert normalised(" The  Film. ") == "the film"
    assert normalised("3.5") == "3.5"


def test_a_function_of_one_s_own_is_a_metric(tmp_path, monkeypatch):
    (tmp_path / "own_scores.py").write_text(
        "import numpy as np\n"
        "def length(written, reference): return np.float32(len(written))\n"
        "def word(written, reference): return 'good'\n"
        "def broken(written, reference): return 1 / 0\n"
        "value = 5\n"
    )
    (tmp_path / "broken_scores.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert judged().own is None
    assert judged("own_scores:length").own.tolist() == [len(text) for text in WRITTEN]
    for place, why in {
        "own_scores:word": "it gave 'good'",
        "own_scores:broken": "it failed for .*ZeroDivisionError",
        "own_scores:value": "value is no function",
        "own_scores:nothing": "has no attribute 'nothing'",
        "own_scores": "Expected module:function",
        "": "Expected module:function",
        "broken_scores:f": "ZeroDivisionError",
        "no_scores:f": "No module named 'no_scores'",
    }.items():
        with pytest.raises(BadInput, match=f"--scorer {place}: .*{why}"):
            _ = judged(place).own
    assert scorer_named("own_scores:length")("abc", "") == 3


def test_a_package_that_lacks_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(BadInput, match=r"sacrebleu: pip install 'peftport\[completion\]'"):
        _ = judged().chrf


@pytest.mark.parametrize("family", ["qwen2", "t5"])
def test_each_lane_s_figures_are_of_what_it_writes(family, tiny_host, tmp_path):
    pytest.importorskip("sacrebleu", reason="no sacrebleu")
    pytest.importorskip("rouge_score", reason="no rouge-score")
    host, task = host_in(tiny_host(family)), load_task(str(write_splits(tmp_path, pairs())))
    read, readout = encoded(host, task, "test"), readout_of(host, task)
    made, config, lanes = start_of("lora", host, [0, 1])
    lanes = {
        name: torch.randn(t.shape, generator=torch.Generator().manual_seed(len(name))) * 0.4
        for name, t in lanes.items()
    }
    found = evaluate(host, made, config, lanes, read, readout)
    longest = int(read.answer_lengths.max())
    how = Writing(longest, (host.tokenizer.eos_token_id,))
    with made.attach(host, config, lanes):
        said = write(host, read.prompts(np.arange(len(read))), 2, how)
    for lane, evaluation in enumerate(found):
        told = host.tokenizer.batch_decode(said[lane], skip_special_tokens=True)
        assert evaluation.scored.written == tuple(text.strip() for text in told)
        assert evaluation.scored.references == tuple(row["completion"] for row in pairs())
        assert evaluation.figures["n_test"] == len(pairs())
        assert evaluation.figures["own"] is None
    assert found[0].figures["token_loss"] != found[1].figures["token_loss"]


def test_a_class_is_written_as_its_word(tiny_host, tiny_task):
    host, task = host_in(tiny_host("qwen2")), load_task(str(tiny_task), kind="completion")
    read = encode(host.tokenizer, task, "test", "decoder")
    labels = task.split("test").labels
    assert read.references == tuple(("terrible", "great")[label] for label in labels)
    assert host.tokenizer.decode(read.prompts(np.array([0]))[0]).endswith(" it was")


def test_an_answer_may_be_as_long_as_the_task_says(tiny_host, tmp_path):
    from peftport.kinds.completion.readout import MOST, writing_of

    host = host_in(tiny_host("qwen2"))
    folder = str(write_splits(tmp_path, chats()))
    for given, most in ((3, 3), (None, None)):
        task = load_task(folder, max_answer=given)
        read = encoded(host, task, "test")
        expected = most or min(MOST, int(read.answer_lengths.max()))
        assert writing_of(host.tokenizer, task, read).most == expected
