"""As what a begun study may go on: as itself, or as a larger one that has more seeds, techniques,
pairs, tasks or budgets."""

from __future__ import annotations

import json
from typing import Any

from peftport.errors import BadInput
from peftport.studies.identity import Identity
from peftport.studies.plan import Plan
from peftport.studies.resolve import Facts
from peftport.studies.schema import PLAN_COLUMNS
from peftport.studies.spec import Spec, parse_spec
from peftport.studies.store import Store


def require_same(store: Store, facts: Facts, spec: Spec) -> None:
    """A study goes on as it was begun: same specification, hosts and rows, wherever they lie.

    Raises:
        BadInput: it is another one.
    """
    folder = store.folder
    apart = ("about", "hosts", "tasks", "continued", "texts")
    # Read again, so that keys which are new since it was begun have their defaults.
    begun = parse_spec(store.spec, str(folder)).model_dump(mode="json")
    now = spec.model_dump(mode="json")
    for key in now:
        if key not in apart and begun.get(key) != now[key]:
            raise BadInput(
                f"{folder} holds study {begun['name']!r} with another {key!r}: "
                f"{_short(begun.get(key))} there, {_short(now[key])} here. Give another --out, or "
                "--extend where this study is the one there and more."
            )
    for kind in ("hosts", "tasks"):
        before, after = store.facts[kind], facts.record()[kind]
        for label in after:
            if before[label].get("fingerprint") != after[label].get("fingerprint"):
                raise BadInput(
                    f"{kind[:-1]} {label} has changed since study {folder} was begun. Put the "
                    "former one back, or begin anew with another --out."
                )
    _require_same_tokenizers(store, facts)
    _require_same_scorers(store, facts)
    if store.facts.get("texts") != facts.record()["texts"]:
        raise BadInput(
            f"the texts have changed since study {folder} was begun. Put the former ones back, or "
            "begin anew with another --out."
        )
    for key, what, found in (
        ("techniques", "techniques", facts.techniques),
        ("ways", "port methods", facts.ways),
    ):
        before = store.facts[key]
        if any(before.get(name, options) != options for name, options in found.items()):
            raise BadInput(
                f"the {what}' defaults have changed since study {folder} was begun; begin anew "
                "with another --out."
            )


def become_larger(store: Store, facts: Facts, plan: Plan, identity: Identity) -> None:
    """Have the study in `store` be that of `plan`; nothing that is recorded is lost or changed.

    A run is named by what its figures depend on, so that those that are recorded are runs of the
    larger study too, as long as it asks for every one of them.

    Raises:
        BadInput: a run that is recorded is none of the larger study, or has other labels there, or
            a host has another tokenizer or a task another scorer.
    """
    _require_same_tokenizers(store, facts)
    _require_same_scorers(store, facts)
    asked = {identity.run(run)[0]: run.columns() for run in plan.runs()}
    for row in store.rows():
        before = {key: row[key] for key in PLAN_COLUMNS}
        now = asked.get(row["run_id"])
        if now is None:
            raise BadInput(
                f"{store.folder} cannot go on as this study, which does not ask for a run that is "
                f"recorded there: {_told(before)}. It may differ in a setting, in a host's weights "
                "or in rows. Have the specification ask for all that the study was begun with, or "
                "give another --out."
            )
        if now != before:
            apart = ", ".join(
                f"{key} {before[key]!r} there and {now[key]!r} here"
                for key in PLAN_COLUMNS
                if now[key] != before[key]
            )
            raise BadInput(
                f"{store.folder} has a run of this study by other names: {apart}. Give hosts and "
                "tasks the labels that they have there."
            )
    store.become(plan.spec.model_dump(mode="json"), facts.record(), facts.gold)


def _require_same_tokenizers(store: Store, facts: Facts) -> None:
    begun = store.facts["hosts"]
    for label in facts.hosts.keys() & begun.keys():
        now = facts.hosts[label]["tokenizer"]
        # Stores of older packages do not say.
        if begun[label].get("tokenizer", now) != now:
            raise BadInput(
                f"the tokenizer of host {label} has changed since study {store.folder} was begun: "
                "texts would be other tokens. Put the former one back, or begin anew with another "
                "--out."
            )


def _require_same_scorers(store: Store, facts: Facts) -> None:
    """A metric of one's own is no part of a run's name, and must be one for all rows."""
    begun = store.facts["tasks"]
    for label in facts.tasks.keys() & begun.keys():
        before, now = begun[label].get("scorer"), facts.tasks[label].get("scorer")
        if before != now:
            raise BadInput(
                f"study {store.folder} was begun with the scorer {before} for task {label}, and "
                f"is given {now}: its rows would have two metrics of one name. Give the former "
                "one, or begin anew with another --out."
            )


def _told(columns: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in columns.items() if value != "")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
