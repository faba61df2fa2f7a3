"""The command line does what the Python interface does: for every verb, the same JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

import peftport as pp
from peftport.cli import app
from peftport.modules import formats

pytestmark = pytest.mark.long

VARIES = ("seconds", "peak_memory_bytes", "measured_in_seconds", "bytes", "memory", "losses")
LAB = "lab:small-tuned"


def steady(found: Any) -> Any:
    """What does not depend on the clock, the machine, or where files are written."""
    if isinstance(found, dict):
        return {key: steady(value) for key, value in found.items() if key not in VARIES}
    if isinstance(found, list | tuple):
        return [steady(each) for each in found]
    return found


@pytest.fixture
def place(lab_module, tmp_path, monkeypatch) -> Path:
    """The current folder, with a module in it, also as peft keeps it."""
    monkeypatch.chdir(tmp_path)
    module = pp.load_module(lab_module)
    module.save("films")
    module.save("films-peft", format="peft")
    (tmp_path / "texts.txt").write_text("\n\n".join(f"a film, number {n}" for n in range(40)))
    return tmp_path


SIZES = {"width": 16, "layers": 1, "heads": 2, "vocabulary": 300}
CASES: dict[str, tuple[str, Any]] = {
    "train": (
        "train --host lab:small --task lab:films --technique lora --steps 2 --set r=2 --out OUT",
        lambda out: pp.train("lab:small", "lab:films", "lora", steps=2, options={"r": 2}, out=out),
    ),
    "test": (
        f"test films --host {LAB} --task lab:films --limit-test 40",
        lambda out: pp.test("films", LAB, "lab:films", limit_test=40),
    ),
    "test, the bare host": (
        f"test --host {LAB} --task lab:films --limit-test 40",
        lambda out: pp.test(None, LAB, "lab:films", limit_test=40),
    ),
    "test, against another module on its own host": (
        f"test films --host {LAB} --task lab:films --limit-test 40 --against films-peft "
        "--against-host lab:small",
        lambda out: pp.test(
            "films",
            LAB,
            "lab:films",
            limit_test=40,
            against="films-peft",
            against_host="lab:small",
        ),
    ),
    "check": (f"check films --host {LAB}", lambda out: pp.check("films", LAB)),
    "check, one method, with a forecast": (
        f"check films --host {LAB} --method copy --forecast --texts texts.txt",
        lambda out: pp.check("films", LAB, method="copy", forecast=True, texts="texts.txt"),
    ),
    "port": (
        f"port films-peft --host {LAB} --out OUT",
        lambda out: pp.port("films-peft", LAB, out=out),
    ),
    "port, and train on": (
        f"port films --host {LAB} --out OUT --task lab:films --steps 1 --limit-train 32 "
        "--format peft",
        lambda out: pp.port(
            "films", LAB, out=out, task="lab:films", steps=1, limit_train=32, format="peft"
        ),
    ),
    "verify": (
        "verify films-peft --host lab:small",
        lambda out: pp.verify("films-peft", "lab:small"),
    ),
    "assess": (
        f"assess films --host {LAB} --task lab:films --budgets 0 --seeds 2 --native-steps 1 "
        "--limit-test 40",
        lambda out: pp.assess(
            "films", LAB, "lab:films", budgets=[0], seeds=2, native_steps=1, limit_test=40
        ),
    ),
    "merge": (
        "merge films --host lab:small --out OUT",
        lambda out: pp.merge("films", "lab:small", out),
    ),
    "methods": ("methods", lambda out: pp.list_methods()),
    "doctor": ("doctor", lambda out: pp.doctor()),
    "formats": ("formats", lambda out: pp.list_formats()),
    "hosts families": ("hosts families", lambda out: pp.list_families()),
    "hosts list": ("hosts list", lambda out: pp.list_hosts()),
    "hosts describe": ("hosts describe lab:small", lambda out: pp.describe_host("lab:small")),
    "hosts pretrain": (
        "hosts pretrain --texts texts.txt --out OUT --steps 2 --family gpt2 --length 8 "
        "--tokens-per-batch 64 "
        "--width 16 --layers 1 --heads 2 --vocabulary 300",
        lambda out: pp.pretrain_host(
            out,
            "texts.txt",
            2,
            family="gpt2",
            length=8,
            tokens_per_batch=64,
            sizes=SIZES,
        ),
    ),
    "study plan": (
        "study plan quick --no-measure",
        lambda out: pp.Study("quick").plan(measure=False),
    ),
    "study tune": (
        "study tune SPEC --rates 0.01 --seeds 1 --out OUT",
        lambda out: pp.Study("tiny.yaml").tune([0.01], seeds=1, out=out),
    ),
    "study run": (
        "study run SPEC --out OUT",
        lambda out: pp.Study("tiny.yaml", out=out).run().outcome,
    ),
    "study status": ("study status STUDY", lambda out: pp.Study("study").status()),
    "study rescue": (
        "study rescue STUDY --out OUT",
        lambda out: pp.Study("study").rescue(out),
    ),
    "study report": ("study report STUDY", lambda out: pp.Study("study").report()),
    "study export": ("study export STUDY", lambda out: pp.Study("study").export(form="json")),
}
OF_A_STUDY = ("study status", "study rescue", "study report", "study export")


def tiny_study(place: Path) -> None:
    """A specification of a few runs on the lab's smallest host, in `tiny.yaml`."""
    (place / "tiny.yaml").write_text(
        "name: tiny\ntechniques: {lora: {r: 2}}\nhosts: {a: lab:small}\n"
        "tasks: {films: lab:films}\n"
        "pairs: [{origin: a, receiver: a, relation: same}]\n"
        "settings: [{origin_task: films, task: films}]\n"
        "conditions: [ported, sampled, scratch, native, host]\nbudgets: [0]\nseeds: 1\n"
        "donor_steps: 1\nnative_steps: 1\nlimit_train: 16\nlimit_test: 20\n"
        "training: {learning_rates: {lora: 0.01}}\n"
    )


