"""What names in a specification stand for, and combinations that cannot be run."""

from __future__ import annotations

import json
import shutil

import pytest

from peftport.errors import BadInput
from peftport.hosts.fingerprint import fingerprint, of_weights
from peftport.kept import class_bytes
from peftport.studies.resolve import as_begun, resolve
from port_methods import soft
from study_specs import spec, tiny_spec
from tiny_hosts import write_host

__all__ = ["soft"]

PAIR = {"origin": "a", "receiver": "b", "relation": "continuation"}


@pytest.fixture
def made(tiny_host, tiny_continuation, tiny_task):
    def make(family="t5", other=None, **changes):
        hosts = {"a": tiny_host(family), "b": other or tiny_continuation(family)}
        return tiny_spec(hosts, tiny_task, **{"pairs": [PAIR], **changes})

    return make


def test_hosts_and_tasks_get_fingerprints_and_techniques_their_defaults(made, tiny_task):
    facts = resolve(made(techniques={"lora": {"rank": 4}, "adapter": {}}), fetch=True)
    hosts, tasks, *_ = facts.marks()
    assert set(hosts) == {"a", "b"}
    assert len({*hosts.values()}) == 2
    assert all(len(of_weights(mark)) == 64 for mark in (*hosts.values(), *tasks.values()))
    assert facts.techniques["lora"]["rank"] == 4
    assert facts.techniques["lora"]["alpha"] == 8.0
    assert facts.tasks["films"]["location"] == str(tiny_task)
    assert len(facts.gold["films"]) == 48
    assert set(facts.gold["films"]) == {0, 1}
    assert not facts.unknown


def test_a_limit_of_test_rows_holds_for_the_true_classes_and_the_fingerprint(made):
    short, whole = (resolve(made(limit_test=limit), fetch=True) for limit in (7, None))
    assert len(short.gold["films"]) == 7
    assert short.marks()[1] != whole.marks()[1]


def test_what_is_on_the_hub_is_left_unknown_by_a_plan():
    hosts = {"a": "google/t5-v1_1-base", "b": "google/flan-t5-base"}
    facts = resolve(spec(pairs=[PAIR], hosts=hosts, tasks={"films": "sst2"}), fetch=False)
    assert set(facts.unknown) == {"a", "b", "films"}
    assert facts.marks()[:2] == ({"a": "name:a", "b": "name:b"}, {"films": "name:films"})


def test_classes_are_kept_in_the_smallest_type_that_holds_them():
    assert class_bytes(2, [0, 1, 1]) == bytes([0, 1, 1])
    assert class_bytes(256, [255]) == b"\xff"
    assert len(class_bytes(257, [256, 1])) == 4


def refused(made) -> str:
    with pytest.raises(BadInput) as caught:
        resolve(made, fetch=True)
    return str(caught.value)


def test_names_that_stand_for_nothing_are_refused(made, tmp_path):
    assert "unknown port method 'copi'. Did you mean 'copy'?" in refused(made(methods=["copi"]))
    assert "'gaussian' is a control" in refused(made(methods=["gaussian"]))
    assert "'copi'" in refused(made(pairs=[{**PAIR, "methods": ["copi"]}]))
    message = refused(made(controls=["gausian"]))
    assert "controls: 'spectrum' is a control" in refused(made(controls=["gaussian of spectrum"]))
    assert "unknown sampling 'gausian'. Did you mean 'gaussian'?" in message
    assert "option 'rnk'" in refused(made(techniques={"lora": {"rnk": 1}, "adapter": {}}))
    nothing = str(tmp_path / "nothing")
    assert nothing in refused(made(other=nothing))
    assert nothing in refused(made(tasks={"films": nothing}))


def test_a_pair_of_the_same_weights_is_not_called_a_continuation(made, tiny_host):
    message = refused(made(other=tiny_host("t5")))
    assert "both hosts have the same weights" in message


def test_a_technique_that_a_host_cannot_have_is_refused_with_the_reason(made):
    message = refused(
        made(techniques={"compacter": {}}, training={"learning_rates": {"compacter": 0.1}})
    )
    assert "technique compacter on host a" in message
    assert "bottleneck" in message


def test_a_port_between_other_geometries_is_refused_with_the_reason(made, tiny_host):
    message = refused(made("t5", other=tiny_host("bert")))
    assert "pair a -> b: lora cannot be ported by copy" in message
    hosts = {"a": tiny_host("t5"), "b": tiny_host("bert")}
    apart = made("t5", other=hosts["b"], pairs=[{**PAIR, "methods": [], "controls": ["gaussian"]}],
                 conditions=["sampled"])  # fmt: skip
    assert "lora cannot be ported by gaussian" in refused(apart)


