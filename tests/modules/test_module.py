"""A module is a folder that comes back as it went, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftport.errors import BadInput
from peftport.files import read_json
from peftport.modules import (
    HostName,
    Module,
    Record,
    expected_shapes,
    load_module,
    module,
    read_outline,
    read_record,
    versions,
)
from peftport.techniques import technique
from peftport.techniques.head import head_shapes
from techniques.references import drawn
from tiny_runs import CASES, host_in

TENSORS, RECORD = "module.safetensors", "module.json"


def made(host, case: str = "lora", **changes: Any) -> Module:
    """A module with drawn tensors, which is quicker than a trained one."""
    name, options = CASES[case]
    config = technique(name).configure(options)
    shapes = technique(name).shapes(config, host.geometry) | head_shapes(host.geometry, 2)
    host_name = HostName(name=host.name, fingerprint=host.fingerprint)
    record = Record(
        technique=name,
        config=config.model_dump(mode="json"),
        geometry=host.geometry.record(),
        host=host_name,
        origin=host_name,
        task={"name": "opinions", "labels": [0, 1], "label_words": ["terrible", "great"]},
        seed=7,
        training={"steps": 5, "learning_rate": 0.01},
        versions=versions(),
    )
    return Module(record.model_copy(update=changes), drawn(shapes))


@pytest.fixture
def saved(tiny_host, tmp_path) -> Path:
    """The folder of a module that a test may spoil."""
    made(host_in(tiny_host("bert"))).save(tmp_path / "module")
    return tmp_path / "module"


def spoil(folder: Path, **changes: torch.Tensor | None) -> None:
    """Write a module's tensors again with some of them changed; None takes one away."""
    tensors = load_file(folder / TENSORS)
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / TENSORS)


def spoil_record(folder: Path, **changes: Any) -> None:
    record = read_json(folder / RECORD) | changes
    (folder / RECORD).write_text(json.dumps(record))


# There and back


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["t5", "bert", "gpt2"])
def test_a_module_comes_back_as_it_was_saved(family, case, tiny_host, tmp_path):
    before = made(host_in(tiny_host(family)), case)
    before.save(tmp_path / "module")
    after = load_module(tmp_path / "module")
    assert after.record == before.record
    assert after.config == before.config
    assert after.geometry == host_in(tiny_host(family)).geometry
    assert list(after.tensors) == sorted(before.tensors)
    assert all(torch.equal(after.tensors[n], tensor) for n, tensor in before.tensors.items())
    assert read_outline(tmp_path / "module") == (before.record, expected_shapes(before.record))


def test_its_folder_holds_two_files_and_the_account_of_a_port(tiny_host, tmp_path):
    some = made(host_in(tiny_host("bert")))
    some.save(tmp_path / "one")
    some.save(tmp_path / "two", {"method": "copy"})
    assert sorted(os.listdir(tmp_path / "one")) == [RECORD, TENSORS]
    assert sorted(os.listdir(tmp_path / "two")) == ["account.json", RECORD, TENSORS]
    assert read_json(tmp_path / "two" / "account.json") == {"method": "copy"}


def test_its_record_says_where_it_is_from(saved, tiny_host):
    record = read_json(saved / RECORD)
    host = host_in(tiny_host("bert"))
    assert record["format"] == 1
    assert record["origin"] == {
        "name": host.name,
        "fingerprint": host.fingerprint,
        "tokenizer": "",  # of a module that was not trained here
    }
    assert record["geometry"] == host.geometry.record()
    assert record["task"]["label_words"] == ["terrible", "great"]
    assert set(record["versions"]) == {"python", "peftport", "torch", "transformers"}


def test_tensors_are_saved_that_lie_in_one_storage_or_crosswise(tiny_host, tmp_path):
    """What folding gives are parts of one tensor; a prefix of one position is the narrow case."""
    some = made(host_in(tiny_host("llama")), "prefix", config={"length": 1})
    flat = torch.arange(4 * 16.0)[None]
    names = sorted(expected_shapes(some.record))
    parts = dict(zip(names, flat.split(16, dim=-1), strict=True))
    Module(some.record, parts).save(tmp_path / "parts")
    loaded = load_module(tmp_path / "parts").tensors
    assert torch.cat([loaded[name][0] for name in names]).tolist() == flat[0].tolist()
    crosswise = {name: tensor.T.contiguous().T for name, tensor in some.tensors.items()}
    Module(some.record, crosswise | parts).save(tmp_path / "crosswise")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_read_as_float32(saved, dtype):
    before = load_file(saved / TENSORS)
    spoil(saved, **{name.replace(".", "__"): t.to(dtype) for name, t in before.items()})
    loaded = load_module(saved).tensors
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], t.to(dtype).float()) for name, t in before.items())


