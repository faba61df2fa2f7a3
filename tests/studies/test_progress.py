"""Progress for terminals and for log files."""

from __future__ import annotations

import io

from peftport.studies.progress import Lines, State


def state(known: int, **changes) -> State:
    made = {"total": 318, "failed": 0, "recorded": known, "seconds": 60.0, "left": 0.5}
    return State(known=known, **{**made, **changes})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_state_says_runs_speed_time_left_and_failures():
    assert state(120, failed=2).text() == "120/318 runs, 120 a minute, 60 s left, 2 failed"
    assert state(0, seconds=0.0, left=1.0).text() == "0/318 runs"
    assert state(318, left=0.0).text() == "318/318 runs, 318 a minute"


def test_speed_counts_what_this_sitting_recorded():
    assert "10 a minute" in state(300, recorded=10).text()


def test_a_file_gets_whole_lines_now_and_then_and_the_last_one(monkeypatch):
    now, stream = [100.0], io.StringIO()
    monkeypatch.setattr("peftport.progress.time.monotonic", lambda: now[0])
    lines = Lines(stream, every=60.0)
    lines.show(state(0))
    now[0] += 60.0
    lines.show(state(1))
    lines.show(state(2))
    lines.end(state(3))
    written = stream.getvalue()
    assert written.endswith("\n")
    assert [line.split("/")[0] for line in written.splitlines()][-2:] == ["1", "3"]
    assert not {"\r", "\x1b", "\b"} & set(written)


def test_a_line_that_says_nothing_new_is_not_written_again():
    stream = io.StringIO()
    lines = Lines(stream, every=0.0)
    for _ in range(5):
        lines.show(state(1))
    lines.end(state(1))
    assert len(stream.getvalue().splitlines()) == 1


def test_a_terminal_gets_one_line_that_is_written_over(monkeypatch):
    now, stream = [100.0], Terminal()
    monkeypatch.setattr("peftport.progress.time.monotonic", lambda: now[0])
    lines = Lines(stream)
    lines.show(state(1))
    now[0] += 1.0
    lines.show(state(2))
    lines.end(state(2))
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r\x1b[K") == 3
