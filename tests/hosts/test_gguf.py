"""A GGUF file is a host: read through transformers, dequantised once, named by the file's hash."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from peftport.errors import BadInput
from peftport.hosts import find_host, geometry_by_name, load_host
from peftport.hosts.fingerprint import fingerprint
from peftport.hosts.genealogy import relation_of
from peftport.hosts.gguf import require_possible, unpacked
from peftport.hosts.kinship import distance
from peftport.hosts.weights import Weights
from peftport.modules import HostName, Module
from peftport.porting import port
from peftport.porting.means import Means, side
from techniques.references import batch, our_answer
from tiny_gguf import write_gguf
from tiny_runs import host_in

pytest.importorskip("gguf", reason="the package gguf is not installed")


@pytest.fixture(scope="module")
def file(tiny_host, tmp_path_factory) -> Path:
    return write_gguf(tiny_host("qwen2"), tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_a_gguf_file_is_a_host_near_the_one_that_it_was_made_from(file, tiny_host):
    plain, host = host_in(tiny_host("qwen2")), load_host(str(file))
    assert host.geometry == plain.geometry == geometry_by_name(str(file))
    inputs = batch(plain.tokenizer)
    assert batch(host.tokenizer)["input_ids"].tolist() == inputs["input_ids"].tolist()
    wanted = our_answer(plain, inputs)
    found = our_answer(host, inputs)
    assert 0 < (found - wanted).abs().max() < 0.1 * wanted.std()


def test_it_and_the_host_that_it_was_made_from_are_two_of_one_genealogy(file, tiny_host):
    folder = find_host(str(file)).files()
    assert fingerprint(folder) != fingerprint(tiny_host("qwen2"))
    assert relation_of(tiny_host("qwen2"), "", folder) == "continuation"
    assert relation_of(folder, "", tiny_host("qwen2")) == "continuation"
    assert distance(tiny_host("qwen2"), folder) < 0.02


def test_its_fingerprint_is_the_file_s(file, tiny_host):
    found = fingerprint(find_host(str(file)).files())
    assert found.startswith(hashlib.sha256(file.read_bytes()).hexdigest())
    assert load_host(str(file)).fingerprint == found


def test_a_record_of_a_file_counts_in_the_cache_alone(file, tmp_path):
    folder = find_host(str(file)).files()
    shutil.copytree(folder, tmp_path / "copied")
    assert fingerprint(tmp_path / "copied") != fingerprint(folder)


def test_a_folder_with_one_file_is_that_file_and_with_two_is_refused(file, tmp_path):
    (tmp_path / "one").mkdir()
    shutil.copy(file, tmp_path / "one")
    assert find_host(str(tmp_path / "one")).files() == find_host(str(file)).files()
    shutil.copy(file, tmp_path / "one" / "other.gguf")
    with pytest.raises(BadInput, match=r"several GGUF files: other\.gguf, tiny\.gguf"):
        find_host(str(tmp_path / "one"))


def test_what_is_no_gguf_file_is_refused(tmp_path):
    (tmp_path / "host.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(BadInput, match=r"host\.gguf is no whole GGUF file: it is of version 0"):
        geometry_by_name(str(tmp_path / "host.gguf"))


@pytest.mark.parametrize("method", ["copy", "subspace"])
@pytest.mark.parametrize("onward", [True, False])
def test_modules_go_to_it_and_come_from_it(method, onward, file, tiny_host):
    from porting.test_subspace import module_of

    names = (str(tiny_host("qwen2")), str(file))
    origin, receiver = (load_host(name) for name in (names if onward else names[::-1]))
    module: Module = module_of("lora", origin, _task())
    assert isinstance(next(iter(Weights(receiver.folder).values())), torch.Tensor)
    means = Means(side(origin.name), side(receiver.name))
    name = HostName(name=receiver.name, fingerprint=receiver.fingerprint)
    options = {"rank": 512} if method == "subspace" else {}
    ported = port(module, receiver.geometry, name, method, options=options, means=means)
    assert ported.account.problem is None


def _task():
    from types import SimpleNamespace

    return SimpleNamespace(
        record=lambda: {"name": "opinions", "labels": [0, 1], "label_words": None}
    )


def test_what_another_process_has_dequantised_meanwhile_is_taken(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTPORT_CACHE", str(tmp_path))

    def read_by_two(*given):
        monkeypatch.setattr("peftport.hosts.gguf.require_possible", require_possible)
        unpacked(file)  # the other process, which is done first
        require_possible(*given)

    monkeypatch.setattr("peftport.hosts.gguf.require_possible", read_by_two)
    folder = unpacked(file)
    assert (folder / "config.json").is_file()
    assert unpacked(file) == folder