def test_a_loaded_module_no_longer_depends_on_its_file(saved):
    loaded = load_module(saved)
    size = (saved / TENSORS).stat().st_size
    before = {name: tensor.clone() for name, tensor in loaded.tensors.items()}
    with (saved / TENSORS).open("r+b") as file:
        file.write(b"\0" * size)
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in before.items())


# Whole or not at all


def test_what_exists_is_not_written_over(saved, tiny_host):
    before = (saved / TENSORS).read_bytes()
    with pytest.raises(BadInput, match="exists already"):
        made(host_in(tiny_host("bert")), "houlsby").save(saved)
    assert (saved / TENSORS).read_bytes() == before


@pytest.mark.parametrize("step", ["save_file", "write_json"])
def test_a_failure_while_saving_leaves_nothing(step, tiny_host, tmp_path, monkeypatch):
    def fail(*_args: Any, **_named: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(module, step, fail)
    with pytest.raises(OSError, match="no space left"):
        made(host_in(tiny_host("bert"))).save(tmp_path / "module")
    assert os.listdir(tmp_path) == []


def test_a_kill_while_saving_leaves_nothing_at_the_target(saved, tmp_path):
    target = tmp_path / "copy"
    script = (
        "import sys, time; from pathlib import Path; from peftport.modules import module\n"
        f"some = module.load_module({str(saved)!r})\n"
        "module.write_json = lambda *_: (print('half', flush=True), time.sleep(60))\n"
        f"some.save(Path({str(target)!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    assert load_module(saved)


# What is none


def header_of_ten_gigabytes(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 10_000_000_000) + path.read_bytes()[8:])


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(dict.fromkeys(map(str, range(99)), 1.0)))


def pickled_by_torch(path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    torch.save(tensors, path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_within_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "corrupt",
    [
        header_of_ten_gigabytes,
        pickled,
        pickled_by_torch,
        truncated,
        cut_within_the_header,
        emptied,
    ],
)
@pytest.mark.parametrize("read", [load_module, read_outline])
def test_a_file_that_is_not_whole_safetensors_is_refused(saved, corrupt, read):
    corrupt(saved / TENSORS)
    with pytest.raises(BadInput, match=rf"{saved / TENSORS} is not a whole safetensors file: \w"):
        read(saved)


A, B = "encoder.1.self.q.lora_A", "encoder.1.self.v.lora_B"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({A: None}, rf"lacks '{A}' \(1 tensors missing, 0 surplus\)"),
        ({"head.bias": None}, "lacks 'head.bias'"),
        ({"more": torch.ones(1)}, r"has 'more' too much \(0 tensors missing, 1 surplus\)"),
        ({A: torch.ones(5, 32)}, rf"tensor '{A}' has shape \(5, 32\), expected \(4, 32\)"),
        ({A: torch.ones(32, 4)}, rf"tensor '{A}' has shape \(32, 4\), expected \(4, 32\)"),
        ({"head.weight": torch.ones(3, 32)}, r"'head.weight' has shape \(3, 32\)"),
        (
            {B: torch.ones(32, 4, dtype=torch.int64)},
            f"tensor '{B}' is of type I64, expected floats",
        ),
        ({B: torch.ones(32, 4, dtype=torch.bool)}, f"tensor '{B}' is of type BOOL"),
        ({B: torch.full((32, 4), torch.nan)}, f"tensor '{B}' has values that are not finite"),
        ({B: torch.full((32, 4), -torch.inf)}, f"tensor '{B}' has values that are not finite"),
    ],
)
def test_tensors_that_do_not_belong_are_refused_by_name(saved, changes, message):
    spoil(saved, **{name.replace(".", "__"): tensor for name, tensor in changes.items()})
    with pytest.raises(BadInput, match=message) as error:
        load_module(saved)
    assert str(saved / TENSORS) in str(error.value)
    with pytest.raises(BadInput) as from_outline:
        read_outline(saved)
    assert str(from_outline.value) == str(error.value)