def test_tasks_of_other_numbers_of_classes_are_not_joined(made, tiny_task, tmp_path):
    rows = "\n".join(f"text {i},{i % 3}" for i in range(30))
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text(f"text,label\n{rows}\n")
    (tmp_path / "three.yaml").write_text(
        "splits: {train: train.csv, validation: validation.csv, test: test.csv}\n"
        "labels: {0: bad, 1: fine, 2: good}\n"
    )
    message = refused(
        made(
            tasks={"films": str(tiny_task), "three": str(tmp_path / "three.yaml")},
            settings=[{"origin_task": "films", "task": "three"}],
        )
    )
    assert "setting films -> three: a module for 2 classes cannot be tested on 3" in message


def test_true_classes_are_those_of_the_split_that_is_tested(made):
    facts = resolve(made(split="validation"), fetch=True)
    assert len(facts.gold["films"]) == 32
    assert len(resolve(made(split="validation", limit_test=7), fetch=True).gold["films"]) == 7


def test_texts_are_known_by_their_hash_where_a_port_method_looks_at_them(made, soft, tmp_path):
    texts = tmp_path / "some.txt"
    texts.write_text("\n\n".join(f"text number {i}" for i in range(20)))
    asked = {"techniques": {"lora": {}}, "methods": [soft], "texts": str(texts)}
    facts = resolve(made(**asked), fetch=True)
    assert (facts.looking, facts.texts.count) == ((soft,), 1000)
    assert facts.marks()[3] == {soft: facts.texts.mark}
    texts.write_text(texts.read_text() + "!")
    assert resolve(made(**asked), fetch=True).texts.mark != facts.texts.mark
    assert resolve(made(texts=str(texts)), fetch=True).texts is None
    assert "soft needs unlabelled texts" in refused(made(**{**asked, "texts": None}))


def test_a_study_goes_on_with_the_marks_of_weights_alone_that_it_was_begun_with(made):
    facts = resolve(made(), fetch=True)
    older = {
        "a": {"fingerprint": of_weights(facts.hosts["a"]["fingerprint"])},
        "b": {"fingerprint": "0" * 64},
    }
    found = as_begun(facts, older).hosts
    assert found["a"] == facts.hosts["a"] | older["a"]
    assert found["b"] == facts.hosts["b"]
    assert as_begun(facts, facts.hosts).hosts == facts.hosts


def recorded(folder, origin: str, steps: int) -> None:
    """Leave the record of a pretraining in a host's folder."""
    record = {"from": {"name": "x", "fingerprint": origin}, "steps": steps}
    (folder / "peftport_host.json").write_text(json.dumps(record))


def test_a_host_is_known_to_continue_another_from_its_record(
    made, tiny_host, tiny_continuation, tmp_path
):
    facts = resolve(made(), fetch=True)
    assert not {"parent", "continued"} & (set(facts.hosts["a"]) | set(facts.hosts["b"]))
    again = shutil.copytree(tiny_continuation("t5"), tmp_path / "again")
    recorded(again, facts.hosts["a"]["fingerprint"], 300)
    found = resolve(made(other=again), fetch=True).hosts
    assert (found["b"]["parent"], found["b"]["continued"]) == ("a", 300)
    assert "parent" not in found["a"]
    recorded(again, "another host's", 300)
    assert "parent" not in resolve(made(other=again), fetch=True).hosts["b"]


def test_of_a_line_of_hosts_those_between_need_not_stand_in_the_study(
    made, tiny_host, tiny_continuation, tmp_path
):
    """The steps of those that are left out count."""
    first = resolve(made(), fetch=True).hosts["a"]["fingerprint"]
    between = write_host("t5", tmp_path / "between", noise=0.2)
    recorded(between, first, 300)
    last = shutil.copytree(tiny_continuation("t5"), tmp_path / "last")
    record = {"from": {"name": str(between), "fingerprint": fingerprint(between)}, "steps": 20}
    (last / "peftport_host.json").write_text(json.dumps(record))
    found = resolve(made(other=last), fetch=True).hosts["b"]
    assert (found["parent"], found["continued"]) == ("a", 320)


def test_a_specification_says_what_continues_what_where_no_record_does(made):
    found = resolve(made(continued={"b": {"of": "a", "amount": 2}}), fetch=True).hosts
    assert (found["b"]["parent"], found["b"]["continued"]) == ("a", 2)
    found = resolve(made(continued={"b": {"of": "a"}}), fetch=True).hosts
    assert found["b"]["parent"] == "a"
    assert "continued" not in found["b"]
