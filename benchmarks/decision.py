"""How often the rule of `assess` is wrong and how often it finds what is there, by simulation.

    python benchmarks/decision.py [--quick]

Assessments of known truth are made up (tests/simulated_decisions.py) and decided on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from measuring import arguments, as_table, save

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from simulated_decisions import NULLS, Truth, opened

TESTED = (50, 100, 300, 1000)
KEPT = (0.25, 0.5, 0.8, 1.0)


def main() -> None:
    asked = arguments(__doc__ or "")
    cases, tried = (100, 40) if asked.quick else (2000, 500)
    false = {null: {n: opened(truth, n, cases) for n in TESTED} for null, truth in NULLS.items()}
    power = {kept: {n: opened(Truth(ported=0.3 + kept), n, tried) for n in TESTED} for kept in KEPT}
    head = ("kept of the native gain", *(f"{tested} texts" for tested in TESTED))
    most = (max(found[n] for found in false.values()) for n in TESTED)
    rows = [("nothing, the most of any null", *(f"{found:.3f}" for found in most))]
    rows += [(f"{kept:g}", *(f"{x:.2f}" for x in found.values())) for kept, found in power.items()]
    data = {"cases": cases, "false": false, "cases_of_power": tried, "power": power}
    save(asked.out, "decision", data, as_table(head, rows))


if __name__ == "__main__":
    main()
