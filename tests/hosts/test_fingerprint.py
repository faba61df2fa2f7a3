"""A fingerprint is of weights and settings; what is not whole safetensors is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from transformers import T5ForConditionalGeneration

from peftport.errors import BadInput
from peftport.hosts.fingerprint import (
    _weights_mark,
    fingerprint,
    of_weights,
    read_header,
    same_host,
    shown,
    weight_files,
    weights_mark,
)
from peftport.hosts.quiet import quiet_transformers

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tiny_host, tmp_path) -> Path:
    """A copy of a tiny host that a test may change."""
    return Path(shutil.copytree(tiny_host("t5-v1.0"), tmp_path / "host"))


def rewrite(folder: Path, **changes) -> None:
    """Write the weights again with some of them changed; None takes one away."""
    tensors = load_file(folder / FILE) | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / FILE, metadata={"format": "pt"})


def some_weight(folder: Path) -> tuple[str, torch.Tensor]:
    return sorted(load_file(folder / FILE).items())[3]


# What it depends on


def test_it_is_a_sha256_of_weights_and_one_of_settings_and_the_same_every_time(folder):
    mark = fingerprint(folder)
    weights, settings = mark.split("-")
    assert (len(weights), len(settings)) == (64, 16)
    assert int(weights, 16) and int(settings, 16)
    assert fingerprint(folder) == mark
    assert weights_mark(folder) == of_weights(mark) == weights


def test_it_does_not_depend_on_how_the_weights_lie_in_files(folder, tmp_path):
    with quiet_transformers():
        model = T5ForConditionalGeneration.from_pretrained(folder)
        model.save_pretrained(tmp_path / "whole")
        model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = weight_files(tmp_path / "shards")
    assert len(shards) > 2
    assert fingerprint(tmp_path / "shards") == fingerprint(tmp_path / "whole")


def test_it_does_not_depend_on_the_file_s_metadata_or_on_other_files(folder):
    before = fingerprint(folder)
    (folder / "notes.txt").write_text("x")
    save_file(load_file(folder / FILE), folder / FILE, metadata={"format": "pt", "by": "me"})
    assert fingerprint(folder) == before


def test_the_least_change_of_one_number_changes_it(folder):
    before = fingerprint(folder)
    name, tensor = some_weight(folder)
    tensor.flatten()[0] = torch.nextafter(tensor.flatten()[0], torch.tensor(torch.inf))
    rewrite(folder, **{name: tensor})
    assert fingerprint(folder) != before


def test_names_types_and_shapes_count(folder):
    marks = [fingerprint(folder)]
    name, tensor = some_weight(folder)
    for changes in (
        {name: None, f"{name}.other": tensor},
        {f"{name}.other": None, name: tensor[None]},
        {name: tensor.view(torch.int32)},
        {name: None},
    ):
        rewrite(folder, **changes)
        marks.append(fingerprint(folder))
    assert len(set(marks)) == 5


def test_large_hosts_are_sampled_and_a_trained_one_is_told_apart(folder, tmp_path, monkeypatch):
    whole = fingerprint(folder)
    _weights_mark.cache_clear()  # it keeps the marks of files, however they were made
    monkeypatch.setattr("peftport.hosts.fingerprint.READ_WHOLE", 0)
    monkeypatch.setattr("peftport.hosts.fingerprint.PAGE", 64)
    monkeypatch.setattr("peftport.hosts.fingerprint.PAGES", 3)
    name, tensor = max(load_file(folder / FILE).items(), key=lambda item: item[1].numel())
    assert tensor.nbytes > 3 * 64
    marks = [whole, fingerprint(folder)]
    for place in (0, -1, slice(None)):
        changed = tensor.clone()
        changed.flatten()[place] += 1
        rewrite(folder, **{name: changed})
        marks.append(fingerprint(folder))
    assert len(set(marks)) == 5
    with quiet_transformers():
        model = T5ForConditionalGeneration.from_pretrained(folder)
        model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert fingerprint(tmp_path / "shards") == marks[-1]


# Settings


def configured(folder: Path, **keys) -> str:
    """The fingerprint with some keys of the configuration set; None takes one away."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return fingerprint(folder)


REACHING = {
    "t5-v1.0": {
        "layer_norm_epsilon": 1e-3,
        "decoder_start_token_id": 2,
        "relative_attention_max_distance": 16,
        "feed_forward_proj": "gated-gelu",
        "scale_decoder_outputs": False,
        "never_heard_of": 3,
    },
    "llama": {"rms_norm_eps": 1e-3, "rope_parameters": {"rope_theta": 99.0}, "hidden_act": "relu"},
    "roberta": {"layer_norm_eps": 1e-3, "pad_token_id": 0, "hidden_act": "relu"},
    "gpt2": {"layer_norm_epsilon": 1e-3, "scale_attn_weights": False},
}
EACH = [(family, key) for family, keys in REACHING.items() for key in keys]


@pytest.mark.parametrize(("family", "key"), EACH)
def test_what_reaches_the_outputs_changes_it(family, key, tiny_host, tmp_path):
    folder = Path(shutil.copytree(tiny_host(family), tmp_path / "host"))
    before = fingerprint(folder)
    after = configured(folder, **{key: REACHING[family][key]})
    assert after != before
    assert of_weights(after) == of_weights(before)
    assert not same_host(before, after)
    assert shown(before) != shown(after)


