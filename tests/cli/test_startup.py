"""Commands start quickly: what is not needed is not imported, and what is, beside the driver.

Bounds are far above what is measured (docs/performance.md), for machines that do other work.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import yaml

from study_specs import tiny_spec

ONLY_FOR_REPORTS = ("matplotlib", "statsmodels")


def cpu_seconds_and_modules(statement: str) -> tuple[float, set[str]]:
    """CPU time of a statement in a new process, and what it imports."""
    script = (
        f"import sys, time\nbegun = time.process_time()\n{statement}\n"
        "print(time.process_time() - begun, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, *modules = done.stdout.split()
    return float(seconds), set(modules)


def test_the_package_is_imported_at_once():
    seconds, modules = cpu_seconds_and_modules("import peftport")
    assert seconds < 0.3
    assert "torch" not in modules


def test_workers_import_nothing_that_only_reports_need():
    _, modules = cpu_seconds_and_modules("import peftport.studies.execute")
    assert not modules & set(ONLY_FOR_REPORTS)


def test_a_study_of_one_run_has_its_row_soon(tiny_host, tiny_task, tmp_path: Path):
    spec = tiny_spec(
        {"a": tiny_host("t5"), "b": tiny_host("t5")},
        tiny_task,
        techniques={"lora": {}},
        pairs=[{"origin": "a", "receiver": "a", "relation": "same"}],
        conditions=["scratch"],
        budgets=[1],
        seeds=1,
        donor_steps=None,
        native_steps=None,
    )
    file, out = tmp_path / "one.yaml", tmp_path / "one"
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True)))
    begun = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "peftport", "study", "run", str(file), "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(out / "study.sqlite") as db:
        ((finished,),) = db.execute("SELECT finished FROM runs").fetchall()
    db.close()
    assert datetime.fromisoformat(finished).timestamp() - begun < 120
