"""How soon a command begins with what it is for.

    python benchmarks/start.py [--quick]

`import peftport`; `peftport --help`; and a study of one run on the lab's hosts: from the command,
imports included, until the row of one training step and a test of 16 texts is in the store.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import yaml

from measuring import arguments, as_table, save, spread, timed, written
from peftport.studies.store import NAME

IMPORT = "import time; b = time.perf_counter(); import peftport; print(time.perf_counter() - b)"
ONE_RUN = {
    "name": "one-run",
    "techniques": {"lora": {}},
    "pairs": [{"origin": "lab:small", "receiver": "lab:small", "relation": "same"}],
    "settings": [{"origin_task": "lab:films", "task": "lab:films"}],
    "conditions": ["scratch"],
    "budgets": [1],
    "seeds": 1,
    "limit_test": 16,
    "training": {"learning_rates": {"lora": 0.003}},
}


def main() -> None:
    asked = arguments(__doc__ or "")
    rounds = 1 if asked.quick else 7
    found = {
        "import peftport": spread(imported() for _ in range(rounds)),
        "peftport --help": spread(
            timed([sys.executable, "-m", "peftport", "--help"]) for _ in range(rounds)
        ),
        "a study of one run, until its row": spread(first_row() for _ in range(rounds)),
    }
    rows = [(what, written(seconds, 3)) for what, seconds in found.items()]
    save(asked.out, "start", found, as_table(("what", "seconds"), rows))


def imported() -> float:
    """Seconds that the package's own import takes in a new process."""
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True)
    return float(done.stdout)


def first_row() -> float:
    """Seconds from the command of a new study until its one row was recorded."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, "one.yaml"), Path(folder, "one")
        file.write_text(yaml.safe_dump(ONE_RUN))
        begun = time.time()
        timed([sys.executable, "-m", "peftport", "study", "run", str(file), "--out", str(out)])
        with sqlite3.connect(out / NAME) as db:
            ((finished,),) = db.execute("SELECT finished FROM runs").fetchall()
    return datetime.fromisoformat(finished).timestamp() - begun


if __name__ == "__main__":
    main()
