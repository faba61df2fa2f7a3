"""What a study comes to, before it is run, and how far it is, in numbers and in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from peftport.progress import duration
from peftport.studies.lock import driver_of
from peftport.studies.plan import BASELINE, Plan
from peftport.studies.resolve import Facts
from peftport.studies.spec import parse_spec
from peftport.studies.store import NAME, read_study


def outline(plan: Plan, facts: Facts) -> dict[str, Any]:
    """Count runs, trajectories, donors and steps, all by enumeration; JSON-ready."""
    counts, seeds = plan.count(), len(plan.spec.seeds)
    baseline = {c: n for c, n in counts.items() if c in BASELINE}
    runs = {c: n for c, n in counts.items() if c not in BASELINE}
    trained = [arm for arm in plan.arms if arm.kind != "host"]
    donors = [arm for arm in plan.arms if arm.gives_donor]
    receiving = [arm for arm in plan.arms if arm.needs_donor]
    return {
        "study": plan.spec.name,
        "about": plan.spec.about,
        "runs": sum(runs.values()),
        "runs_by_condition": runs,
        "baseline": sum(baseline.values()),
        "baseline_by_condition": baseline,
        "trajectories": len(trained) * seeds,
        "donors": len(donors) * seeds,
        "donors_that_are_also_baseline": sum(len(arm.reads) > 1 for arm in donors) * seeds,
        "trajectories_from_donors": len(receiving) * seeds,
        "packs": sum(1 for _ in plan.packs()),
        "steps": plan.steps(),
        "steps_if_nothing_were_shared": plan.steps_alone(),
        "hosts": [_place(label, host, facts) for label, host in facts.hosts.items()],
        "tasks": [_place(label, task, facts) for label, task in facts.tasks.items()],
    }


def _place(label: str, found: dict[str, Any], facts: Facts) -> dict[str, Any]:
    return {
        "name": label,
        "location": found["location"],
        "fingerprint": found.get("fingerprint"),
        "unknown": facts.unknown.get(label),
    }


def outline_text(found: dict[str, Any]) -> str:
    """The outline as a person reads it."""
    steps, alone = found["steps"], found["steps_if_nothing_were_shared"]
    lines = [
        f"{found['study']}: {found['runs']:,} runs{_parts(found['runs_by_condition'])}",
        f"  baseline beside them: {found['baseline']:,}{_parts(found['baseline_by_condition'])}",
        f"  trained as {found['trajectories']:,} trajectories in {found['packs']:,} packs; "
        f"{found['donors']:,} are donors, on which {found['trajectories_from_donors']:,} rest",
        f"  {found['donors_that_are_also_baseline']:,} donors are baseline trajectories as well",
        f"  {steps:,} training steps; {alone:,} if every run were trained by itself"
        + (f" ({alone / steps:.1f} times as many)" if steps else ""),
    ]
    if found.get("estimate"):
        lines.append(f"  {_estimate_text(found['estimate'])}")
    elif "estimate" in found:
        lines.append("  time, memory and disk cannot be estimated before all below is at hand")
    for kind in ("hosts", "tasks"):
        lines.append(f"  {kind}:")
        for place in found[kind]:
            mark = place["fingerprint"]
            known = f"{mark[:12]}" if mark else f"no fingerprint yet: {place['unknown']}"
            where = "" if place["location"] == place["name"] else f" at {place['location']}"
            lines.append(f"    {place['name']}{where} ({known})")
    return "\n".join(lines)


def _estimate_text(found: dict[str, Any]) -> str:
    """The estimate as a person reads it."""
    gpu = f" and {_size(found['gpu_memory'])} of the GPU's" if found["gpu_memory"] else ""
    threads = f"{found['threads']} thread{'s' * (found['threads'] != 1)}"
    on = f"{threads} of this machine" if found["device"] == "cpu" else "this machine's GPU"
    return (
        f"about {duration(found['seconds'])} with one worker on {on}, {_size(found['memory'])} of "
        f"memory a worker{gpu}, {_size(found['disk'])} of disk; measured in "
        f"{duration(found['measured_in_seconds'])}"
    )


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.1f} {unit}" if unit == "GB" else f"{count:.0f} {unit}"


def _parts(counts: dict[str, int]) -> str:
    inner = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f" ({inner})" if inner else ""


def standing(folder: Path) -> dict[str, Any]:
    """How far the study in `folder` is; JSON-ready.

    Raises:
        BadInput: there is no study, or one of another schema.
    """
    with read_study(folder) as store:
        plan = Plan(parse_spec(store.spec, str(folder / NAME)))
        counts: dict[str, Counter[str]] = {c: Counter() for c in plan.spec.conditions}
        for condition, status, number in store.count():
            counts[condition][status] += number
        failures = store.failures()
    planned = plan.count()
    rows = [
        {
            "condition": condition,
            "planned": planned[condition],
            "done": found["done"],
            "failed": found["failed"],
            "missing": planned[condition] - found.total(),
        }
        for condition, found in counts.items()
    ]
    return {
        "study": plan.spec.name,
        "folder": str(folder),
        "conditions": rows,
        **{k: sum(row[k] for row in rows) for k in ("planned", "done", "failed", "missing")},
        "driver": driver_of(folder),
        "failures": [{k: f[k] for k in ("run_id", "error", "log")} for f in failures],
    }


def standing_text(found: dict[str, Any]) -> str:
    """How far a study is, as a person reads it."""
    lines = [
        f"{found['study']} in {found['folder']}: {found['done']:,} of {found['planned']:,} runs "
        f"done, {found['failed']:,} failed, {found['missing']:,} missing",
    ]
    lines += [
        f"  {row['condition']:<8} {row['done']:>7,} of {row['planned']:,}"
        + (f", {row['failed']:,} failed" if row["failed"] else "")
        for row in found["conditions"]
    ]
    driver = found["driver"]
    if driver:
        lines.append(f"  process {driver['pid']} on {driver['host']} is running it")
    reasons = Counter(failure["error"] for failure in found["failures"])
    for error, number in reasons.most_common(5):
        lines.append(f"  {number:,} failed: {error}")
    return "\n".join(lines)
