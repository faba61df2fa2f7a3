"""How far work is, on terminals and in files."""

from __future__ import annotations

import io
import sys

import pytest

from peftport.cli.progress import Shares, StepProgress, losses_to_stderr
from peftport.progress import Line, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_what_is_due_and_a_terminal_waits():
    file, terminal = io.StringIO(), Terminal()
    for stream in (file, terminal):
        line = Line(stream, every=float("inf"))
        line.show("step 1")
        line.show("step 2", due=True)
    assert file.getvalue() == "step 2\n"
    assert terminal.getvalue() == "\r\x1b[Kstep 1"


def test_who_is_patient_says_nothing_of_what_is_soon_done():
    file = io.StringIO()
    Line(file, every=1e9, patient=True).show("10%")
    assert file.getvalue() == ""


def test_a_line_is_taken_off_a_terminal_and_stays_in_a_file():
    file, terminal = io.StringIO(), Terminal()
    for stream in (file, terminal):
        line = Line(stream)
        line.show("10%")
        line.clear()
    assert file.getvalue() == "10%\n"
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_what_a_terminal_would_obey_is_shown():
    file = io.StringIO()
    Line(file).show("layer \x1b[2J")
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (91, "2 min"), (3000, "50 min"), (7500, "2 h 5 min")],
)
def test_durations_are_said_as_a_person_does(seconds, words):
    assert duration(seconds) == words


def test_each_of_several_pieces_of_work_is_named_and_its_share_shown_below(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("peftport.progress.time.monotonic", lambda: now[0])
    with Shares() as shares:
        for number in (1, 2):
            shares.begin(f"port {number} of 2")
            now[0] += 60.0
            shares.show(0.5, "layer 1 of 2")
        written = sys.stderr.getvalue()
    lines = written.replace("\r\x1b[K", "\n").split("\n")
    assert [line for line in lines if line.startswith("port ")] == ["port 1 of 2", "port 2 of 2"]
    assert sum("50%  layer 1 of 2" in line for line in lines) == 2


@pytest.mark.parametrize("told", [losses_to_stderr, lambda steps: StepProgress(steps).show])
def test_a_training_says_how_long_it_will_still_take(told, monkeypatch):
    """By the steps that were seen: one in five seconds leaves 30 seconds for six."""
    now = [100.0]
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    monkeypatch.setattr("peftport.cli.progress.time.monotonic", lambda: now[0])
    show = told(8)
    for step in range(1, 9):
        now[0] += 5
        show(step, 0.5)
    lines = file.getvalue().splitlines()
    assert lines[0] == "step      1 of 8  loss 0.5000"
    assert lines[1] == "step      2 of 8  loss 0.5000, about 30 s left"
    assert lines[-1] == "step      8 of 8  loss 0.5000"


def test_what_is_left_follows_from_what_was_done_and_not_from_loading(monkeypatch):
    """Loading takes a minute here, and then a row a second: 99 rows of 100 take no 99 minutes."""
    now = [100.0]
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    for clock in ("peftport.progress", "peftport.cli.progress"):
        monkeypatch.setattr(f"{clock}.time.monotonic", lambda: now[0])
    with Shares() as shares:
        now[0] += 60
        for row in range(1, 101):
            shares.show(row / 100, "rows tested")
            now[0] += 1
    lines = file.getvalue().splitlines()
    assert lines[0] == "  1%  rows tested"
    assert lines[1] == " 11%  rows tested, about 89 s left"
    assert all("min left" not in line for line in lines)
