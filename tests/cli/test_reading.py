"""Label words and template, which other libraries' modules leave unsaid, are told to commands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from modules.formats.modules import GOLDEN, made, same
from peftport.files import read_json
from peftport.modules import formats, load_module
from tiny_runs import host_in

WORDS = ("--label-words", "terrible,great")
PROMPT = "the story was {text} and it was"


@pytest.fixture
def texts(tmp_path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(f"a dull film and story number {i}" for i in range(40)))
    return path


@pytest.fixture
def spoken(tiny_task, tmp_path) -> Path:
    """A task YAML that says both label words and template."""
    path = tmp_path / "spoken.yaml"
    path.write_text(
        f'source: {tiny_task}\nlabels: {{0: terrible, 1: great}}\ntemplate: "{PROMPT}"\n'
    )
    return path


@pytest.fixture
def port(call, from_peft, tiny_continuation, texts, tmp_path):
    """A function that ports the module of peft's by a method and gives what was made."""

    def run(method: str, *more: object):
        out = tmp_path / f"{method}-{len(list(tmp_path.iterdir()))}"
        asked = ("port", from_peft, "--host", tiny_continuation("llama"), "--method", method)
        steps = ("--set", "steps=2") if method == "distill" else ()
        code, _, error = call(*asked, "--texts", texts, *steps, *more, "--out", out)
        assert code == 0, error
        return load_module(out), error

    return run


def test_a_port_gives_the_donor_its_classes(port):
    module, error = port("distill", *WORDS, "--template", PROMPT)
    assert "notice: the module's files do not say its host's weights" in error
    assert "does not say its label words" not in error
    task = module.record.task
    assert (task["labels"], task["label_words"]) == ([0, 1], ["terrible", "great"])
    assert set(task["templates"].values()) == {PROMPT}


def test_a_space_before_a_word_is_put_there_and_need_not_be_said(port):
    plain, _ = port("distill", *WORDS)
    spaced, _ = port("distill", "--label-words", " terrible, great")
    assert same(plain, spaced)
    assert spaced.record.task["label_words"] == ["terrible", "great"]


def test_maps_are_fitted_on_the_words_that_were_given(port):
    given, _ = port("procrustes", *WORDS, "--set", "prior=false")
    others, _ = port("procrustes", "--label-words", "film,story", "--set", "prior=false")
    without, error = port("procrustes")
    prompted, _ = port("procrustes", *WORDS, "--template", PROMPT, "--set", "prior=false")
    for one, other in ((given, others), (given, without), (given, prompted)):
        assert not same(one, other)
    assert "does not say its label words and template (taken: '{text} it was')" in error
    assert "without the gradients of its label words and the correction" in error
    assert "--label-words" in error
    assert "--template" in error


def test_words_and_template_of_a_task_do_as_well(port, spoken):
    given, _ = port("procrustes", *WORDS, "--template", PROMPT)
    of_task, error = port("procrustes", "--task", spoken)
    assert same(given, of_task)
    assert given.record.task == of_task.record.task
    assert "does not say its label words" not in error


def test_what_the_command_line_says_goes_before_what_a_module_remembers(
    call, tiny_host, tiny_continuation, texts, tmp_path
):
    module = made(host_in(tiny_host("llama")), "lora")
    task = {**module.record.task, "label_words": ["film", "story"]}
    record = module.record.model_copy(update={"task": task})
    formats.save(type(module)(record, module.tensors), tmp_path / "m")
    asked = ("port", tmp_path / "m", "--host", tiny_continuation("llama"))
    for place, more in (("a", ()), ("b", WORDS)):
        code, _, error = call(*asked, "--out", tmp_path / place, *more)
        assert code == 0, error
    assert load_module(tmp_path / "a").record.task["label_words"] == ["film", "story"]
    assert load_module(tmp_path / "b").record.task["label_words"] == ["terrible", "great"]


