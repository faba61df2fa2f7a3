"""One driver per study, whoever dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from peftport.errors import BadInput
from peftport.studies.lock import driver_lock, driver_of, require_free

HOLDER = """
import sys, time
from pathlib import Path
from peftport.studies.lock import driver_lock
with driver_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_study_with_a_driver_is_not_free_and_one_without_is(tmp_path, holder):
    with pytest.raises(BadInput, match=f"is being run by process {holder.pid} on "):
        require_free(tmp_path)
    holder.kill()
    holder.wait()
    require_free(tmp_path)


def test_a_second_driver_is_refused_with_the_firsts_process_and_machine(tmp_path, holder):
    words = f"process {holder.pid} on {socket.gethostname()}, since "
    with pytest.raises(BadInput, match=words), driver_lock(tmp_path):
        pass
    assert driver_of(tmp_path)["pid"] == holder.pid


def test_a_killed_driver_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert driver_of(tmp_path) is None
    with driver_lock(tmp_path):
        assert driver_of(tmp_path)["pid"] == os.getpid()
    assert driver_of(tmp_path) is None


def test_a_folder_that_was_never_driven_has_no_driver(tmp_path):
    assert driver_of(tmp_path) is None


def test_a_holder_that_has_not_yet_said_who_it_is_is_refused_all_the_same(tmp_path, holder):
    (tmp_path / "driver.lock").write_text("")
    with pytest.raises(BadInput, match="another process"), driver_lock(tmp_path):
        pass
