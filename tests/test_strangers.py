"""Every file of a stranger is read, or ends in exit code 2 with an error that says why.

`make fuzz` tries 10,000 inputs; here a few for each reader are drawn, the same at every run.
"""

from __future__ import annotations

import copy
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from good_files import write_good
from peftport.cli import app
from peftport.errors import BadInput
from peftport.forecast.signals import compare_weights
from peftport.hosts.loading import load_model
from peftport.porting.means import Side
from strangers import CALLED, a_stranger

pytestmark = pytest.mark.long

SECONDS = 20
INPUTS = int(os.environ.get("PEFTPORT_FUZZ", "0"))


@dataclass(frozen=True)
class Reader:
    """A file, and a command that reads it; {} is the folder that all files lie in."""

    file: str
    command: str
    share: int = 1

    def __str__(self) -> str:
        verb = self.command.split(" --")[0] + " --texts" * ("--texts" in self.command)
        return f"{verb.replace('{}/', '')} < {self.file}"


CHECK = "check {}/modules/%s --host {}/hosts/%s"
TEST = "test {}/modules/own --host {}/hosts/%s --task {}/task/task.yaml --limit-test 2"
TEXTS = CHECK % ("own", "llama") + " --forecast --texts {}"
TEXT_FORMS = ("txt", "json", "jsonl", "csv", "parquet")
READERS = (
    Reader("modules/own/module.json", CHECK % ("own", "llama"), 3),
    Reader("modules/own/module.safetensors", CHECK % ("own", "llama"), 2),
    Reader("modules/lora/adapter_config.json", CHECK % ("lora", "llama"), 3),
    Reader("modules/lora/adapter_model.safetensors", CHECK % ("lora", "llama"), 2),
    Reader("modules/lora/peftport.json", CHECK % ("lora", "llama")),
    Reader("modules/prefix/adapter_config.json", CHECK % ("prefix", "llama"), 2),
    Reader("modules/prefix/adapter_model.safetensors", CHECK % ("prefix", "llama")),
    Reader("modules/head/adapter_config.json", CHECK % ("head", "bert")),
    Reader("modules/head/adapter_model.safetensors", CHECK % ("head", "bert")),
    Reader("modules/bottleneck/adapter_config.json", CHECK % ("bottleneck", "bert"), 2),
    Reader("modules/bottleneck/adapter.safetensors", CHECK % ("bottleneck", "bert")),
    Reader("modules/bottleneck/head_config.json", CHECK % ("bottleneck", "bert"), 2),
    Reader("modules/bottleneck/model_head.safetensors", CHECK % ("bottleneck", "bert")),
    Reader("modules/compacter/adapter_config.json", CHECK % ("compacter", "llama"), 2),
    Reader("modules/lora-pickled/adapter_model.bin", CHECK % ("lora-pickled", "llama"), 2),
    Reader(
        "modules/bottleneck-pickled/pytorch_adapter.bin", CHECK % ("bottleneck-pickled", "bert")
    ),
    Reader(
        "modules/bottleneck-pickled/pytorch_model_head.bin", CHECK % ("bottleneck-pickled", "bert")
    ),
    Reader("modules/own/README.md", TEST % "llama" + " --to-card"),
    Reader("hosts/llama/tokenizer.json", TEST % "llama", 3),
    Reader("hosts/llama/tokenizer_config.json", TEST % "llama", 2),
    Reader("hosts/llama-merges/vocab.json", TEST % "llama-merges"),
    Reader("hosts/llama-merges/merges.txt", TEST % "llama-merges"),
    Reader("hosts/llama-words/vocab.txt", TEST % "llama-words"),
    Reader("gguf/tiny.gguf", "hosts describe {}/gguf/tiny.gguf", 4),
    Reader("hosts/llama/config.json", CHECK % ("own", "llama"), 2),
    Reader("hosts/llama/config.json", "hosts describe {}/hosts/llama", 2),
    Reader("hosts/t5/config.json", "hosts describe {}/hosts/t5", 2),
    Reader("hosts/bert/model.safetensors", "hosts describe {}/hosts/bert", 2),
    Reader("hosts/llama/peftport_host.json", "hosts describe {}/hosts/llama"),
    Reader("study.yaml", "study plan {}/study.yaml --no-measure", 4),
    Reader("task/rows.jsonl", "study plan {}/study.yaml --no-measure"),
    Reader("task/rows.csv", CHECK % ("own", "llama") + " --task {}/task/rows.csv"),
    Reader("task/rows.json", CHECK % ("own", "llama") + " --task {}/task/rows.json"),
    Reader("task/rows.parquet", CHECK % ("own", "llama") + " --task {}/task/rows.parquet", 2),
    Reader("task/chats.jsonl", CHECK % ("own", "llama") + " --task {}/task/chats.jsonl"),
    Reader("task/choices.csv", CHECK % ("own", "llama") + " --task {}/task/choices.csv"),
    Reader("task/task.yaml", CHECK % ("own", "llama") + " --task {}/task/task.yaml", 2),
    Reader("store/study.sqlite", "study status {}/store", 2),
    Reader("store/study.sqlite", "study export {}/store", 2),
    Reader("store/study.sqlite", "study report {}/store --out {}/report"),
    *(Reader(f"task/rows.{form}", TEXTS + f"/task/rows.{form}") for form in TEXT_FORMS),
    *(Reader(f"texts/rows.{form}", TEXTS + "/texts") for form in ("txt", "jsonl")),
    *(
        Reader(f"export/rows.{form}", f"study report {{}}/export/rows.{form} --out {{}}/report")
        for form in ("csv", "parquet", "json")
    ),
    Reader("store/driver.lock", "study status {}/store"),
)


