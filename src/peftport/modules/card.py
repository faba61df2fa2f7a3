"""The README of a module's folder: where it is from, what became of it, what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftport.files import write_atomic
from peftport.metrics import METRICS
from peftport.modules.module import HostName, Module, Record

CARD = "README.md"
_MEASURED = "## Measured"
_COLUMNS = ("condition", "host", "task", *METRICS, "n_test")
_LISTED = 20


def card(
    module: Module,
    library: str,
    usage: str,
    account: Mapping[str, Any] | None,
    figures: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The card's text, Markdown with a header that model hubs read.

    Args:
        library: what the files are for.
        usage: Python that loads them.
        account: `Account.record()` of the port, if the module was ported.
        figures: what was measured: mappings with any of the keys condition, host, task,
            n_test and those of `METRICS`.
    """
    record = module.record
    header = {
        "base_model": record.host.name,
        "library_name": library,
        "tags": ["peftport", record.technique],
    }
    sections = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in header.items()) + "---",
        f"# {record.technique} for {_code(record.task['name'])} on {_code(record.host.name)}",
        _list(_origin(record)),
        "## Use",
        f"```python\n{usage}\n```",
    ]
    if record.port is not None:
        sections += ["## Port", *_port(record.port, account)]
    table = _table(figures) if figures else "Nothing yet: `peftport test FOLDER ... --to-card`."
    return "\n\n".join([*sections, _MEASURED, table]) + "\n"


def merged_card(record: Record, host: str) -> str:
    """The card of a host with a module merged into it, Markdown with a header for model hubs."""
    header = {"base_model": host, "library_name": "transformers", "tags": ["peftport", "merged"]}
    sections = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in header.items()) + "---",
        f"# {_code(host)} with {record.technique} for {_code(record.task['name'])} merged into it",
        "A plain model: it loads without peft.",
        _list(_origin(record)),
    ]
    return "\n\n".join(sections) + "\n"


def add_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Add a row to what a module's card says was measured; a card is begun where there is none."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, _, after = text.partition(f"{_MEASURED}\n")
    rows = [line for line in after.splitlines() if line.startswith("|")][2:]
    table = "\n".join([_table([]), *rows, _row(figures)])
    write_atomic(path, f"{before.rstrip()}\n\n{_MEASURED}\n\n{table}\n".lstrip().encode())


def _origin(record: Record) -> Iterable[str]:
    yield f"made for: {_host(record.host)}"
    yield f"trained on: {_host(record.origin)}"
    labels = ", ".join(map(str, record.task["labels"])) or "not known"
    words = record.task.get("label_words")
    yield f"task: {_code(record.task['name'])}, labels {_code(labels)}" + (
        f", label words {_code(', '.join(words))}" if words else ""
    )
    if record.training:
        # A port's record has the seed of the port, and may be of another task.
        after = f", seed {record.seed}" if record.port is None else ""
        yield f"training: {_told(record.training)}{after}"
    options = {key: value for key, value in record.config.items() if value is not None}
    yield f"configuration: {_code(json.dumps(options))}"
    if record.versions:
        yield "written with " + ", ".join(f"{n} {v}" for n, v in record.versions.items())


def _port(port: Mapping[str, Any], account: Mapping[str, Any] | None) -> Iterable[str]:
    """Method, counts, the tensors that were not simply carried over, and what came after."""
    options = {key: value for key, value in port.get("options", {}).items() if value is not None}
    yield (
        f"From {_host(HostName(**port['from']))}, trained for "
        f"{_code(port.get('task', 'unknown'))}, by `{port['method']}`, seed {port.get('seed', 0)}"
        + (f", options {_code(json.dumps(options))}." if options else ".")
    )
    texts = port.get("texts")
    if texts:
        yield f"It looked at {texts['count']} texts of {_code(texts['source'])}, without labels."
    counted = [f"{n} {action}" for action, n in port.get("counts", {}).items() if n]
    yield f"Tensors: {', '.join(counted) or 'none'}; each one is in `account.json`."
    lost = [
        f"{_code(str(entry['source'] or entry['target']))} {entry['action']}: {entry['why']}"
        for entry in (account or {}).get("tensors", ())
        if entry["action"] in ("dropped", "initialised")
    ]
    if lost:
        more = [f"and {len(lost) - _LISTED} more"] if len(lost) > _LISTED else []
        yield _list([*lost[:_LISTED], *more])
    trained = dict(port.get("trained", {}))
    if trained:
        yield f"Then trained on {_code(trained.pop('task'))}: {_told(trained)}."


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _host(host: HostName) -> str:
    mark = f"weights `{host.fingerprint[:16]}`" if host.fingerprint else "weights not recorded"
    return f"{_code(host.name)} ({mark})"


def _table(figures: Sequence[Mapping[str, Any]]) -> str:
    head = [f"| {' | '.join(_COLUMNS)} |", "|" + " --- |" * len(_COLUMNS)]
    return "\n".join([*head, *map(_row, figures)])


def _row(figures: Mapping[str, Any]) -> str:
    return "| " + " | ".join(_cell(figures.get(column)) for column in _COLUMNS) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _code(text: str) -> str:
    """Names come from other people's files; in a code span they cannot be markup."""
    return f"`{text.replace('`', chr(39))}`"