@pytest.mark.parametrize("method", ["copy", "procrustes"])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--label-words", "\u2603,\u2604"), "so this host cannot tell them apart"),
        (("--label-words", "great,great"), "begin with the same token"),
        (("--label-words", "great"), "--label-words 'great': expected two words or more"),
        (("--label-words", "great,"), "--label-words 'great,': expected two words or more"),
        ((*WORDS, "--template", "it was"), "--template: the template 'it was' must have {text}"),
        (("--task", "TASK", "--label-words", "a,b,c"), "3 label words (a, b, c) for the 2 labels"),
    ],
)
def test_words_and_templates_that_cannot_be_used_are_refused(
    method, more, message, call, tiny_host, tiny_continuation, tiny_task, texts, tmp_path
):
    formats.save(made(host_in(tiny_host("t5")), "lora", classes=0), tmp_path / "m", "peft")
    (tmp_path / "m" / "peftport.json").unlink()
    asked = ("port", tmp_path / "m", "--host", tiny_continuation("t5"), "--method", method)
    given = [tiny_task if each == "TASK" else each for each in more]
    code, text, error = call(*asked, "--texts", texts, *given, "--out", tmp_path / "out")
    assert (code, text) == (2, "")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_as_many_words_as_a_module_has_classes(call, tiny_host, tmp_path):
    formats.save(made(host_in(tiny_host("bert")), "lora"), tmp_path / "m")
    asked = ("port", tmp_path / "m", "--host", tiny_host("bert"), "--out", tmp_path / "out")
    code, _, error = call(*asked, "--label-words", "a,b,c")
    assert code == 2
    assert "--label-words: 3 words (a, b, c) and the module was trained for 2 classes" in error


def test_a_template_changes_what_a_module_answers_and_is_remembered(
    call, port, from_peft, tiny_host, tiny_continuation, tiny_task, tmp_path
):
    def figures(module: Path, host: Path, *more: object) -> tuple[dict, str]:
        code, text, error = call(
            "test", module, "--host", host, "--task", tiny_task, "--json", *more
        )
        assert code == 0, error
        return json.loads(text), error

    host, told = tiny_host("llama"), (*WORDS, "--template", PROMPT)
    bare, notice = figures(from_peft, host, *WORDS)
    prompted, silent = figures(from_peft, host, *told)
    assert bare["log_loss"] != prompted["log_loss"]
    assert "does not say its template (taken: '{text} it was')" in notice
    assert "--label-words and --template" in notice
    assert "notice: " not in silent

    there, out = tiny_continuation("llama"), tmp_path / "kept"
    code, _, error = call("port", from_peft, "--host", there, *told, "--out", out)
    assert code == 0, error
    remembered, silent = figures(out, there)
    assert remembered == figures(out, there, *told)[0]
    assert remembered["log_loss"] != figures(out, there, "--template", "{text}")[0]["log_loss"]
    assert "notice: " not in silent


def test_an_assessment_reads_as_it_is_told(call, from_peft, tiny_continuation, tiny_task, spoken):
    def log_losses(*more: object) -> list[float]:
        code, text, error = call(
            *("assess", from_peft, "--host", tiny_continuation("llama"), "--budgets", "0"),
            *("--seeds", 2, "--native-steps", 1, "--json", *more),
        )
        assert code == 0, error
        return [json.loads(text)["budgets"][0]["auroc"]["copy"]["mean"]]

    asked = ("--task", tiny_task, *WORDS)
    prompted = log_losses(*asked, "--template", PROMPT)
    assert prompted != log_losses(*asked)
    assert prompted == log_losses("--task", spoken)


