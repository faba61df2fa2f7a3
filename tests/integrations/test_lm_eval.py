"""A host with a module is a model of lm-evaluation-harness, with the figures that the harness's own
model has on the same weights in stock peft."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

import peftport as pp
from families import KINDS
from peftport.integrations.lm_eval import as_model, evaluated
from techniques.references import reference_model
from tiny_runs import host_in
from written_rows import choices, texts

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

CLOSE = {"abs": 1e-4, "rel": 1e-5}
CONTEXTS = (
    ("the film was good .", " it was great"),
    ("the film was good ", "it was great"),
    ("", "the plot was bad"),
    ("the plot\n", "bad"),
    ("the cast was warm and " * 40, "great"),
)
TEXTS = ("the film", "the plot was bad . " * 30, "great")


@pytest.fixture
def own_tasks(tmp_path) -> Path:
    """A folder with two task files and their data."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, rows in (("choices", choices()), ("texts", texts())):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        kind = "multiple_choice" if name == "choices" else "loglikelihood_rolling"
        metrics = ("acc", "acc_norm") if name == "choices" else ("bits_per_byte", "word_perplexity")
        content = {
            "task": f"tiny_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(folder / f"{name}.jsonl")},
                "cache_dir": str(tmp_path / "cache"),
            },
            "output_type": kind,
            "test_split": "test",
            "doc_to_text": "{{text}}" if name == "choices" else "",
            "doc_to_target": "{{label}}" if name == "choices" else "{{text}}",
            **({"doc_to_choice": "{{choices}}"} if name == "choices" else {}),
            "metric_list": [{"metric": metric} for metric in metrics],
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def theirs(family: str, folder: Path, model=None, **options):
    """The harness's own model of a host; it ties the weights of every T5, so one that has them."""
    from lm_eval.models.huggingface import HFLM

    host = host_in(folder)
    backend = "seq2seq" if KINDS[family] == "encoder-decoder" else "causal"
    return HFLM(
        pretrained=model or reference_model(family, folder),
        tokenizer=host.tokenizer,
        backend=backend,
        batch_size=2,
        device="cpu",
        **options,
    )


def requests(kind: str, arguments: list[tuple]):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, number) for number, args in enumerate(arguments)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gemma3_text", "t5-v1.0"])
def test_log_likelihoods_are_those_of_the_harness_s_own_model(family, tiny_host):
    """Also where space ends a context, nothing stands before a text, or it is too long."""
    ours = as_model(host_in(tiny_host(family)))
    reference = theirs(family, tiny_host(family))
    assert ours.max_length == reference.max_length
    wanted = requests("loglikelihood", list(CONTEXTS))
    found, expected = ours.loglikelihood(wanted), reference.loglikelihood(wanted)
    assert [one for one, _ in found] == pytest.approx([one for one, _ in expected], **CLOSE)
    assert [best for _, best in found] == [best for _, best in expected]
    rolling = requests("loglikelihood_rolling", [(text,) for text in TEXTS])
    assert ours.loglikelihood_rolling(rolling) == pytest.approx(
        reference.loglikelihood_rolling(rolling), **CLOSE
    )


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "t5-v1.0"])
def test_answers_are_those_of_the_harness_s_own_model(family, tiny_host):
    ours = as_model(host_in(tiny_host(family)))
    reference = theirs(family, tiny_host(family))
    (whole,) = ours.generate_until(requests("generate_until", [("the film", {"max_gen_toks": 12})]))
    stop = whole.strip().split()[1] if len(whole.split()) > 1 else "zz"
    how = {"until": [stop], "max_gen_toks": 12, "do_sample": False}
    contexts = ["the film", "the plot was bad and", "the cast " * 90, "it"]
    wanted = requests("generate_until", [(context, how) for context in contexts])
    found, expected = ours.generate_until(wanted), reference.generate_until(wanted)
    if KINDS[family] == "decoder":
        assert found == expected
    # Of an encoder-decoder the harness lets the answer be longer by as much as its prompt is long.
    assert [told[: len(one)] for one, told in zip(found, expected, strict=True)] == found
    assert any(found)