def test_what_says_how_a_host_was_run_trained_or_saved_does_not_change_it(folder):
    before = fingerprint(folder)
    without_effect = {
        "_attn_implementation": "eager",
        "attn_implementation": "sdpa",
        "_name_or_path": "somewhere/else",
        "transformers_version": "9.9.9",
        "dtype": "bfloat16",
        "torch_dtype": "float16",
        "use_cache": False,
        "output_hidden_states": True,
        "return_dict": False,
        "dropout_rate": 0.5,
        "classifier_dropout": 0.5,
        "architectures": ["Another"],
        "id2label": {"0": "bad", "1": "good"},
        "max_length": 7,
        "initializer_factor": 0.1,
    }
    for key, value in without_effect.items():
        assert configured(folder, **{key: value}) == before, key


def test_a_default_that_is_written_down_is_the_same_as_one_that_is_not(folder):
    before = configured(folder, layer_norm_epsilon=None)
    assert configured(folder, layer_norm_epsilon=1e-6) == before


def test_an_older_mark_names_every_host_with_its_weights(folder):
    old, before = weights_mark(folder), fingerprint(folder)
    after = configured(folder, layer_norm_epsilon=1e-3)
    assert same_host(old, before) and same_host(after, old) and not same_host(before, after)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "never-heard-of"}, r"transformers has no model of type 'never-heard-of'"),
        ({"num_layers": "three"}, r"none that transformers can make a t5 of: .*num_layers"),
    ],
)
def test_a_configuration_that_is_none_is_refused(keys, message, folder):
    with pytest.raises(BadInput, match=message):
        configured(folder, **keys)


# Where the weights are


def test_a_host_without_safetensors_is_refused(folder):
    (folder / FILE).rename(folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"has no model\.safetensors .* from safetensors only"):
        fingerprint(folder)


def test_one_file_goes_before_an_index_as_in_transformers(folder):
    before = fingerprint(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "another.safetensors"}}))
    assert fingerprint(folder) == before


def test_a_shard_that_is_missing_is_named(folder):
    (folder / FILE).rename(folder / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(BadInput, match=r"has no two\.safetensors, which model\.safetensors\.index"):
        fingerprint(folder)


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_refused(content, folder):
    (folder / FILE).unlink()
    (folder / INDEX).write_text(content)
    with pytest.raises(BadInput, match=f"{INDEX} does not say which weights"):
        fingerprint(folder)


# Files


WHOLE = save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}, {"k": "v"})


def written(folder: Path, data: bytes) -> Path:
    path = folder / FILE
    path.write_bytes(data)
    return path


def with_header(header: dict, data: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_the_header_tells_names_shapes_and_where_the_data_begin(tmp_path):
    header, start = read_header(written(tmp_path, WHOLE))
    assert {name: entry["shape"] for name, entry in header.items()} == {"a": [2, 3], "b": [4]}
    assert start == len(WHOLE) - 4 * (6 + 4)


@settings(deadline=None, derandomize=True, database=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_at_any_place_is_refused(tmp_path_factory, length):
    path = written(tmp_path_factory.mktemp("cut"), WHOLE[:length])
    with pytest.raises(BadInput, match=f"{path} is not a whole safetensors file"):
        read_header(path)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
CORRUPT = {
    "one byte too much": WHOLE + b"\0",
    "a pickle": pickle.dumps({"a": [1.0] * 99}),
    "a header of ten gigabytes": struct.pack("<Q", 10_000_000_000) + b"{}",
    "a header of all there can be": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a header that is no JSON": struct.pack("<Q", 4) + b"{{{{",
    "a header that is a list": struct.pack("<Q", 2) + b"[]",
    "a header of text that is no text": struct.pack("<Q", 2) + b"\xff\xfe",
    "a shape of more than there is": with_header({"a": ENTRY | {"shape": [3]}}),
    "a type of more than there is": with_header({"a": ENTRY | {"dtype": "F64"}}),
    "an entry without a type": with_header({"a": {"shape": [2], "data_offsets": [0, 8]}}),
    "an entry without a shape": with_header({"a": {"dtype": "F32", "data_offsets": [0, 8]}}),
    "an entry without a place": with_header({"a": {"dtype": "F32", "shape": [2]}}),
    "an entry that is a number": with_header({"a": 8}),
    "two tensors in one place": with_header({"a": ENTRY, "b": ENTRY}),
    "a hole": with_header({"a": ENTRY | {"data_offsets": [8, 16]}}, b"\0" * 16),
    "a place that ends before it begins": with_header({"a": ENTRY | {"data_offsets": [8, 0]}}),
}


@pytest.mark.parametrize("data", CORRUPT.values(), ids=CORRUPT.keys())
def test_a_corrupt_file_is_refused_without_being_read(tmp_path, data):
    path = written(tmp_path, data)
    with pytest.raises(BadInput, match=f"{path} is not a whole safetensors file: .*pickles"):
        read_header(path)


def test_the_entry_of_the_corrupt_files_is_itself_whole(tmp_path):
    header, _ = read_header(written(tmp_path, with_header({"a": ENTRY})))
    assert header == {"a": ENTRY}


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        read_header(tmp_path / FILE)
    (tmp_path / FILE).mkdir()
    with pytest.raises(BadInput, match="is a folder, expected a file"):
        read_header(tmp_path / FILE)
