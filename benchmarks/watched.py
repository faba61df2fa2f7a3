"""Whole commands of peftport, watched: seconds and memory, with files that are read from disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_WATCHED = """
import os, subprocess, sys, time
begun = time.perf_counter()
running = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, used = os.wait4(running.pid, 0)
print(time.perf_counter() - begun, used.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small process between: peak memory counts that of the process a child is split from."""


def command(folder: Path, *arguments: str) -> dict[str, float]:
    """Run peftport: seconds of all of it, those that it says of the port itself, peak memory."""
    let_go(folder)
    run = [sys.executable, "-m", "peftport", *arguments, "--json"]
    done = subprocess.run([sys.executable, "-c", _WATCHED, *run], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(run)} failed:\n{done.stderr}")
    seconds, peak = map(float, done.stdout.split())
    told = json.loads(done.stderr[done.stderr.index("{") :])
    return {"seconds": seconds, "port_seconds": told.get("seconds", 0.0), "peak_mib": peak}


def let_go(folder: Path) -> None:
    """Have the system forget what it keeps of the files in memory."""
    os.sync()
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