def test_a_check_knows_what_it_is_told(call, from_peft, tiny_continuation, texts, spoken):
    def found(*more: object) -> dict:
        asked = ("check", from_peft, "--host", tiny_continuation("llama"), "--json")
        code, text, error = call(*asked, *more)
        assert code == 0, error
        return json.loads(text)

    assert not found("--method", "distill")["can_port"]
    assert "give its --label-words" in found("--method", "distill")["problem"]
    assert found("--method", "distill", *WORDS)["can_port"]
    assert found("--method", "distill", "--task", spoken)["can_port"]
    for more in (WORDS, ("--task", spoken)):
        told = found("--forecast", "--texts", texts, *more)
        assert told["forecast"]["on_texts"]["answers"] is not None
    assert found("--forecast", "--texts", texts)["forecast"]["on_texts"]["answers"] is None
    assert found("--forecast", "--task", spoken)["forecast"]["texts"] == 95


def test_a_module_is_trained_with_a_template_and_remembers_it(call, tiny_host, tiny_task, tmp_path):
    asked = ("train", "--host", tiny_host("llama"), "--task", tiny_task, "--technique", "lora")
    for place, more in (("a", ()), ("b", ("--template", PROMPT))):
        code, _, error = call(*asked, "--steps", 2, *more, "--out", tmp_path / place)
        assert code == 0, error
    assert not same(load_module(tmp_path / "a"), load_module(tmp_path / "b"))
    templates = read_json(tmp_path / "b" / "module.json")["task"]["templates"]
    assert set(templates.values()) == {PROMPT}
    asked = ("test", tmp_path / "b", "--host", tiny_host("llama"), "--task", tiny_task, "--json")
    found = [json.loads(call(*asked, *more)[1]) for more in ((), ("--template", PROMPT))]
    assert found[0] == found[1] != json.loads(call(*asked, "--template", "{text}")[1])


def suggested(error: str) -> list[str]:
    """The words of the one command that a message suggests."""
    (command,) = re.findall(r"`(peftport port [^`]*)`", error)
    return shlex.split(command)[1:]


@pytest.mark.parametrize(
    ("case", "to", "more"),
    [
        ("peft", "qwen3", (*WORDS, "--template", PROMPT)),
        ("peft", "gpt2", ("--from-host", "HOST")),
        ("peft", "t5", WORDS),
        ("golden", "roberta", ("--from-host", "HOST")),
        ("own", "t5", ()),
        ("no head", "bert", ()),
        ("no head", "roberta", ()),
    ],
)
def test_the_command_that_a_message_suggests_runs_as_it_stands(
    case, to, more, call, from_peft, tiny_host, tiny_task, tmp_path, monkeypatch
):
    """Called where its folders have spaces in their names; what it makes can then be tested."""
    monkeypatch.chdir(tmp_path)
    module = Path("my modules") / "mine"
    families = {"peft": "llama", "own": "llama", "golden": "bert", "no head": "bert"}
    origin = tiny_host(families[case])
    if case == "golden":
        module = GOLDEN / "bert-seq_bn"
    elif case == "peft":
        module.parent.mkdir()
        from_peft.rename(module)
    else:
        module.parent.mkdir()
        classes, kind = (2, "peftport") if case == "own" else (0, "peft")
        formats.save(made(host_in(origin), "lora", classes=classes), module, kind)
    given = [origin if each == "HOST" else each for each in more]
    tested = ("--host", tiny_host(to), "--task", tiny_task)
    code, text, error = call("test", module, *tested, *given)
    assert (code, text) == (2, "")
    command = suggested(error)
    if case == "golden":  # a folder of the tests is not written beside
        command[command.index("--out") + 1] = "out"
    assert call(*command)[0] == 0, error
    code, text, error = call("test", command[command.index("--out") + 1], *tested, "--json")
    assert code == 0, error
    assert json.loads(text)["n_test"] == 48


def test_a_suggested_folder_is_new(call, from_peft, tiny_host, tiny_task):
    asked = ("test", from_peft, "--host", tiny_host("gpt2"), "--task", tiny_task)
    first = suggested(call(*asked)[2])
    place = Path(first[first.index("--out") + 1])
    place.mkdir()
    again = suggested(call(*asked)[2])
    assert Path(again[again.index("--out") + 1]) == place.with_name(f"{place.name}-2")
