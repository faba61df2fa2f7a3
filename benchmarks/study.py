"""The same 36 runs by `peftport study` and by a script per run on transformers' Trainer and peft.

Four techniques, each ported, sampled and from scratch, read at three budgets. Donors and samples
are given to both sides; data, steps, batch size and test rows are the same. Unless `--all` is
given, 12 of the 36 scripts are run, one for each technique and budget, their conditions in turn;
the other conditions, which do the same work, are taken to last as long.

    python benchmarks/study.py [--quick] [--all] [--bf16] [--hosts lab mini minilm smollm2]

On SmolLM2 the work is shorter: two techniques, six steps, 64 test rows.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load

from measuring import HOSTS, arguments, as_table, at_hand, places, save, spread, timed, written
from peftport.hosts import load_host
from peftport.modules import HostName, Module, Record, formats
from peftport.porting import port
from peftport.studies.load import load_spec
from peftport.studies.resolve import resolve
from peftport.studies.store import NAME, create, read_store
from peftport.tasks import label_tokens, load_task

CONDITIONS = ("ported", "sampled", "scratch")
RATES = {"adapter": 0.003, "compacter": 0.01, "lora": 0.003, "prefix": 0.03}
OPTIONS: dict[str, dict[str, Any]] = {"adapter": {}, "compacter": {}, "lora": {}, "prefix": {}}
NARROW = {"adapter": {"reduction": 4}, "compacter": {"reduction": 4}}
QUICK = {"budgets": [0, 2], "donor_steps": 4, "limit_test": 32}
SHORT = {"budgets": [0, 6], "donor_steps": 6, "limit_test": 64, "limit_train": 96}
"""What is different on SmolLM2."""
FEW = ("adapter", "lora")
HERE = Path(__file__).parent
PHASES = ("until the first row", "until the last row", "report and end")


def main() -> None:
    flags = {
        "all": "run all 36 scripts",
        "bf16": "the study multiplies in bfloat16; scripts stay in single precision",
    }
    asked = arguments(__doc__ or "", flags, hosts=HOSTS)
    for name in at_hand(asked.hosts):
        label = f"{name}-bf16" if asked.bf16 else name
        with tempfile.TemporaryDirectory() as folder:
            found = Comparison(name, Path(folder), asked.quick, asked.all, asked.bf16).measure()
        save(asked.out, f"study-{label}", found, table(label, found))


def specification(name: str, quick: bool, bf16: bool = False, **changes: Any) -> dict[str, Any]:
    """The study, as its YAML says it."""
    place, options = places()[name], OPTIONS | (NARROW if name == "lab" else {})
    short = QUICK if quick else SHORT if name == "smollm2" else {}
    if short:
        options = {technique: options[technique] for technique in FEW}
    same = place["origin"] == place["receiver"]
    pair = {**place, "relation": "same" if same else "continuation"}
    task = pair.pop("task")
    return {
        "name": f"bench-{name}",
        "techniques": options,
        "pairs": [pair],
        "settings": [{"origin_task": task, "task": task}],
        "conditions": list(CONDITIONS),
        "budgets": [0, 30, 200],
        "seeds": 1,
        "donor_steps": 200,
        "training": {
            "learning_rates": {technique: RATES[technique] for technique in options},
            "precision": "bf16" if bf16 else "fp32",
        },
        **short,
        **changes,
    }


class Comparison:
    """Both sides on one host."""

    def __init__(self, name: str, folder: Path, quick: bool, every: bool, bf16: bool) -> None:
        self.name, self.folder, self.quick, self.every = name, folder, quick, every
        self.specification = partial(specification, name, quick, bf16)
        self.data = self.specification()
        self.place = places()[name]
        self.host = load_host(self.place["receiver"])
        limits = {key: self.data.get(key) for key in ("limit_train", "limit_test")}
        self.task = load_task(self.place["task"], **limits)

    def measure(self) -> dict[str, Any]:
        """Interleave the two sides: the study once before and once after the scripts."""
        donors = self.donors()
        jobs = self.jobs(donors)
        phases = [self.study(0)]
        scripts = [(job, self.script(job)) for job in jobs]
        phases.append(self.study(1))
        studies = [sum(each.values()) for each in phases]
        total = self.runs / len(jobs)
        wall = total * sum(seconds for _, seconds in scripts)
        with read_store(self.folder / "study-0") as store:
            rows = [row for row in store.rows()]
        accuracies = [
            {
                "technique": job["technique"],
                "condition": job["condition"],
                "budget": job["steps"],
                "script": json.loads(Path(job["result"]).read_text())["accuracy"],
                "study": next(r["accuracy"] for r in rows if _same(r, job)),
                "script_seconds": seconds,
            }
            for job, seconds in scripts
        ]
        return {
            "runs": self.runs,
            "scripts": len(jobs),
            "script_seconds": wall,
            "study_seconds": spread(studies),
            "phases": {name: spread(each[name] for each in phases) for name in PHASES},
            "ratio": spread(wall / seconds for seconds in studies),
            "cells": accuracies,
        }

    def donors(self) -> dict[str, Module]:
        """Train the donors, each once; the store that they are in is kept for the studies."""
        changes = {"conditions": ["ported"], "budgets": [0]}
        self.run(self.specification(**changes), "donors")
        found = {}
        with sqlite3.connect(self.folder / "donors" / NAME) as db:
            for technique, record, tensors in db.execute(
                "SELECT technique, record, tensors FROM donors"
            ):
                found[technique] = Module(Record.model_validate_json(record), load(tensors))
        return found

    def run(self, data: dict[str, Any], out: str) -> float:
        """`peftport study run`, two workers of one thread each."""
        file = self.folder / f"{out}.yaml"
        file.write_text(yaml.safe_dump(data))
        command = [sys.executable, "-m", "peftport", "study", "run", str(file)]
        return timed([*command, "--out", str(self.folder / out), "--workers", "2"])

    def study(self, number: int) -> dict[str, float]:
        """Seconds of each phase of the study, with the donors in its store already."""
        folder, file = self.folder / f"study-{number}", self.folder / "whole.yaml"
        file.write_text(yaml.safe_dump(self.data))
        spec = load_spec(str(file))
        facts = resolve(spec, fetch=True)
        folder.mkdir()
        create(folder, spec.model_dump(mode="json"), facts.record(), facts.gold).close()
        with sqlite3.connect(folder / NAME) as db:
            db.execute("ATTACH ? AS other", (str(self.folder / "donors" / NAME),))
            db.execute("INSERT INTO donors SELECT * FROM other.donors")
        begun = time.time()
        whole = self.run(self.data, folder.name)
        with sqlite3.connect(folder / NAME) as db:
            (donors,) = db.execute("SELECT count(*) FROM donors").fetchone()
            ends = db.execute("SELECT min(finished), max(finished) FROM runs").fetchone()
        if donors != len(self.data["techniques"]):
            raise SystemExit("the study trained donors of its own: it was not given its own ones")
        first, last = (datetime.fromisoformat(end).timestamp() - begun for end in ends)
        return dict(zip(PHASES, (first, last - first, whole - last), strict=True))

    def script(self, job: dict[str, Any]) -> float:
        """Time one script."""
        file = Path(job["result"]).with_suffix(".job.json")
        file.write_text(json.dumps(job))
        cache = str(self.folder / "cache")
        return timed(
            [sys.executable, str(HERE / "straightforward.py"), str(file)], HF_DATASETS_CACHE=cache
        )

    def jobs(self, donors: dict[str, Module]) -> list[dict[str, Any]]:
        """One job of each technique and budget, conditions in turn, or every one."""
        made = []
        for index, technique in enumerate(donors):
            for turn, budget in enumerate(self.data["budgets"]):
                conditions = CONDITIONS if self.every else [CONDITIONS[(index + turn) % 3]]
                made += [self.job(technique, c, budget, donors[technique]) for c in conditions]
        return made

    @property
    def runs(self) -> int:
        """Runs of the study."""
        return len(self.data["techniques"]) * len(CONDITIONS) * len(self.data["budgets"])

    @cached_property
    def rows(self) -> dict[str, str]:
        """The task's rows as files that anything reads."""
        files = {}
        for split in ("train", "test"):
            rows = self.task.split(split)
            lines = (
                json.dumps({"text": text, "label": int(label)})
                for text, label in zip(rows.texts, rows.labels, strict=True)
            )
            path = self.folder / f"{split}.jsonl"
            path.write_text("\n".join(lines))
            files[split] = str(path)
        return files

    def job(
        self, technique: str, condition: str, steps: int, donor: Module | None = None, seed: int = 0
    ) -> dict[str, Any]:
        """What a script is told; modules from scratch need no donor."""
        kind = self.host.geometry.kind
        tokens = None if kind == "encoder" else label_tokens(self.host.tokenizer, self.task, kind)
        peft = technique == "lora" or (technique == "prefix" and kind == "decoder")
        options: dict[str, Any] = self.data["techniques"][technique]
        if peft:
            options = {"r": 8, "lora_alpha": 8} if technique == "lora" else _PREFIX
        return {
            "technique": technique,
            "condition": condition,
            "library": "peft" if peft else "peftport",
            "host": str(self.host.folder),
            "options": options,
            "module": ""
            if donor is None or condition == "scratch"
            else self.module(technique, condition, donor, peft),
            "learning_rate": RATES[technique],
            "batch_size": 16,
            "warmup": 5,
            "seed": seed,
            "sampling": "group_by_length",
            "steps": steps,
            "kind": kind,
            "template": self.task.templates[kind],
            "label_tokens": tokens,
            "result": str(self.folder / f"{technique}-{condition}-{steps}-{seed}.json"),
            "scratch": str(self.folder / "trainer"),
            **self.rows,
        }

    def module(self, technique: str, condition: str, donor: Module, peft: bool) -> str:
        """The folder of the ported or sampled module."""
        folder = self.folder / f"{technique}-{condition}"
        if not folder.exists():
            name = HostName(name=self.place["receiver"], fingerprint=self.host.fingerprint)
            how = "copy" if condition == "ported" else "gaussian"
            made = port(donor, self.host.geometry, name, how, seed=0).module
            formats.save(made, folder, "peft" if peft else "peftport")
        return str(folder)


_PREFIX = {"num_virtual_tokens": 30}


def _same(row: dict[str, Any], job: dict[str, Any]) -> bool:
    wanted = (job["technique"], job["condition"], job["steps"])
    return (row["technique"], row["condition"], row["budget"]) == wanted


def table(name: str, host: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    apart = [abs(run["script"] - run["study"]) for run in host["cells"]]
    row = (
        name,
        f"{host['runs'] * 3600 / host['script_seconds']:,.0f}",
        f"{host['runs'] * 3600 / host['study_seconds']['median']:,.0f}",
        written(host["ratio"], 1),
        f"{host['scripts']} of {host['runs']}",
        f"{sum(apart) / len(apart):.3f} (largest {max(apart):.3f})",
        " + ".join(f"{host['phases'][phase]['median']:.1f}" for phase in PHASES),
    )
    columns = (
        *("host", "scripts, runs/h", "peftport study, runs/h", "ratio"),
        *("scripts that were run", "accuracies differ by, mean"),
        f"the study's seconds: {', '.join(PHASES)}",
    )
    return as_table(columns, [row])


if __name__ == "__main__":
    main()
