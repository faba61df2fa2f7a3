"""Names out of other people's files are shown as they are, and obeyed by nobody."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from modules.formats.modules import made
from peftport.api.result import Result
from peftport.cli.output import log_to_stderr, say, show
from peftport.modules import formats
from peftport.modules.card import add_figures
from peftport.plain import inline, printable
from peftport.reports.exports import write_export
from peftport.reports.tables import latex, markdown, terminal_table
from synthetic_studies import Synthetic
from tiny_runs import host_in

HOSTILE = "[red]x[/red]\x1b[2J\x9b31m\u202e<script>a</script>![i](http://x)\n\n# `y` | \x07"
OBEYED = ("\x1b", "\x9b", "\u202e", "\x07")


def obeyed(text: str) -> list[str]:
    return [mark for mark in OBEYED if mark in text]


@settings(deadline=None, derandomize=True, database=None)
@given(st.text())
def test_nothing_is_obeyed_and_plain_text_stays_as_it_is(text):
    shown = printable(text)
    assert all(letter.isprintable() or letter in "\n\t" or letter >= "\xa0" for letter in shown)
    assert printable(shown) == shown
    one = inline(text)
    assert "\n" not in one and "<script" not in one and "](" not in one
    words = "p < 0.05 [0.1, 0.2] (a_b), 5 * 3 & more"
    assert printable(words) == inline(words) == words


class Named(Result):
    """A result with a name from a stranger's file."""

    def to_dict(self):
        return {"name": HOSTILE}

    def __str__(self):
        return HOSTILE


def test_commands_print_what_is_shown(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("peftport"), "handlers", [])  # others write elsewhere
    show(Named(), True)
    show(Named(), False)
    say(HOSTILE)
    log_to_stderr()
    logging.getLogger("peftport").warning("notice: %s", HOSTILE)
    out, error = capsys.readouterr()
    assert not obeyed(out + error)
    assert json.loads(out[: out.index("\n}") + 2]) == {"name": HOSTILE}


def test_so_do_errors(call, tmp_path):
    code, _, error = call("check", tmp_path / HOSTILE.replace("/", "_"), "--host", "lab:small")
    assert code == 2
    assert not obeyed(error)


@pytest.fixture(scope="module")
def study():
    """A study whose every name is hostile."""
    names = [f"{HOSTILE}{i}" for i in range(4)]
    made = Synthetic(
        techniques=("lora", names[3]),
        pairs=((names[0], names[1], "continuation"),),
        settings=((names[2], names[2]),),
        scores=True,
    )
    return made.results()


def test_tables_in_a_terminal_read_no_markup(study):
    stream = io.StringIO()
    Console(file=stream, width=400, force_terminal=False).print(terminal_table(study))
    text = stream.getvalue()
    assert not obeyed(text)
    assert "[red]x[/red]" in text


def test_markdown_and_latex_have_no_markup_of_names(study):
    text = markdown(study)
    assert not obeyed(text + latex(study))
    assert "<script" not in text and "](http" not in text
    assert not [line for line in text.splitlines() if line.startswith("# ")][1:]
    for table in (part for part in text.split("\n\n") if part.startswith("| ")):
        assert len({row.replace(r"\|", "").count("|") for row in table.splitlines()}) == 1


def test_a_card_has_no_markup_of_names(tiny_host, tmp_path):
    module = made(host_in(tiny_host("bert")), "lora")
    host = module.record.host.model_copy(update={"name": HOSTILE, "fingerprint": HOSTILE})
    record = module.record.model_copy(
        update={
            "host": host,
            "origin": host,
            "task": {"name": HOSTILE, "labels": [HOSTILE, "b"], "label_words": [HOSTILE, "b"]},
            "training": {HOSTILE: HOSTILE},
            "versions": {HOSTILE: HOSTILE},
            "port": {
                "method": HOSTILE,
                "options": {HOSTILE: HOSTILE},
                "from": host.model_dump(),
                "task": HOSTILE,
                "seed": HOSTILE,
                "counts": {HOSTILE: HOSTILE},
                "texts": {"count": HOSTILE, "source": HOSTILE},
                "trained": {"task": HOSTILE, HOSTILE: HOSTILE},
            },
        }
    )
    entry = {"source": HOSTILE, "target": None, "action": "dropped", "why": HOSTILE}
    account = {"tensors": [entry]}
    formats.save(type(module)(record, module.tensors), tmp_path / "m", "peft", account)
    add_figures(tmp_path / "m", {"condition": HOSTILE, "host": HOSTILE, "task": HOSTILE})
    text = (tmp_path / "m" / "README.md").read_text()
    assert not obeyed(text)
    body = text.split("---\n", 2)[2]
    code = [part for i, part in enumerate(body.split("`")) if i % 2]
    outside = "".join(part for i, part in enumerate(body.split("`")) if not i % 2)
    assert any("<script>" in part for part in code)
    assert "<script" not in outside and "](http" not in outside.replace(r"\(", "")
    headings = [line for line in body.splitlines() if line.startswith("# ")]
    assert [line for line in headings if "class logits" not in line] == headings[:1]


def test_what_a_spreadsheet_would_compute_is_kept_from_it_on_request():
    rows = Synthetic().results().rows
    rows = rows.assign(task="=1+1", origin="@x", receiver="+x", technique="-x", method="a=b")
    rows = rows.assign(study="\uff1d1+1")
    safe = write_export(rows, "csv", excel_safe=True).decode().splitlines()[1].split(",")
    usual = write_export(rows, "csv").decode().splitlines()[1].split(",")
    assert [cell for cell in usual if cell.startswith(("=", "+", "-", "@"))]
    assert not [cell for cell in safe if cell.startswith(("=", "+", "-", "@"))]
    assert {"'=1+1", "'@x", "'+x", "'-x", "a=b", "'\uff1d1+1"} <= set(safe)
    changed = {new for old, new in zip(usual, safe, strict=True) if old != new}
    assert all(cell.startswith("'") for cell in changed)
