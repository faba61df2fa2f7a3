"""Hosts that the tests of formats need besides the tiny ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny_hosts import drawn_like, write_host


@pytest.fixture(scope="session")
def host_with_pooler(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from an encoder's family to the folder of its tiny host with a pooler, as
    checkpoints of BERT have one."""

    @cache
    def host(family: str) -> Path:
        folder = write_host(family, tmp_path_factory.mktemp("with_pooler") / family)
        tensors = load_file(folder / "model.safetensors")
        for name, shape in {"weight": (32, 32), "bias": (32,)}.items():
            key = f"{family}.pooler.dense.{name}"
            tensors[key] = drawn_like(torch.empty(shape), key)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return host
