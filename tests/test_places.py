"""Places are looked at before work begins, and fail with one message whoever writes."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from peftport import memory
from peftport.errors import BadInput, RunFailed
from peftport.files import new_folder, write_atomic
from peftport.memory import resident_peak
from peftport.places import require_new, require_writable, writing
from peftport.studies.lock import driver_lock

FULL = [errno.ENOSPC, errno.EDQUOT, errno.EIO]
CLOSED = [errno.EROFS, errno.EACCES]


@pytest.fixture(params=[*FULL, *CLOSED])
def broken(request, monkeypatch):
    """A disk on which nothing can be written, and the error that is expected of it."""

    def fail(*_, **__):
        raise OSError(request.param, os.strerror(request.param))

    for module, name in ((tempfile, "mkdtemp"), (tempfile, "mkstemp"), (os, "pwrite")):
        monkeypatch.setattr(module, name, fail)
    return RunFailed if request.param in FULL else BadInput, os.strerror(request.param)


@pytest.mark.parametrize("what", ["file", "folder", "before", "lock"])
def test_a_disk_that_is_full_or_closed_is_one_message_everywhere(what, broken, tmp_path):
    kind, reason = broken
    with pytest.raises(kind, match=f"cannot be written: {reason}\\. "):
        if what == "file":
            write_atomic(tmp_path / "file", b"")
        elif what == "folder":
            with new_folder(tmp_path / "folder"):
                pass
        elif what == "before":
            require_new(tmp_path / "folder")
        else:
            with driver_lock(tmp_path):
                pass
    assert not [path for path in tmp_path.iterdir() if path.name != "driver.lock"]


def test_what_libraries_in_rust_say_of_a_full_disk_is_said_so_as_well(tmp_path):
    with (
        pytest.raises(RunFailed, match="out cannot be written: No space left on device"),
        new_folder(tmp_path / "out"),
    ):
        raise Exception("Error while serializing: No space left on device (os error 28)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_safetensors_on_a_full_disk_is_one_of_these(tmp_path):
    with (
        pytest.raises((RunFailed, BadInput), match="cannot be written"),
        writing(tmp_path),
    ):
        save_file({"a": torch.zeros(99)}, "/dev/full/x")


def test_other_errors_are_let_through(tmp_path):
    for error in (KeyError("x"), FileNotFoundError(2, "x"), BadInput("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), writing(tmp_path):
            raise error


def test_a_place_that_is_fit_is_left_as_it_was(tmp_path):
    require_new(tmp_path / "a" / "b" / "c")
    require_writable(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/out", "file/deeper/out", "x" * 300, f"{'x' * 300}/out"])
def test_a_place_that_is_none_is_refused_before_work_begins(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot be written: (Not a directory|File name too long)"):
        require_new(tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here")
@pytest.mark.parametrize("name", ["/proc/out", "/proc/self/deeper/out"])
def test_a_place_where_nothing_can_be_made_is_refused_before_work_begins(name):
    with pytest.raises(BadInput, match=r"cannot be written: in /proc.* nothing can be made"):
        require_new(Path(name))


def test_memory_is_in_bytes_on_macos_too(monkeypatch):
    monkeypatch.setattr(memory, "STATUS", Path("/nowhere"))  # macOS has no /proc
    here = resident_peak()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert here / resident_peak() == pytest.approx(1024, rel=0.1)
