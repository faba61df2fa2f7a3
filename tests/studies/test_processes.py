"""Processes that a study and an assessment start, from any program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import peftport as pp
from peftport.studies.processes import apart

pair = "{origin: 'lab:small', receiver: 'lab:small-tuned', relation: continuation}"
few = ["conditions=[host]", "seeds=1", f"pairs=[{pair}]", "limit_test=32", "limit_train=64"]
study = pp.Study("quick", out="store", settings=[*few, "lanes=1"])
study.run()
print(study.outcome)
print(apart(sum, [1, 2]), __file__)
"""


def test_a_plain_script_without_a_guard_can_run_a_study(tmp_path: Path) -> None:
    """Multiprocessing would run it again in every worker."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert "1 of 1 runs done, 0 failed" in ran.stdout
    assert ran.stdout.split()[-2:] == ["3", str(script)]
