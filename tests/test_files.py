"""Files are written whole or not at all, and read with an error that names them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from peftport.errors import BadInput
from peftport.files import new_folder, read_json, read_yaml, write_atomic, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Broken(RuntimeError):
    pass


def test_a_file_is_written_with_the_folders_above_it(tmp_path):
    write_atomic(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"
    assert names(tmp_path / "a" / "b") == ["file"]


def test_a_failure_before_the_rename_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_):
        raise Broken

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(Broken):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_others_may_read_what_is_written(tmp_path):
    write_atomic(tmp_path / "file", b"content")
    with new_folder(tmp_path / "folder") as folder:
        write_json(folder / "file.json", {})
        (folder / "private").touch(mode=0o600)  # as safetensors makes its files
    for path in (tmp_path / "file", *(tmp_path / "folder").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "module"
    with new_folder(target) as folder:
        (folder / "one").write_text("1")
        assert not target.exists()
    assert names(target) == ["one"]
    assert names(tmp_path / "deep") == ["module"]


@pytest.mark.parametrize("failure", [Broken, KeyboardInterrupt])
def test_a_folder_that_fails_in_the_middle_leaves_nothing(tmp_path, failure):
    with pytest.raises(failure), new_folder(tmp_path / "module") as folder:
        (folder / "one").write_text("1")
        raise failure
    assert names(tmp_path) == []


def test_a_killed_process_leaves_nothing_at_the_target(tmp_path):
    target = tmp_path / "module"
    script = (
        "import sys, time; from pathlib import Path; from peftport.files import new_folder\n"
        f"with new_folder(Path({str(target)!r})) as folder:\n"
        "    (folder / 'one').write_text('1'); print('half', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    # What is left does not stand in the way of another try.
    with new_folder(target) as folder:
        (folder / "one").write_text("1")
    assert names(target) == ["one"]


def existing_file(path: Path) -> None:
    path.write_text("mine")


def existing_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_text("mine")


def dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("make", [existing_file, existing_folder, dangling_link])
def test_what_exists_is_refused_before_anything_is_written(tmp_path, make):
    make(tmp_path / "module")
    with (
        pytest.raises(BadInput, match=r"module exists already; give another --out or remove"),
        new_folder(tmp_path / "module"),
    ):
        pytest.fail("the block was entered")
    assert names(tmp_path) == ["module"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "module").mkdir()
    with new_folder(tmp_path / "module") as folder:
        (folder / "one").write_text("1")
    assert names(tmp_path / "module") == ["one"]


def test_what_appears_while_the_folder_is_written_is_not_written_over(tmp_path):
    with (
        pytest.raises(BadInput, match="exists already"),
        new_folder(tmp_path / "module") as folder,
    ):
        (folder / "one").write_text("1")
        existing_folder(tmp_path / "module")
    assert names(tmp_path) == ["module"]
    assert names(tmp_path / "module") == ["mine"]


def test_json_goes_out_and_comes_back(tmp_path):
    value = {"größe": [1, 2.5, None], "b": {"c": True}}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    text = (tmp_path / "file.json").read_text(encoding="utf-8")
    assert "größe" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("read", "content", "kind"),
    [
        (read_json, b"{", "JSON"),
        (read_json, b"\xff{}", "JSON"),
        (read_yaml, b"a: [", "YAML"),
        (read_yaml, b"\xff", "YAML"),
    ],
)
def test_what_cannot_be_read_is_bad_input_that_names_the_file(tmp_path, read, content, kind):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"{path} is not valid {kind}: ."):
        read(path)


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_a_missing_file_is_bad_input_that_names_it(tmp_path, read):
    with pytest.raises(BadInput, match=f"{tmp_path / 'file'} does not exist"):
        read(tmp_path / "file")