@pytest.mark.parametrize("family", ["qwen2", "t5-v1.0"])
def test_a_module_has_the_figures_that_it_has_in_stock_peft(
    family, tiny_host, tiny_task, own_tasks, tmp_path
):
    import lm_eval
    import peft
    from lm_eval.tasks import TaskManager

    folder = tiny_host(family)
    made = pp.train(folder, str(tiny_task), "lora", steps=6, learning_rate=0.1, batch_size=4)
    made.module.save(tmp_path / "module", format="peft")
    found = pp.lm_eval(made.module, folder, "tiny_choices,tiny_texts", folder=own_tasks)
    attached = peft.PeftModel.from_pretrained(reference_model(family, folder), tmp_path / "module")
    for column, model in (("bare", None), ("module", attached)):
        expected = lm_eval.simple_evaluate(
            model=theirs(family, folder, model),
            tasks=["tiny_choices", "tiny_texts"],
            task_manager=TaskManager(include_path=str(own_tasks), include_defaults=False),
            bootstrap_iters=0,
        )["results"]
        for each in found.figures:
            value = expected[each["task"]][f"{each['metric']},{each['filter']}"]
            assert each[column] == pytest.approx(value, abs=1e-4, rel=1e-4)
    by_metric = {each["metric"]: each for each in found.figures}
    assert set(by_metric) == {"acc", "acc_norm", "bits_per_byte", "word_perplexity"}
    assert by_metric["acc"]["better"] == "higher"
    assert by_metric["acc"]["n_test"] == 8
    bits = by_metric["bits_per_byte"]
    assert abs(bits["bare"] - bits["module"]) > 1e-3
    assert found.to_dict()["figures"][0]["task"] == "tiny_choices"
    assert "bare host" in str(found)
    assert len(found.frame()) == 4


def test_the_command_line_says_the_same(tiny_host, tiny_task, own_tasks, tmp_path, call):
    folder = tiny_host("qwen2")
    made = pp.train(folder, str(tiny_task), "lora", steps=1, out=tmp_path / "module")
    options = ("--lm-eval", "tiny_choices", "--lm-eval-path", own_tasks, "--limit-test", 4)
    code, out, _ = call("test", tmp_path / "module", "--host", folder, *options, "--json")
    assert code == 0
    expected = pp.lm_eval(
        made.module, folder, ["tiny_choices"], folder=own_tasks, limit_test=4
    ).to_dict()
    assert json.loads(out)["figures"] == expected["figures"]
    assert expected["figures"][0]["n_test"] == 4
    assert call("test", tmp_path / "module", "--host", folder)[0] == 2
    code, _, told = call(
        "test", tmp_path / "module", "--host", folder, *options, "--kind", "choice"
    )
    assert code == 2
    assert "--kind" in told


def test_a_module_that_is_made_for_other_weights_is_told_to_be_a_plain_copy(
    tiny_host, tiny_continuation, tiny_task, own_tasks, caplog
):
    made = pp.train(tiny_host("qwen2"), str(tiny_task), "lora", steps=1)
    there = tiny_continuation("qwen2")
    found = pp.lm_eval(made.module, there, "tiny_choices", folder=own_tasks, limit_test=4)
    assert found.made_for_this_host is False
    assert f"whose weights are not those of {there}: this tests a plain copy" in caplog.text


def test_what_cannot_be_run_is_told(tiny_host, own_tasks, monkeypatch):
    host = host_in(tiny_host("qwen2"))
    with pytest.raises(pp.BadInput, match=r"no task 'tiny_choice'\. Did you mean 'tiny_choices'"):
        evaluated(host, ["tiny_choice"], folder=own_tasks)
    with pytest.raises(pp.BadInput, match="no folder"):
        evaluated(host, ["tiny_choices"], folder=own_tasks / "nowhere")
    (own_tasks / "choices.jsonl").unlink()
    with pytest.raises(pp.BadInput, match="lm-eval cannot run tiny_choices"):
        evaluated(host, ["tiny_choices"], folder=own_tasks)
    with pytest.raises(pp.BadInput, match="is an encoder and writes nothing"):
        as_model(host_in(tiny_host("bert")))
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(pp.BadInput, match=r"pip install 'peftport\[lm-eval\]'"):
        as_model(host)
