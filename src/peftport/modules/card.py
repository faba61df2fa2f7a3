"""The README of a module's folder: where it is from, what became of it, what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftport.files import exists, locked, read_text, write_atomic
from peftport.hosts.source import for_others
from peftport.metrics import METRICS
from peftport.modules.module import Module
from peftport.modules.record import HostName, Record
from peftport.plain import inline, printable

CARD = "README.md"
_MEASURED = "## Measured"
_NOTHING = "Nothing yet:"
_FIRST, _LAST = ("condition", "host", "task"), "n_test"
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
            n_test and the metrics of the task's kind.
    """
    record = module.record
    header = {
        "base_model": for_others(record.host.name)[0],
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
    table = _table(figures) if figures else f"{_NOTHING} `peftport test FOLDER ... --to-card`."
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
    """Add a row to the table of a module's card that says what was measured.

    Nothing else in the card changes, whoever wrote it; a card, a section or a table is begun where
    there is none. Several processes may do so at the same time: no row is lost.

    Raises:
        BadInput: the card is no text.
    """
    path = folder / CARD
    with locked(folder):
        text = read_text(path) if exists(path) else ""
        write_atomic(path, _with_row(text, figures).encode())


def _with_row(text: str, figures: Mapping[str, Any]) -> str:
    lines = text.splitlines(keepends=True)
    ending = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += ending
    begin, end = _section(lines)
    if begin is None:
        gap = [ending] if lines else []
        lines += [*gap, f"{_MEASURED}{ending}"]
        begin = end = len(lines)
    table = [i for i in range(begin, end) if lines[i].startswith("|")]
    # Of several tables the first is meant.
    table = [i for n, i in enumerate(table) if i == table[0] + n]
    old = [lines[i].strip() for i in table]
    new = [f"{line}{ending}" for line in _grown(old, figures)]
    if table:
        lines[table[0] : table[-1] + 1] = new
    else:
        rest = [line for line in lines[begin:end] if not line.startswith(_NOTHING)]
        kept = "".join(rest).strip()
        after = [ending, kept, ending] if kept else []
        more = [ending] if end < len(lines) else []
        lines[begin:end] = [ending, *new, *after, *more]
    return "".join(lines)


def _section(lines: Sequence[str]) -> tuple[int | None, int]:
    """Where the section of what was measured begins, behind its heading, and where it ends."""
    begin, fenced = None, False
    for number, line in enumerate(lines):
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        if fenced:
            continue
        if begin is not None and line.startswith(("# ", "## ")):
            return begin, number
        if begin is None and line.strip() == _MEASURED:
            begin = number + 1
    return begin, len(lines)


def _grown(table: Sequence[str], figures: Mapping[str, Any]) -> list[str]:
    """A table with one row more, under its own columns and those that it lacks."""
    if len(table) < 2:
        return _table([figures]).splitlines()
    columns = [name.strip() for name in _cells(table[0])]
    lacking = [name for name in _columns([figures]) if name not in columns]
    fill = ("", " --- |", *[" - |"] * (len(table) - 2))
    grown = [line + fill[i] * len(lacking) for i, line in enumerate(table)]
    grown[0] += "".join(f" {name} |" for name in lacking)
    return [*grown, _row(figures, [*columns, *lacking])]


def _cells(row: str) -> list[str]:
    return re.split(r"(?<!\\)\|", row.strip().strip("|"))


def _origin(record: Record) -> Iterable[str]:
    yield f"made for: {_host(record.host)}"
    yield f"trained on: {_host(record.origin)}"
    labels = ", ".join(map(str, record.task["labels"])) or "not known"
    words, kind = record.task.get("label_words"), record.task.get("kind")
    yield (
        f"task: {_code(record.task['name'])}"
        + (f", of kind {_code(kind)}" if kind else f", labels {_code(labels)}")
        + (f", label words {_code(', '.join(words))}" if words else "")
    )
    if record.training:
        # A port's record has the seed of the port, and may be of another task.
        after = f", seed {record.seed}" if record.port is None else ""
        yield f"training: {_told(record.training)}{after}"
    options = {key: value for key, value in record.config.items() if value is not None}
    yield f"configuration: {_code(json.dumps(options))}"
    if record.versions:
        yield inline("written with " + ", ".join(f"{n} {v}" for n, v in record.versions.items()))


def _port(port: Mapping[str, Any], account: Mapping[str, Any] | None) -> Iterable[str]:
    """Method, counts, the tensors that were not simply carried over, and what came after."""
    options = {key: value for key, value in port.get("options", {}).items() if value is not None}
    seed = inline(str(port.get("seed", 0)))
    yield (
        f"From {_host(HostName(**port['from']))}, trained for "
        f"{_code(port.get('task', 'unknown'))}, by {_code(str(port['method']))}, seed {seed}"
        + (f", options {_code(json.dumps(options))}." if options else ".")
    )
    if places := port.get("places"):
        yield f"It changes {', '.join(_code(str(place)) for place in places)} alone."
    texts = port.get("texts")
    if texts:
        count = inline(str(texts["count"]))
        yield f"It looked at {count} texts of {_code(str(texts['source']))}, without labels."
    counted = [inline(f"{n} {action}") for action, n in port.get("counts", {}).items() if n]
    yield f"Tensors: {', '.join(counted) or 'none'}; each one is in `account.json`."
    lost = [
        f"{_code(str(entry['source'] or entry['target']))} "
        + inline(f"{entry['action']}: {entry['why']}")
        for entry in (account or {}).get("tensors", ())
        if entry["action"] in ("dropped", "initialised")
    ]
    if lost:
        more = [f"and {len(lost) - _LISTED} more"] if len(lost) > _LISTED else []
        yield _list([*lost[:_LISTED], *more])
    trained = dict(port.get("trained", {}))
    if trained:
        yield f"Then trained on {_code(str(trained.pop('task', 'unknown')))}: {_told(trained)}."
    before = port.get("before")
    if before:
        yield "Before that it was ported:"
        yield from _port(before, None)


def _told(settings: Mapping[str, Any]) -> str:
    return inline(", ".join(f"{key} {value}" for key, value in settings.items()))


def _host(host: HostName) -> str:
    mark = f"weights {_code(host.fingerprint[:16])}" if host.fingerprint else "weights not recorded"
    return f"{_code(host.name)} ({mark})"


def _table(figures: Sequence[Mapping[str, Any]]) -> str:
    columns = _columns(figures)
    head = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    return "\n".join([*head, *(_row(each, columns) for each in figures)])


def _columns(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a table says: every metric of classification where one of them was measured, and
    whatever else was."""
    measured = list(dict.fromkeys(key for each in figures for key in each))
    usual = METRICS if any(name in METRICS for name in measured) else ()
    more = [name for name in measured if name not in (*_FIRST, *METRICS, _LAST)]
    return [*_FIRST, *usual, *more, _LAST]


def _row(figures: Mapping[str, Any], columns: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(figures.get(column)) for column in columns) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else inline(str(value))


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _code(text: str) -> str:
    """Names come from other people's files; in a code span of one line they cannot be markup."""
    return f"`{printable(' '.join(text.split())).replace('`', chr(39))}`"
