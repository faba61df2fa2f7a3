"""Memory that is freed is kept, so that a buffer taken again costs no new pages."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import pytest

from peftport.memory import GROUPS, FreedMemory, control_groups, left_in_group

SCRIPT = """
import resource
from peftport.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"1") * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print(faults(), faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone is told so")
def test_a_buffer_taken_again_costs_no_new_pages():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    first, again = map(int, done.stdout.split())
    assert again < first / 10


MAPPED = """
import sys
import numpy as np
from peftport.memory import let_go_of_pages, resident_now

data = np.memmap(sys.argv[1], np.uint8, mode="c", offset=100)
before = resident_now()
first = int(data.sum())
read = resident_now()
let_go_of_pages(data.ctypes.data, data.nbytes)
print(read - before, resident_now() - before, int(data.sum()) == first)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone is asked to")
def test_pages_of_a_file_that_are_let_go_of_count_no_longer_and_come_back(tmp_path):
    (tmp_path / "file").write_bytes(b"1" * 2**25)
    run = [sys.executable, "-c", MAPPED, str(tmp_path / "file")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    read, left, same = done.stdout.split()
    assert float(read) > 0.9 * 2**25
    assert float(left) < 0.1 * 2**25
    assert same == "True"


SCATTERED = """
from peftport.memory import FreedMemory, keep_freed_memory, resident_now

def step(count):
    lasting = []
    large = [(bytearray(b"1") * 2**20, lasting.append(bytearray(10_000))) for _ in range(count)]
    return lasting  # they lie between the large ones, which are free now

keep_freed_memory()
freed, held = FreedMemory(), []
lasting = [step(100)]
freed.after_step()
lasting.append(step(900))
held.append(resident_now())
freed.after_step()
held.append(resident_now())
print(*(int(each / 2**20) for each in held))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone is told so")
def test_what_steps_leave_free_between_what_lasts_is_given_back_where_it_is_much():
    done = subprocess.run(
        [sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert before > 850
    assert after < before - 800


def test_nothing_is_given_back_while_steps_hold_no_more_than_they_need(monkeypatch):
    given, held = [], iter([4e9, 5e9, 5.2e9, 6e9, 5e9, 5.1e9])
    monkeypatch.setattr("peftport.memory.resident_now", lambda: next(held))
    monkeypatch.setattr("peftport.memory.give_freed_memory_back", lambda: given.append(True))
    freed = FreedMemory()
    counts = []
    for _ in range(6):
        freed.after_step()
        counts.append(len(given))
    assert counts == [0, 0, 0, 1, 1, 1]


COLLECTIONS = """
import gc
from peftport.memory import collect_rarely

class Cycle:
    def __init__(self):
        self.me = self
    def __del__(self):
        print("looked for at the end")

collect_rarely()
before = gc.get_stats()[0]["collections"]
kept = [Cycle(), *([] for _ in range(10_000))]
print(gc.get_stats()[0]["collections"] - before, "collections")
"""


def test_cycles_are_not_looked_for_while_things_are_made_nor_when_the_process_ends():
    done = subprocess.run(
        [sys.executable, "-c", COLLECTIONS], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0 collections\n"


BETWEEN_HOSTS = """
import torch
from peftport.memory import keep_freed_memory
from peftport.studies.starts import load_once

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

keep_freed_memory()
load_once("lab:small", "fp32")
before = resident()
buffers = torch.ones(2**26)  # 256 MiB, as training takes and frees them
del buffers
kept = resident() - before
load_once("lab:small-twin", "fp32")
print(kept, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone is told so")
def test_what_training_took_on_one_host_is_given_back_before_another_is_loaded():
    done = subprocess.run(
        [sys.executable, "-c", BETWEEN_HOSTS], capture_output=True, text=True, check=True
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 2**27 > left


STARTED = """
import subprocess
import sys
mine = bytearray(b"1") * 2**28
child = "from peftport.memory import resident_peak; print(int(resident_peak()))"
subprocess.run([sys.executable, "-c", child], check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")
def test_the_peak_of_a_program_is_its_own_and_not_that_of_the_one_that_started_it():
    done = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True, check=True
    )
    assert 2**20 < int(done.stdout) < 2**28


FORGOTTEN = """
from peftport.memory import forget_peak, keep_freed_memory, resident_peak
keep_freed_memory()
held = forget_peak()
bytearray(b"1") * 2**28
large = resident_peak() - held
held = forget_peak()
bytearray(b"1") * 2**24
print(int(large), int(resident_peak() - held))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")
def test_a_small_peak_is_seen_after_a_large_one():
    done = subprocess.run(
        [sys.executable, "-c", FORGOTTEN], capture_output=True, text=True, check=True
    )
    large, small = map(int, done.stdout.split())
    assert large > 2**27
    assert 2**23 < small < 2**26


GROUP = {"max": "6000", "current": "5000", "stat": "anon 10\nactive_file 300\ninactive_file 40\n"}


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (GROUP, 1340),
        ({**GROUP, "max": "max"}, math.inf),
        ({**GROUP, "stat": ""}, 1000),
        ({}, math.inf),
    ],
)
def test_a_group_with_a_limit_leaves_what_it_does_not_use_but_for_files(tmp_path, said, left):
    for name, text in said.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert left_in_group(tmp_path) == left


def test_a_process_s_groups_lie_within_one_another():
    inner = control_groups()
    assert inner[-1] == GROUPS
    assert all(one.parent == other for one, other in pairwise(inner))
