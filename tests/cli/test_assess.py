"""`peftport assess`: ports by several methods and of several modules, beside their controls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modules.formats.modules import made
from peftport.errors import BadInput
from peftport.files import write_json
from peftport.hosts import load_host
from peftport.hosts.fingerprint import fingerprint
from peftport.modules import formats
from peftport.techniques import technique
from port_methods import extreme, soft
from tiny_hosts import write_host
from tiny_runs import host_in

__all__ = ["extreme", "soft"]

pytestmark = pytest.mark.long

WORDS = ("--label-words", "terrible,great")
FEW = ("--budgets", "0,2", "--native-steps", 4, *WORDS)


@pytest.fixture
def donors(tiny_host, tmp_path) -> list[Path]:
    """Three modules of one kind that differ in their tensors."""
    folders = [tmp_path / f"donor-{seed}" for seed in range(3)]
    for seed, folder in enumerate(folders):
        formats.save(made(host_in(tiny_host("t5")), "lora", seed=seed), folder)
    return folders


@pytest.fixture
def assess(call, tiny_continuation, tiny_task):
    """A function that assesses on the tiny continuation and gives what was found."""

    def found(*arguments: object, **asked: object) -> dict:
        receiver = asked.get("to", tiny_continuation("t5"))
        code, text, error = call(
            "assess", *arguments, "--host", receiver, "--task", tiny_task, *FEW, "--json"
        )
        assert code == 0, error
        return json.loads(text)

    return found


def test_methods_stand_beside_each_other_and_their_controls(assess, soft, donors):
    methods = "copy,soft,soft:scale=1:steps=3"
    found = assess(*donors, "--methods", methods)
    assert (found["modules"], found["seeds"]) == (3, 3)
    at_start, later = found["budgets"]
    names = {"host", "gaussian", "permuted", "spectrum", "scratch", "native"}
    assert set(at_start["accuracy"]) == names | set(methods.split(","))
    assert at_start["accuracy"]["copy"] == at_start["accuracy"]["soft:scale=1:steps=3"]
    assert set(later["ports"]["soft"]["minus"]) == names - {"native"}
    assert found["texts"] == {"count": 95, "source": "opinions"}
    assert set(found["verdicts"]) == set(methods.split(","))
    assert found["refused"] == {}
    assert found["failures"] == []


def test_a_module_from_scratch_has_as_many_steps_as_a_method_that_trains(assess, soft, donors):
    cost = assess(*donors, "--methods", "soft,soft:steps=3")["methods"]
    assert cost["soft"]["scratch_after_as_many_steps"] is None
    assert cost["soft:steps=3"]["steps"] == 3
    assert 0 <= cost["soft:steps=3"]["scratch_after_as_many_steps"]["accuracy"]["mean"] <= 1
    for each in cost.values():
        assert each["seconds"] > 0
        assert 0 <= each["peak_memory_bytes"] < 2**32


def test_a_method_that_cannot_is_told_beside_those_that_can(call, soft, tiny_task, tmp_path):
    asked = ("train", "--host", "lab:small", "--task", "lab:books", "--technique", "lora")
    code, _, error = call(*asked, "--steps", 2, "--limit-train", 32, "--out", tmp_path / "m")
    assert code == 0, error
    asked = ("assess", tmp_path / "m", "--host", "lab:large", "--task", "lab:books", "--seeds", 2)
    more = ("--limit-test", 40, "--budgets", "0", "--native-steps", 2)
    code, text, error = call(*asked, *more, "--methods", "copy,soft", "--text-count", 20)
    assert code == 0, error
    assert "copy cannot: nothing of the module can be carried over" in text
    assert "gaussian of soft   0." in text, "what does not fit is no control"
    assert "a port takes " in text
    assert "\ntesting 2 soft, 2 gaussian of soft, " in error
    assert "looked at, without labels: 20 texts of lab:books" in text
    code, _, error = call(*asked, *more, "--methods", "copy")
    assert code == 2
    assert "port by copy: nothing of the module can be carried over" in error
    assert "soft" in error.partition("Methods that can: ")[2]


def test_a_port_that_fails_is_a_row_and_not_the_end(assess, extreme, donors):
    found = assess(*donors, "--methods", "copy,dying")
    assert "its process gave no module: ended with exit code 9" in found["failures"][0]
    assert found["budgets"][0]["accuracy"]["dying"] is None
    assert found["verdicts"]["dying"].startswith("Not known: no ported run is done")


@pytest.fixture
def kin(tiny_host, tiny_continuation, tmp_path) -> dict[str, Path]:
    """A host, two that record that they continue it, and two that record nothing, of which one has
    weights near to theirs."""
    base = Path(shutil.copytree(tiny_host("t5"), tmp_path / "base"))
    said = {"from": {"name": str(base), "fingerprint": fingerprint(base)}, "steps": 5}
    unknown = write_host("t5", tmp_path / "unknown", seed=1)
    found = {"base": base, "near": tiny_continuation("t5"), "unknown": unknown}
    for name, noise in (("one", 0.1), ("other", 0.2)):
        found[name] = write_host("t5", tmp_path / name, noise=noise)
        write_json(found[name] / "peftport_host.json", said)
    return found


@pytest.mark.parametrize(
    ("origin", "receiver", "more", "relation"),
    [
        ("one", "one", (), "same"),
        ("base", "one", (), "continuation"),
        ("one", "base", (), "continuation"),
        ("one", "other", (), "continuation"),
        ("one", "near", (), "continuation"),
        ("one", "unknown", (), "unstated"),
        ("one", "unknown", ("--relation", "independent"), "independent"),
    ],
)
def test_hosts_are_related_as_their_records_or_weights_say_either_way_around(
    origin, receiver, more, relation, call, kin, tiny_task, tmp_path
):
    formats.save(made(load_host(str(kin[origin])), "lora"), tmp_path / "m")
    asked = ("assess", tmp_path / "m", "--host", kin[receiver], "--task", tiny_task, *FEW)
    few = ("--budgets", "0", "--seeds", 2, "--methods", "copy", "--limit-test", 8)
    code, text, error = call(*asked, *few, "--json", *more)
    assert code == 0, error
    assert json.loads(text)["relation"] == relation


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("independent", "is called 'independent', but both hosts have the same weights"),
        ("cousins", "'cousins' is not one of"),
    ],
)
def test_a_relation_that_cannot_be_is_refused(stated, message, call, donors, tiny_host, tiny_task):
    asked = ("assess", donors[0], "--host", tiny_host("t5"), "--task", tiny_task)
    code, _, error = call(*asked, "--relation", stated)
    assert code == 2
    assert message in " ".join(error.split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--methods", "copy,copy"), "expected methods, each of them once"),
        (("--methods", ","), "expected methods, each of them once"),
        (("--methods", "gaussian"), "gaussian is a control"),
        (("--methods", "copie"), "unknown port method 'copie'. Did you mean 'copy'"),
        (("--seeds", "2"), "--seeds 2: each of the 3 modules has one seed"),
    ],
)
def test_what_cannot_be_asked_is_said(more, message, call, donors, tiny_host, tiny_task):
    code, _, error = call("assess", *donors, "--host", tiny_host("t5"), "--task", tiny_task, *more)
    assert code == 2
    assert message in error


def test_native_modules_have_the_usual_steps_where_the_files_do_not_say_the_module_s(
    call, donors, tiny_continuation, tiny_task, monkeypatch
):
    seen = {}

    def noted(assessment):
        seen.update(native=assessment.native_steps, rates=assessment.rates)
        raise BadInput("seen")

    monkeypatch.setattr("peftport.studies.assess.Assessment.run", noted)
    for donor in donors:
        record = Path(donor) / "module.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"training": {}}))
    task = ("--task", tiny_task, "--label-words", "terrible,great")
    asked = ("assess", *donors, "--host", tiny_continuation("t5"), *task, "--methods", "copy")
    _, _, error = call(*asked, "--budgets", "0")
    assert "do not say for how many steps it was trained: native modules have 200" in error
    assert seen == {"native": 200, "rates": [technique("lora").learning_rate]}


def test_rows_to_train_on_are_asked_for_before_anything_is_ported(
    call, donors, soft, tiny_task, tmp_path
):
    (tmp_path / "tested").mkdir()
    shutil.copy(next(Path(tiny_task).glob("test*")), tmp_path / "tested")
    more = ("--task", tmp_path / "tested", "--methods", "soft", "--texts", tiny_task)
    code, _, error = call("assess", *donors, "--host", "lab:small-tuned", *more)
    assert code == 2
    assert "has no train split" in error
    assert "port by" not in error


def test_modules_of_different_kinds_are_not_assessed_together(call, donors, tiny_host, tiny_task):
    other = donors[0].parent / "other"
    formats.save(made(host_in(tiny_host("t5")), "lora", rank=2), other)
    asked = ("assess", donors[0], other, "--host", tiny_host("t5"), "--task", tiny_task)
    code, _, error = call(*asked)
    assert code == 2
    assert f"{other} and {donors[0]} are assessed together and differ in their conf" in error


def test_a_module_counts_once_whatever_its_folder_is_called(call, donors, tiny_host, tiny_task):
    shutil.copytree(donors[0], donors[0].parent / "copy")
    for twice in ((donors[0], donors[1], donors[0]), (donors[0], donors[0].parent / "copy")):
        code, text, error = call("assess", *twice, "--host", tiny_host("t5"), "--task", tiny_task)
        assert (code, text) == (2, "")
        assert "hold the same tensors: a module counts once" in error


def test_it_ends_with_an_action_and_shows_what_stands_beside_it(call, donors, tiny_host, tiny_task):
    asked = ("assess", *donors, "--host", tiny_host("t5"), "--task", tiny_task, *FEW)
    code, text, error = call(*asked, "--json")
    assert code == 0, error
    found = json.loads(text)
    assert found["metric"] == "corrected_accuracy"
    assert found["corrected_on"] == 95, "every training text but one that stands there twice"
    assert found["decision"]["action"] in (
        *("bare host", "copy", "port", "distil", "train anew", "label more", "more seeds"),
    )
    first = found["budgets"][0]
    for figures in ("accuracy", "as_answered", "auroc"):
        assert {"host", "gaussian", "scratch", "copy", "native"} <= set(first[figures])
        assert 0 <= first[figures]["host"]["mean"] <= 1
    port = first["ports"]["copy"]
    assert port["agreement"] == pytest.approx(1.0), "on its own host a copy answers as its donor"
    assert isinstance(port["only_threshold"], bool)
    code, text, error = call(*asked)
    assert code == 0, error
    for said in ("corrected ", "as answered ", "AUROC ", "corrected: classes answered equally"):
        assert said in text
    assert text.startswith("lora on its own host "), "nothing is ported there"
    assert "agreement with the donor on unlabelled texts (kappa): copy 1.00" in text
    assert text.rstrip().splitlines()[-1].startswith("Action: ")


def test_a_gate_closes_with_its_own_exit_code_and_still_says_everything(
    call, donors, tiny_host, tiny_task
):
    few = ("--budgets", "0", "--native-steps", 1, "--limit-test", 16, *WORDS)
    asked = ("assess", *donors, "--host", tiny_host("t5"), "--task", tiny_task, *few)
    code, text, _ = call(*asked, "--fail-under", 50)
    assert code == 3
    assert text.rstrip().splitlines()[-1].startswith("Gate NOT passed: ")
    code, text, _ = call(*asked, "--fail-under", 50, "--json")
    assert code == 3
    assert json.loads(text)["gate"]["passed"] is False
    for gate in ("nan", "inf"):
        code, text, error = call(*asked, "--fail-under", gate)
        assert (code, text) == (2, "")
        assert f"--fail-under {gate}: expected a recovery" in error


@pytest.mark.parametrize(
    ("kind", "titles"),
    [
        ("completion", ("loss per token", "exact match", "chrF")),
        ("language", ("bits per byte", "loss per token", "perplexity")),
    ],
)
def test_a_kind_without_classes_is_told_in_its_own_metrics_alone(
    kind, titles, call, donors, tiny_host, tiny_task
):
    asked = ("assess", donors[0], "--host", tiny_host("t5"), "--task", tiny_task, *FEW)
    few = ("--seeds", 2, "--limit-test", 8, "--kind", kind, "--max-answer", 2)
    code, text, error = call(*asked, *few)
    assert code == 0, error
    lines = text.splitlines()
    for title in titles:
        assert any(line.startswith(f"{title} ") for line in lines)
    assert f"{titles[0]}: lower is better" in lines
    for word in ("accuracy", "AUROC", "corrected", "correction", "kappa"):
        assert word not in text


def test_a_function_of_ones_own_stands_beside_the_other_metrics(
    call, donors, tiny_host, tiny_task, tmp_path, monkeypatch
):
    (tmp_path / "judges.py").write_text("def half(written, reference):\n    return 0.5\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    asked = ("assess", donors[0], "--host", tiny_host("t5"), "--task", tiny_task, *FEW)
    few = ("--seeds", 2, "--limit-test", 8, "--kind", "completion", "--max-answer", 2)
    code, text, error = call(*asked, *few, "--scorer", "judges:half", "--json")
    assert code == 0, error
    budget = json.loads(text)["budgets"][0]
    assert budget["own"].keys() == budget["chrf"].keys()
    assert all(found["mean"] == 0.5 for found in budget["own"].values())
