"""How this process keeps its memory, and how much its control groups leave it."""

from __future__ import annotations

import atexit
import ctypes
import gc
import math
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_LARGEST = 2**31 - 1
_DONT_NEED = 4
_COLLECT_AFTER = (20_000, 20, 50)
_SPARE, _ANY = 1.2, 2.0**29
"""What a process may hold beyond the most that one step has needed: a share of it, and bytes."""
_PAGES, _PAGE = Path("/proc/self/statm"), resource.getpagesize()
STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
GROUPS, _GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_FILES = ("active_file", "inactive_file")
_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, instead of giving it back to the system.

    Every training step takes and frees the same large buffers. As glibc comes, each of them is
    mapped anew, page by page, which with many lanes takes a quarter of a step. Elsewhere than
    with glibc this does nothing. Threads share one heap: heaps of their own give large buffers
    back.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST)
        mallopt(_M_ARENA_MAX, 1)


def give_freed_memory_back() -> None:
    """Give the system what is freed by now, where large buffers of other sizes come next."""
    gc.collect(0)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def let_go_of_pages(address: int, size: int) -> None:
    """Take a part of a file that is mapped, and was only read, out of this process's memory, where
    its pages count and stay; those that are read again come back. Only Linux is asked to."""
    advise = getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
    if advise is not None:
        before = address % _PAGE
        advise(ctypes.c_void_p(address - before), ctypes.c_size_t(size + before), _DONT_NEED)


class FreedMemory:
    """Gives freed memory back where much of it lies between what is in use.

    Steps over batches of other sizes take buffers of other sizes, which fit into none that is free:
    what a process holds grows with every step, far beyond what the largest one needs.
    """

    def __init__(self) -> None:
        self._needed, self._fresh = 0.0, True

    def after_step(self) -> None:
        """To be called after each step; most times it does nothing but look."""
        held = resident_now()
        if self._fresh:
            self._needed, self._fresh = max(self._needed, held), False
        elif held > _SPARE * self._needed + _ANY:
            give_freed_memory_back()
            self._fresh = True


def resident_now() -> float:
    """Bytes that this process holds now; 0 where the system does not tell."""
    try:
        return float(_PAGE * int(_PAGES.read_text().split()[1]))
    except OSError:
        return 0.0


def resident_peak() -> float:
    """Bytes of this process's resident memory at their highest so far.

    Linux tells it of the program that runs; what `getrusage` tells there includes the program that
    started it, which may have been a large one.
    """
    if STATUS.exists() and (found := _PEAK.search(STATUS.read_text())):
        return 1024.0 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def forget_peak() -> float:
    """Give back what is freed, and begin the peak anew: bytes that this process holds now.

    Linux can do so. Elsewhere the peak stays the highest so far, behind which whatever takes less
    than something before it cannot be seen.
    """
    give_freed_memory_back()
    with suppress(OSError):
        _FORGET.write_text("5")  # proc(5): resets the peak of the resident memory
    return resident_peak()


def control_groups() -> list[Path]:
    """The control group that this process is in, and those that this one is in."""
    own = ""
    with suppress(OSError):
        lines = _GROUP.read_text().splitlines()
        own = next((line[4:] for line in lines if line.startswith("0::/")), "")
    here = GROUPS / own
    return [here, *(group for group in here.parents if group.is_relative_to(GROUPS))]


def left_in_group(group: Path) -> float:
    """Bytes that a control group's limit leaves; infinite without one.

    Files that are kept in memory count as used there, and give way to what needs the place.
    """
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return float(limit - used + sum(int(kept.get(name, 0)) for name in _FILES))
    except (OSError, ValueError):
        return math.inf


def collect_rarely() -> None:
    """Have Python look for unreachable cycles rarely, and not once more when the process ends.

    torch and transformers bring a million objects, none of which is ever garbage. As Python
    comes, it goes through all of them time and again while they are imported, and once more at
    the end of the process.
    """
    gc.set_threshold(*_COLLECT_AFTER)
    atexit.register(gc.freeze)
