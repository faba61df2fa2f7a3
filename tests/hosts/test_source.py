"""A host is found by name without being loaded, and its geometry without its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from families import FAMILIES
from peftport.errors import BadInput
from peftport.hosts import find_host, geometry_by_name
from tiny_runs import host_in


def test_a_folder_with_a_configuration_is_a_host(tiny_host):
    found = find_host(str(tiny_host("bert")))
    assert (found.origin, found.folder, found.files()) == ("folder", *[tiny_host("bert")] * 2)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"has no config\.json: it is not a transformers model"):
        find_host(str(tmp_path))


@pytest.mark.parametrize("name", ["./missing", "/no/such/folder", "../missing"])
def test_a_path_at_which_nothing_is_is_not_asked_of_the_hub(name):
    with pytest.raises(
        BadInput, match=rf"host '{name}' was not found: /.* does not exist\. Name a folder"
    ):
        find_host(name)


def test_a_file_is_no_host(tmp_path):
    (tmp_path / "model.bin").write_text("x")
    with pytest.raises(BadInput, match=r"is none: .* is something else"):
        find_host(str(tmp_path / "model.bin"))


def test_any_other_name_is_the_hub_s_and_is_not_fetched_yet():
    found = find_host("google/t5-v1_1-base")
    assert (found.name, found.origin, found.folder) == ("google/t5-v1_1-base", "hub", None)


def test_what_the_hub_does_not_give_is_bad_input_that_says_why():
    with pytest.raises(
        BadInput, match=r"host 'no/such-model' was not found: .*; the hub was not asked"
    ):
        find_host("no/such-model").files()
    with pytest.raises(
        BadInput, match=r"host 'not a name' was not found: .*; it is no name on the hub"
    ):
        find_host("not a name").files()


@pytest.mark.parametrize(
    ("name", "asked"), [("a/b", ("a/b", None)), ("a/b@v2", ("a/b", "v2")), ("a/b@", ("a/b", None))]
)
@pytest.mark.parametrize("weights", [True, False])
def test_the_hub_is_asked_for_the_revision_and_for_no_pickles(
    name, asked, weights, monkeypatch, tmp_path
):
    calls = []

    def download(repo, revision=None, allow_patterns=()):
        calls.append((repo, revision))
        assert ("*.safetensors" in allow_patterns) == weights
        assert {"*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"} <= set(allow_patterns)
        assert not {"*", "*.bin", "*.pt", "*.pkl"} & set(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_host(name).files(weights=weights) == tmp_path
    assert calls == [asked]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_geometry_needs_the_configuration_alone(family, tiny_host, tmp_path):
    shutil.copy(tiny_host(family) / "config.json", tmp_path)
    assert geometry_by_name(str(tmp_path)) == host_in(tiny_host(family)).geometry


@pytest.mark.parametrize(("family", "key"), [("qwen3", "head_dim"), ("gpt2", "n_inner")])
def test_what_a_configuration_leaves_out_is_the_family_s_default(family, key, tiny_host, tmp_path):
    config = json.loads((tiny_host(family) / "config.json").read_text())
    del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = geometry_by_name(str(tmp_path))
    name, value = {"head_dim": ("head_dim", 128)}.get(key, ("ffn", 4 * 32))
    assert getattr(found, name) == value


@pytest.mark.parametrize("content", ["[]", '"text"', "{", ""])
def test_a_configuration_that_is_none_is_refused(content: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput, match=r"config\.json is not"):
        geometry_by_name(str(tmp_path))


def test_lab_hosts_are_found_by_their_names():
    from peftport import lab

    found = find_host(f"lab:{lab.NAMES[0]}")
    assert found.origin == "lab"
    assert found.folder == lab.folder(lab.NAMES[0])
    with pytest.raises(BadInput, match="Did you mean 'small-twin'"):
        find_host("lab:small-twn")
    assert find_host("lab").origin == "hub"


@pytest.mark.parametrize(
    ("family", "left_out"),
    [("gpt2", "n_embd"), ("llama", "num_attention_heads"), ("t5", "d_ff"), ("bert", "hidden_size")],
)
def test_weights_of_another_size_than_a_configuration_says_are_no_host(
    family, left_out, tiny_host, tmp_path
):
    """What a configuration leaves out the model class makes up, and the weights know better."""
    host = tmp_path / "host"
    shutil.copytree(tiny_host(family), host)
    config = json.loads((host / "config.json").read_text())
    del config[left_out]
    (host / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"makes .*\.weight of the shape .* do not belong together"):
        geometry_by_name(str(host))


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bert", "electra", "distilbert"])
@pytest.mark.parametrize("more", [-1, 1])
def test_a_vocabulary_of_another_size_than_a_configuration_says_is_no_host(
    family, more, tiny_host, tmp_path
):
    host = tmp_path / "host"
    shutil.copytree(tiny_host(family), host)
    config = json.loads((host / "config.json").read_text())
    config["vocab_size"] += more
    (host / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"a vocabulary of .* has .* rows: they do not belong"):
        geometry_by_name(str(host))