@pytest.mark.parametrize("read", [load_module, read_outline])
def test_one_number_that_is_not_finite_is_enough(saved, read):
    tensor = load_file(saved / TENSORS)[B]
    tensor[17, 2] = torch.nan
    spoil(saved, **{B.replace(".", "__"): tensor})
    with pytest.raises(BadInput, match="not finite"):
        read(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"format": 2}, "format 2, expected 1"),
        ({"format": None}, "format None, expected 1"),
        ({"host": {"name": "x"}}, r"host\.fingerprint: Field required"),
        ({"seed": "many"}, "seed: Input should be a valid integer"),
        ({"task": {}}, r"task\.name: Field required"),
        ({"task": {"name": "x", "labels": 2}}, r"task\.labels: Input should be a valid list"),
        ({"technique": "loar"}, "unknown technique 'loar'. Did you mean 'lora'"),
        ({"config": {"rnk": 4}}, "technique lora: option 'rnk'"),
        ({"config": {"rank": 0}}, "technique lora: option 'rank'"),
        ({"config": {"targets": ["nose"]}}, "lora: no linear layer called 'nose'"),
        ({"geometry": {}}, "the geometry cannot be read: it has no 'stacks'"),
        ({"geometry": {"stacks": {"decoder": 1}, "width": "64"}}, "the geometry cannot be read: "),
    ],
)
def test_a_record_that_says_something_else_is_refused_by_its_key(saved, changes, message):
    spoil_record(saved, **changes)
    with pytest.raises(BadInput, match=f"{saved / RECORD}: {message}"):
        load_module(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"rank": 5}}, r"has shape \(4, 32\), expected \(5, 32\)"),
        ({"config": {"rank": 4, "targets": ["k"]}}, r"lacks 'encoder\.0\.self\.k\.lora_A'"),
        ({"task": {"name": "x", "labels": [0, 1, 2]}}, r"'head.weight' has shape \(2, 32\)"),
    ],
)
def test_a_record_of_another_module_is_refused(saved, changes, message):
    spoil_record(saved, **changes)
    with pytest.raises(BadInput, match=message):
        load_module(saved)


def test_a_module_of_another_geometry_is_refused(saved, tiny_host):
    spoil_record(saved, geometry=host_in(tiny_host("llama")).geometry.record())
    with pytest.raises(BadInput, match=r"lacks 'decoder\.0\.self\.q\.lora_A'"):
        load_module(saved)
    wider = host_in(tiny_host("bert")).geometry.record() | {"width": 64}
    spoil_record(saved, geometry=wider)
    with pytest.raises(BadInput, match=r"has shape \(4, 32\), expected \(4, 64\)"):
        load_module(saved)


@pytest.mark.parametrize("content", ["[]", "3", "null", "{", ""])
def test_a_record_that_is_no_object_is_refused(saved, content):
    (saved / RECORD).write_text(content)
    with pytest.raises(BadInput, match=RECORD) as refused:
        read_record(saved)
    assert "Record(" not in str(refused.value), "no word of our own code"


def test_a_host_without_weights_is_taken_as_it_is_named_with_a_notice(
    saved, tiny_host, tmp_path, caplog
):
    """As where a configuration alone is there: `check` reads no more."""
    (tmp_path / "host").mkdir()
    shutil.copy(tiny_host("bert") / "config.json", tmp_path / "host")
    assert read_record(saved, str(tmp_path / "host")).host.name == str(tmp_path / "host")
    assert "is not at hand with its weights" in caplog.text


def test_a_folder_that_is_no_module_s_is_refused(tmp_path, saved):
    with pytest.raises(BadInput, match="was not found"):
        load_module(tmp_path / "nothing")
    with pytest.raises(BadInput, match=f"has no {RECORD}: it is not a module's folder"):
        load_module(tmp_path)
    (saved / TENSORS).unlink()
    with pytest.raises(BadInput, match=f"{TENSORS} does not exist"):
        load_module(saved)
