"""Benchmarks work in their quick form: a table, and the same figures as JSON.

`study` and `agreement` take minutes also then, and are left to `make bench BENCH=--quick`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
QUICK = {
    "start": [],
    "lanes": ["--hosts", "lab"],
    "growth": [],
    "where": ["--hosts", "lab"],
    "floor": ["--hosts", "lab"],
    "port": [],
    "lab": ["--hosts", "small", "--tasks", "films"],
}


@pytest.mark.parametrize("name", QUICK)
def test_a_benchmark_in_its_quick_form_writes_its_figures(name, tmp_path):
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", "--quick", "--out", tmp_path, *QUICK[name]],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    table = (tmp_path / f"{name}.md").read_text()
    assert done.stdout == table
    assert len(table.splitlines()) > 2
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["machine"]["torch"]
    assert found.keys() - {"machine"}
