"""Benchmarks work in their quick form: a table, and the same figures as JSON.

`study` and `agreement` take minutes also then, and are left to `make bench BENCH=--quick`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ready_python import ReadyPython

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parents[1] / "benchmarks"
IMPORTED = ("peftport.studies.execute", "peftport.porting.map_based", "scipy.optimize")
QUICK = {
    "lanes": ["--hosts", "lab"],
    "growth": [],
    "where": ["--hosts", "lab"],
    "floor": ["--hosts", "lab"],
    "port": [],
    "maps": [],
    "head": [],
    "lab": ["--hosts", "small", "--tasks", "films"],
}


@pytest.fixture(scope="module")
def python():
    """A Python that has imported already what most of them need."""
    with ReadyPython(sys.executable, *IMPORTED) as ready:
        yield ready.path


def quick(name: str, python: str | Path, out: Path, *more: str) -> dict[str, Any]:
    """What a benchmark finds in its quick form."""
    done = subprocess.run(
        [python, FOLDER / f"{name}.py", "--quick", "--out", out, *more],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    table = (out / f"{name}.md").read_text()
    assert done.stdout == table
    assert len(table.splitlines()) > 2
    found = json.loads((out / f"{name}.json").read_text())
    assert found["machine"]["torch"]
    assert found.keys() - {"machine"}
    return found


@pytest.mark.parametrize("name", QUICK)
def test_a_benchmark_in_its_quick_form_writes_its_figures(name, python, tmp_path):
    quick(name, python, tmp_path, *QUICK[name])


def test_a_study_of_one_run_has_its_row_soon(tmp_path):
    """The bound is far above what is measured (docs/performance.md)."""
    found = quick("start", sys.executable, tmp_path)
    assert found["a study of one run, until its row"]["most"] < 120


def test_what_rounding_a_host_costs_is_measured_on_a_gguf_file(
    python, tiny_host, tiny_task, tmp_path
):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    import peftport as pp
    from hosts.test_gguf import write_gguf

    host = tiny_host("qwen2")
    file = write_gguf(host, tmp_path / "tiny.gguf")
    for seed in (0, 1):
        out = tmp_path / f"all-{seed}"
        pp.train(str(host), str(tiny_task), "lora", out=out, steps=1, seed=seed)
    work = tmp_path / "work"
    command = [python, FOLDER / "roundings.py", file, "--reference", host]
    command += ["--task", tiny_task, "--types", "Q4_0", "--work", work, "--out", tmp_path]
    command += ["--donors", tmp_path / "all-0", tmp_path / "all-1", "--native", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "roundings.json").read_text())["hosts"]
    assert found["reference"]["distance"] == 0
    assert 0.02 < found["Q4_0"]["distance"] < 0.3
    assert found["Q4_0"]["rows"].keys() == {"bare", "all", "native all"}
    assert found["reference"]["rows"]["all"]["same_answers"] == 1
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(str(work / "Q4_0.gguf")).tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q4_0"
    assert kinds["token_embd.weight"] == "Q8_0"


def test_which_texts_a_port_should_look_at_is_measured_for_each_source_and_number(
    python, tiny_host, tiny_task, tmp_path
):
    import peftport as pp

    here, there = tiny_host("llama"), tiny_host("qwen2")
    pp.train(str(here), str(tiny_task), "lora", out=tmp_path / "donor", steps=1, seed=0)
    (tmp_path / "plain.txt").write_text(
        "\n\n".join(f"the film was {n} times good" for n in range(20))
    )
    command = [python, FOLDER / "which_texts.py", "--donors", tmp_path / "donor"]
    command += ["--host", there, "--from-host", here, "--task", tiny_task, "--words", "bad,good"]
    command += ["--texts", f"{tiny_task}:16,32", f"{tmp_path / 'plain.txt'}:16"]
    command += ["--work", tmp_path / "work", "--out", tmp_path]
    one = ["--set", "readings=1"]
    # What is done is not done again, and with other options it is not yet done.
    for options, new, kept in (([], 3, 3), ([], 0, 3), (one, 3, 6)):
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed = [line for line in done.stdout.splitlines() if line.startswith("ridge-")]
        assert len(printed) == new
        assert len(list((tmp_path / "work").iterdir())) == kept
    said = json.loads((tmp_path / "which-texts.json").read_text())
    assert said["options"] == {"readings": 1}
    found = said["ports"]
    assert [(port["texts"], port["count"]) for port in found] == [
        (tiny_task.stem, 16),
        (tiny_task.stem, 32),
        ("plain", 16),
    ]
    assert all(0 <= port["each"][0]["auroc"] <= 1 for port in found)


def test_ways_to_read_a_host_are_judged_between_all_pairs(python, tiny_host, tiny_task, tmp_path):
    import peftport as pp

    hosts = [tiny_host("llama"), tiny_host("qwen2")]
    donors = [tmp_path / host.name for host in hosts]
    for host, donor in zip(hosts, donors, strict=True):
        pp.train(str(host), str(tiny_task), "lora", out=donor, steps=2, seed=0)
    command = [python, FOLDER / "readings.py", "--hosts", *hosts, "--donors", *donors]
    command += ["--task", tiny_task, "--words", "bad,good", "--texts", "40", "--limit", "30"]
    command += ["--work", tmp_path / "work", "--out", tmp_path]
    tables = []
    for _ in range(2):  # what is done is not done again
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        tables.append(done.stdout)
    assert tables[0] == tables[1]
    rows = json.loads((tmp_path / "readings.json").read_text())["readings"]
    assert len(rows) == 2 * (3 + 3 * 2 * 3)
    there = {row["way"]: row for row in rows if row["from"] == hosts[0].name}
    back = {row["way"]: row for row in rows if row["from"] == hosts[1].name}
    assert there["donor at home"]["auroc"] == back["native"]["auroc"]
    assert all(row["missed"] > 0 for row in rows if ";" in row["way"])


def test_the_forecast_is_calibrated_and_tested_on_a_study(python, call, tmp_path, monkeypatch):
    """The committed study, cut to one technique, pair and task, and few steps."""
    spec = yaml.safe_load((FOLDER.parent / "results/forecast/calibration.yaml").read_text())
    hosts = {"small": "lab:small", "tuned": "lab:small-tuned"}
    there = {"origin": "small", "receiver": "tuned", "relation": "continuation"}
    back = {**there, "origin": "tuned", "receiver": "small"}
    spec |= {"name": "cut", "hosts": hosts, "pairs": [there, back], "techniques": {"lora": {}}}
    spec |= {"parameters": {}, "settings": spec["settings"][:1], "limit_test": 100}
    spec |= {"donor_steps": 60, "native_steps": 60, "seeds": 1}
    (tmp_path / "cut.yaml").write_text(yaml.safe_dump(spec))
    written = tmp_path / "src" / "peftport" / "forecast" / "calibration.json"
    for folder in (written.parent, tmp_path / "results" / "forecast"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    code, _, error = call("study", "run", "cut.yaml", "--out", "study")
    assert code == 0, error
    for verb in ("calibrate", "test"):
        command = [python, FOLDER / "forecast.py", verb, "study"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    cells = json.loads(written.read_text())["cells"]
    assert [(cell["origin"], cell["receiver"]) for cell in cells] == [
        ("small", "tuned"),
        ("tuned", "small"),
    ]
    for cell in cells:
        assert cell["recovery"] > 0.5
        assert 0 < cell["distance"] < 0.5
        assert 0.5 < cell["answers"] <= 1
    rows = (tmp_path / "results" / "forecast" / "test-cut.csv").read_text().splitlines()
    assert len(rows) == 3
