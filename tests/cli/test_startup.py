"""Commands start quickly: what is not needed is not imported.

The bound is far above what is measured (docs/performance.md), for machines that do other work.
How soon a study has its first row is in tests/test_benchmarks.py.
"""

from __future__ import annotations

import subprocess
import sys

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
