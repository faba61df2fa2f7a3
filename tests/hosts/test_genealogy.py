"""How hosts are related, out of records, fingerprints and statements: one answer for everybody."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import given
from hypothesis import strategies as st

from peftport.errors import BadInput
from peftport.files import write_json
from peftport.hosts.fingerprint import fingerprint, weights_mark
from peftport.hosts.genealogy import (
    RECORD,
    Genealogy,
    folder_at_hand,
    recorded,
    relation_of,
    settled,
)
from peftport.lab import folder
from tiny_hosts import write_host

# base -> mid -> leaf, base -> sibling; other -> grown; stray continues a host nobody knows.
KNOWN = Genealogy(
    {
        "base": None,
        "mid": "base",
        "leaf": "mid",
        "sibling": "base",
        "other": None,
        "grown": "other",
        "stray": "lost",
        "cousin": "lost",
    },
    {"mid": 100, "leaf": 50, "grown": 7},
)


@pytest.mark.parametrize(
    ("one", "other", "relation"),
    [
        ("leaf", "leaf", "same"),
        ("unheard", "unheard", "same"),
        ("base", "mid", "continuation"),
        ("base", "leaf", "continuation"),
        ("leaf", "sibling", "continuation"),
        ("stray", "cousin", "continuation"),
        ("stray", "lost", "continuation"),
        ("base", "other", "independent"),
        ("leaf", "grown", "independent"),
        ("base", "stray", None),
        ("base", "unheard", None),
        ("lost", "unheard", None),
    ],
)
def test_relations_are_the_same_either_way_around(one, other, relation):
    assert KNOWN.relation(one, other) == KNOWN.relation(other, one) == relation


@pytest.mark.parametrize(
    ("origin", "receiver", "direction"),
    [
        ("base", "leaf", "onward"),
        ("leaf", "base", "back"),
        ("leaf", "sibling", "onward"),  # siblings go by the alphabet
        ("sibling", "leaf", "back"),
    ],
)
def test_directions_follow_what_continues_what_then_the_alphabet(origin, receiver, direction):
    assert KNOWN.direction(origin, receiver) == direction


@pytest.mark.parametrize(
    ("origin", "receiver", "amount"),
    [
        ("base", "leaf", 150),
        ("mid", "leaf", 50),
        ("leaf", "leaf", 0),
        ("leaf", "base", None),
        ("base", "sibling", None),
        ("leaf", "sibling", None),
    ],
)
def test_amounts_add_up_and_are_not_known_where_a_step_is_not(origin, receiver, amount):
    assert KNOWN.amount(origin, receiver) == amount


def test_ancestors_are_named_from_the_nearest_on():
    assert KNOWN.ancestors("leaf") == ("mid", "base")
    assert KNOWN.ancestors("base") == KNOWN.ancestors("unheard") == ()


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdef")))
def test_circles_end(parents):
    known = Genealogy(parents)
    for one in "abcdef":
        assert len(set(known.line(one))) == len(known.line(one))
        for other in "abcdef":
            assert known.relation(one, other) == known.relation(other, one) != "independent"


@given(st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=1, max_size=7))
def test_in_a_forest_hosts_are_independent_or_share_a_root(places):
    """A host continues one that was made before it, or none."""
    parents = {
        str(host): None if place is None or place >= host else str(place)
        for host, place in enumerate(places)
    }
    known = Genealogy(parents)
    for one in parents:
        for other in parents:
            alike = known.line(one)[-1] == known.line(other)[-1]
            wanted = "same" if one == other else "continuation" if alike else "independent"
            assert known.relation(one, other) == wanted


@pytest.fixture
def line(tiny_host, tiny_continuation, tmp_path) -> dict[str, Path]:
    """Folders: a host, two continuations of it that record it, and a continuation of one."""
    places = {
        "base": Path(shutil.copytree(tiny_host("t5"), tmp_path / "base")),
        "mid": Path(shutil.copytree(tiny_continuation("t5"), tmp_path / "mid")),
        "sibling": write_host("t5", tmp_path / "sibling", noise=0.1),
        "leaf": write_host("t5", tmp_path / "leaf", noise=0.2),
        "unrelated": write_host("t5", tmp_path / "unrelated", seed=3),
    }
    for child, parent, steps in (("mid", "base", 10), ("sibling", "base", 20), ("leaf", "mid", 5)):
        said = {"name": str(places[parent]), "fingerprint": fingerprint(places[parent])}
        write_json(places[child] / RECORD, {"from": said, "steps": steps})
    return places


@pytest.mark.parametrize(
    ("one", "other", "relation"),
    [
        ("base", "base", "same"),
        ("mid", "base", "continuation"),
        ("mid", "sibling", "continuation"),
        ("leaf", "base", "continuation"),
        ("leaf", "sibling", "continuation"),
        ("base", "unrelated", None),
    ],
)
def test_records_tell_relations_also_through_hosts_between(one, other, relation, line):
    for origin, receiver in ((one, other), (other, one)):
        assert relation_of(line[origin], "", line[receiver]) == relation


def test_records_tell_amounts_and_directions(line):
    known = recorded(line["leaf"])
    base, leaf = weights_mark(line["base"]), weights_mark(line["leaf"])
    assert known.amount(base, leaf) == 15
    assert known.direction(base, leaf) == "onward"
    assert known.direction(leaf, base) == "back"


def test_a_host_that_is_gone_is_known_by_its_fingerprint_alone(line):
    mark = fingerprint(line["base"])
    assert relation_of(None, weights_mark(line["base"]), line["mid"]) == "continuation"
    assert relation_of(None, mark, line["mid"]) == "continuation"
    assert relation_of(None, mark, line["base"]) == "same"
    assert relation_of(None, mark, line["leaf"]) == "continuation"
    assert relation_of(None, "", line["mid"]) is None


def test_a_host_between_whose_weights_have_changed_is_not_followed(line):
    write_host("t5", line["mid"], noise=0.9)
    known = recorded(line["leaf"], line["base"])
    assert known.relation(weights_mark(line["leaf"]), weights_mark(line["base"])) is None


def test_where_records_say_nothing_near_weights_do(line, tmp_path):
    shutil.rmtree(line["mid"])
    near, far = (write_host("t5", tmp_path / str(n), noise=n, seed=0) for n in (0.1, 0.9))
    assert relation_of(near, "", line["base"]) == "continuation"
    assert relation_of(far, "", line["base"]) is None
    # The folder of a host that was another one when the module was made says nothing of that one.
    assert relation_of(near, "0" * 64, line["base"]) is None


def test_hosts_made_from_scratch_are_independent(line):
    for name in ("base", "unrelated"):
        write_json(line[name] / RECORD, {"from": None, "steps": 3})
    assert relation_of(line["leaf"], "", line["unrelated"]) == "independent"
    assert relation_of(line["base"], "", line["unrelated"]) == "independent"


@pytest.mark.parametrize(
    "odd",
    [["not", "a", "record"], {}, {"from": "lab:small"}, {"from": {}}, {"from": {"fingerprint": 3}}],
)
def test_an_odd_record_says_nothing(odd, line):
    write_json(line["unrelated"] / RECORD, odd)
    assert recorded(line["unrelated"]) == Genealogy({})


def test_the_lab_s_hosts_are_related_as_they_were_made():
    small, tuned, twin = (folder(name) for name in ("small", "small-tuned", "small-twin"))
    assert relation_of(small, "", tuned) == relation_of(tuned, "", small) == "continuation"
    assert relation_of(small, "", twin) == relation_of(tuned, "", twin) == "independent"


def test_a_statement_goes_before_records_but_not_before_weights(caplog):
    assert settled(None, "continuation", "it") == "continuation"
    assert settled("continuation", None, "it") == "continuation"
    assert settled("continuation", "continuation", "it") == "continuation"
    assert settled(None, None, "it") is None
    assert not caplog.records
    assert settled("independent", "continuation", "it") == "independent"
    assert "it is called 'independent', but both hosts come from one pretraining" in caplog.text
    assert settled("continuation", "independent", "it") == "continuation"
    assert "it is called 'continuation', but both hosts were each made from" in caplog.text
    with pytest.raises(BadInput, match="it is called 'independent', but both hosts have the same"):
        settled("independent", "same", "it")
    with pytest.raises(BadInput, match="it is called 'same', but both hosts do not have the same"):
        settled("same", "continuation", "it")


def test_only_hosts_on_this_machine_are_at_hand(tiny_host, tmp_path):
    assert folder_at_hand("lab:small") == folder("small")
    assert folder_at_hand(str(tiny_host("t5"))) == tiny_host("t5")
    assert folder_at_hand("someone/elsewhere") is None
    assert folder_at_hand(str(tmp_path / "nothing")) is None
    assert folder_at_hand("lab:nothing") is None


def test_a_host_in_the_hub_s_cache_is_at_hand_where_its_weights_are(
    tiny_host, tmp_path, monkeypatch
):
    whole, without = tiny_host("t5"), tmp_path / "without"
    without.mkdir()
    (without / "config.json").write_bytes((whole / "config.json").read_bytes())
    cached = {"some/host": whole, "some/configuration": without}

    def snapshot(name, revision=None, local_files_only=False):
        assert local_files_only, "nothing is fetched to look at it"
        if name not in cached:
            raise LocalEntryNotFoundError("it is not in the cache")
        return str(cached[name])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert folder_at_hand("some/host") == whole
    assert folder_at_hand("some/configuration") is None
    assert folder_at_hand("some/other@v2") is None
