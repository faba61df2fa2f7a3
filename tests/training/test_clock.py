"""Seconds of work on a device are read once the device is done."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from peftport.training.clock import now

SOURCE = Path(__file__).resolve().parents[2] / "src" / "peftport"
OTHERS = {SOURCE / "training" / "clock.py", SOURCE / "porting" / "estimate.py"}
"""The clock itself, and the product of two matrices by which a CPU is measured."""


@pytest.fixture
def waited(monkeypatch) -> list[object]:
    """The devices that were waited for, as if a GPU were at work."""
    found: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", found.append)
    return found


def test_a_gpu_is_waited_for(waited):
    assert now("cuda:1") <= now(torch.device("cuda"))
    assert waited == ["cuda:1", torch.device("cuda")]


def test_nothing_is_waited_for_where_there_is_nothing_to_wait_for(waited, monkeypatch):
    assert now("cpu") <= now(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert now("cuda") > 0
    assert waited == []


def test_no_work_is_timed_by_another_clock():
    for file in {*SOURCE.rglob("*.py")} - OTHERS:
        tree = ast.walk(ast.parse(file.read_text()))
        names = {node.attr for node in tree if isinstance(node, ast.Attribute)}
        assert not names & {"perf_counter", "process_time"}, file