@pytest.fixture(scope="module")
def study_that_ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ran")
    tiny_study(folder)
    pp.Study(str(folder / "tiny.yaml"), out=folder / "study").run()
    return folder / "study"


@pytest.mark.parametrize("case", CASES)
def test_a_verb_and_its_function_find_the_same(case, place, call, request, capsys):
    written, function = CASES[case]
    if case.startswith("study"):
        tiny_study(place)
    if case in OF_A_STUDY:
        shutil.copytree(request.getfixturevalue("study_that_ran"), "study")
    names = {"OUT": "made", "SPEC": "tiny.yaml", "STUDY": "study"}
    asked = [names.get(word, word) for word in written.split()]
    code, text, error = call(*asked, "--json")
    assert code == 0, error
    told = json.loads(text)
    if Path("made").exists():
        Path("made").rename("of the command line")
    result = function("made")
    assert capsys.readouterr() == ("", ""), "a function says nothing by itself"
    assert steady(json.loads(json.dumps(result.to_dict()))) == steady(told)
    assert result._repr_html_().startswith("<")
    assert str(result)


def test_every_verb_is_compared():
    def verbs(group: Any, path: tuple[str, ...] = ()) -> list[str]:
        inside = getattr(group, "commands", None)
        if inside is None:
            return [" ".join(path)]
        return [each for name, one in inside.items() for each in verbs(one, (*path, name))]

    assert set(verbs(typer.main.get_command(app))) == {case.split(",")[0] for case in CASES}


def test_what_a_handle_holds_is_found_as_by_its_name(place):
    host, module = pp.load_host(LAB), pp.load_module("films")
    assert pp.check(module, host).to_dict() == pp.check("films", LAB).to_dict()
    first = pp.test(module, host, "lab:films", limit_test=20)
    assert first.to_dict() == pp.test("films", LAB, "lab:films", limit_test=20).to_dict()
    assert host.loaded is host.loaded


def test_a_port_in_memory_is_tested_saved_and_verified(place):
    host = pp.load_host(LAB)
    ported = pp.port("films", to=host, method="copy")
    assert ported.verified is None
    assert "tensors: " in ported.report
    assert len(ported.frame()) == len(ported.module.tensors)
    tested = pp.test(ported, host, "lab:films", limit_test=20)
    ported.save("out", format="peft")
    assert formats.format_of(Path("out")) == "peft"
    again = pp.test("out", host, "lab:films", limit_test=20)
    assert again.figures == tested.figures
    assert pp.verify("out", host).passed


def test_texts_are_a_file_or_a_list(place):
    listed = [f"a film, number {n}" for n in range(40)]
    one = pp.port("films", LAB, method="subspace")
    assert one.to_dict()["texts"] is None
    found = [pp.check("films", LAB, forecast=True, texts=t) for t in (listed, "texts.txt")]
    assert found[0].forecast["on_texts"] == found[1].forecast["on_texts"]
