"""Programs of strangers end, and what else goes on in this process does not notice."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from mmap import mmap
from pathlib import Path

import pytest

from peftport import limits
from peftport.errors import RunFailed
from peftport.limits import TooMuch, write_chat

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")
TURNS = [{"role": "user", "content": "half a \ud800 is no character, \U0001f600 is one"}]
PLAIN = "{{ bos_token }}{% for turn in messages %}{{ turn.role }}: {{ turn.content }}{% endfor %}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
LARGE = "{% set x = 'x' * 3000000000 %}{{ x|length }}"


def test_a_template_writes_what_it_writes():
    said = write_chat(PLAIN, TURNS, {"bos_token": "<s>"})
    assert said == f"<s>user: {TURNS[0]['content']}"


def test_what_a_template_refuses_is_told():
    with pytest.raises(TooMuch, match=r"^no system's turn$"):
        write_chat('{{ raise_exception("no system\'s turn") }}', TURNS, {})
    with pytest.raises(TooMuch, match="Expected an expression"):
        write_chat("{% if %}", TURNS, {})


def test_what_never_ends_is_stopped_and_the_next_is_written():
    begun = time.monotonic()
    with pytest.raises(TooMuch, match=r"more than 0\.2 seconds"):
        write_chat(ENDLESS, TURNS, {}, seconds=0.2)
    assert time.monotonic() - begun < 20
    assert write_chat("{{ messages[0].role }}", TURNS, {}) == "user"


@needs_proc
def test_what_takes_too_much_memory_is_stopped():
    for template in (LARGE, "{{ 'x' * 300000000 }}"):
        with pytest.raises(TooMuch, match="too much memory"):
            write_chat(template, TURNS, {})


@needs_proc
def test_other_threads_take_the_memory_that_they_need():
    """It failed where the whole process was limited."""
    write_chat(PLAIN, TURNS, {})
    stopped: list[BaseException] = []

    def slow() -> None:
        try:
            write_chat(ENDLESS, TURNS, {}, seconds=3.0)
        except TooMuch as error:
            stopped.append(error)

    thread = threading.Thread(target=slow)
    thread.start()
    time.sleep(0.3)
    with mmap(-1, 3 << 30) as taken:  # mapped, which a limit would refuse, and never touched
        assert len(taken) == 3 << 30
        assert thread.is_alive()
    thread.join()
    assert len(stopped) == 1


def test_threads_take_turns():
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        for _ in range(20):
            found[number] = write_chat("{{ messages[0].n }}", [{"role": "user", "n": number}], {})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: str(number) for number in range(4)}


def test_a_process_that_ended_is_started_anew():
    write_chat(PLAIN, TURNS, {})
    process = limits.CONFINED.process
    assert process is not None
    process.kill()
    process.wait()
    assert write_chat("{{ messages[0].role }}", TURNS, {}) == "user"


@pytest.mark.parametrize("missing", ["PROGRAM", "sys.executable"])
def test_where_none_can_be_started_it_is_said(missing, monkeypatch, tmp_path):
    monkeypatch.setattr(f"peftport.limits.{missing}", str(tmp_path / "nothing"))
    limits.CONFINED.end()
    with pytest.raises(RunFailed, match="no process for chat templates can be started"):
        write_chat(PLAIN, TURNS, {})


ASKS = """
import os, sys
from peftport import limits
limits.write_chat("x", [{"role": "user"}], {})
print(limits.CONFINED.process.pid, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
if sys.argv[1] == "killed while a template runs":
    import threading
    threading.Timer(0.5, lambda: os.kill(os.getpid(), 9)).start()
    endless = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
    limits.write_chat(endless, [{"role": "user"}], {})
"""


@needs_proc
@pytest.mark.parametrize("how", ["ends", "killed", "killed while a template runs"])
def test_it_ends_with_whoever_started_it(how):
    ended = subprocess.run([sys.executable, "-c", ASKS, how], capture_output=True, text=True)
    assert ended.stderr == ""
    status = Path(f"/proc/{int(ended.stdout)}/status")
    until = time.monotonic() + 10
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)


FORKS = """
import os
from peftport import limits
turns = [{"role": "user"}]
limits.write_chat("x", turns, {})
mine = limits.CONFINED.process.pid
child = os.fork()
assert limits.write_chat("{{ messages[0].role }}", turns, {}) == "user"
assert (limits.CONFINED.process.pid == mine) == (child != 0)
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert limits.write_chat("x", turns, {}) == "x"
"""


def test_a_process_that_was_forked_has_its_own():
    subprocess.run([sys.executable, "-c", FORKS], check=True)