@pytest.fixture(scope="module")
def good(tiny_host, tiny_task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files of every kind."""
    folder = tmp_path_factory.mktemp("strangers")
    write_good(folder, tiny_host, tiny_task)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _made_once():
    """What no stranger's file is part of is made once: most of the time of a call is that."""
    with pytest.MonkeyPatch.context() as patch:
        make_once(patch)
        yield


def make_once(patch: pytest.MonkeyPatch) -> None:
    """Keep the command line, the weights of hosts, which are good ones wherever a host is run, and
    how far they are apart."""
    made: dict[Any, Any] = {}

    def kept(make: Callable[..., Any], key: Callable[..., Any], *, copied: bool) -> Any:
        def once(*args: Any, **options: Any) -> Any:
            name = (make.__qualname__, key(*args), *options.items())
            if name not in made:
                made[name] = make(*args, **options)
            return copy.deepcopy(made[name]) if copied else made[name]

        return once

    def sides(origin: Side, receiver: Side, layers: Sequence[str]) -> Any:
        return origin.folder, receiver.folder, tuple(layers)

    patch.setattr("typer.testing._get_command", lru_cache(typer.testing._get_command))
    patch.setattr("peftport.hosts.host.load_model", kept(load_model, lambda *a: a, copied=True))
    compared = kept(compare_weights, sides, copied=False)
    patch.setattr(import_module("peftport.forecast.forecast"), "compare_weights", compared)


def outcome(command: str, folder: Path) -> tuple[int, str]:
    """Exit code and error of a command, as `peftport.cli.main` ends it; anything else is raised."""
    shutil.rmtree(folder / "report", ignore_errors=True)
    arguments = [part.replace("{}", str(folder)) for part in command.split()]
    with no_longer_than(SECONDS), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of figures that no run has
        ended = CliRunner().invoke(app, arguments)
    if isinstance(ended.exception, BadInput):
        return 2, str(ended.exception)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.stderr


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Fail when the block is not done after so many seconds, whatever it waits for."""
    late = []

    def stop(*_):
        late.append(True)
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not late, f"it took more than {seconds} seconds"


@contextmanager
def in_place_of(path: Path, put: Callable[[Path], None]) -> Iterator[None]:
    """Put something in the place of a good file for a while."""
    kept = path.read_bytes()
    path.unlink()
    try:
        put(path)
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        path.write_bytes(kept)


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_good_files_are_read(reader, good):
    assert outcome(reader.command, good) == (0, "")


@pytest.mark.timeout(1200 if INPUTS else 120)
@pytest.mark.parametrize("reader", READERS, ids=str)
def test_a_file_of_a_stranger_is_read_or_refused(reader, good):
    shares = sum(each.share for each in READERS)
    examples = -(-INPUTS * reader.share // shares) if INPUTS else 4 * reader.share

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=not INPUTS,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def tried(data):
        path = good / reader.file
        put = data.draw(a_stranger(path))
        with in_place_of(path, put):
            code, error = outcome(reader.command, good)
        assert code in (0, 2)
        assert code == 0 or error
        assert not CALLED.exists(), "what a file says to call was called"

    tried()
