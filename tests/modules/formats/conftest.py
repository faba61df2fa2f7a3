"""Hosts that the tests of formats need besides the tiny ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.formats.modules import GOLDEN, change, made
from peftport.hosts.source import geometry_by_name
from peftport.modules import formats
from tiny_hosts import drawn_like, write_host
from tiny_runs import host_in


@pytest.fixture(scope="session")
def host_with_pooler(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from an encoder's family to the folder of its tiny host with a pooler, as
    checkpoints of BERT have one."""

    @cache
    def host(family: str) -> Path:
        folder = write_host(family, tmp_path_factory.mktemp("with_pooler") / family)
        tensors = load_file(folder / "model.safetensors")
        for name, shape in {"weight": (32, 32), "bias": (32,)}.items():
            key = f"{geometry_by_name(str(folder)).prefix}.pooler.dense.{name}"
            tensors[key] = drawn_like(torch.empty(shape), key) * (1.0 if len(shape) == 1 else 0.6)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return host


@pytest.fixture
def written(tiny_host, tmp_path):
    """A function that writes a module in a format, as the other library would have: without the
    record that peftport keeps beside it."""

    def write(name: str, family: str, case: str, **named: Any) -> Path:
        folder = tmp_path / f"{name}-{family}-{case}"
        formats.save(made(host_in(tiny_host(family)), case, **named), folder, name)
        (folder / "peftport.json").unlink()
        return folder

    return write


@pytest.fixture
def with_pickle(tiny_host, tmp_path) -> Path:
    """The folder of a module as adapters writes it."""
    shutil.copytree(GOLDEN / "llama-prefix", tmp_path / "theirs")
    change(tmp_path / "theirs", model_name=str(tiny_host("llama")))
    return tmp_path / "theirs"
