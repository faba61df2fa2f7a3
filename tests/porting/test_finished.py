"""A port that is killed goes on where it was, to the same result."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from forecast.test_signals import a_copy
from peftport.errors import BadInput
from peftport.porting import finished
from peftport.porting.finished import FinishedLayers, port_mark, work_beside
from peftport.porting.reading import TokenRows
from peftport.training.readout import ClassReadout
from porting.hosts_and_texts import twin
from porting.test_procrustes import calibration, module_of
from tiny_runs import host_in, task_in

__all__ = ["twin"]

PORT = """
import sys, time
from pathlib import Path
import peftport as pp
from peftport.porting import finished
from peftport.techniques.{technique}.mapping import {mapping} as ByMaps

module, host, texts, out, log, pause = sys.argv[1:]
finished.EVERY = 0.0
of_layer = ByMaps.layer

def logged(self, request, donor, maps, seen):
    with open(log, "a") as file:
        file.write(maps.layer + " ")
    if maps.layer == pause:
        print("half", flush=True)
        time.sleep(60)
    return of_layer(self, request, donor, maps, seen)

ByMaps.layer = logged
options = {{"prefix_steps": 5}}
pp.port(module, host, method="procrustes", options=options, texts=texts, out=out, verify=False)
"""


def written(folder: Path) -> dict[str, bytes]:
    """Every file of a module but its card, which says how long the port took."""
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.suffix != ".md"}


@pytest.mark.parametrize(
    ("case", "technique", "mapping"),
    [("lora", "lora", "LoraByMaps"), ("prefix", "prefix", "PrefixByMaps")],
)
def test_a_port_that_is_killed_goes_on_where_it_was(
    case, technique, mapping, twin, tiny_host, tiny_task, tmp_path
):
    host, receiver = host_in(tiny_host("llama")), twin("deeper", "llama")
    module_of(case, host, task_in(tiny_task)).save(tmp_path / "donor")
    (tmp_path / "texts.txt").write_text("\n\n".join(calibration()[:60]))
    script = PORT.format(technique=technique, mapping=mapping)

    def begun(out: str, log: str, pause: str = "") -> subprocess.Popen[bytes]:
        given = [tmp_path / "donor", receiver, tmp_path / "texts.txt", tmp_path / out]
        asked = [sys.executable, "-c", script, *map(str, given), str(tmp_path / log), pause]
        return subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    whole = begun("whole", "of-whole")
    _, said = whole.communicate()
    assert whole.returncode == 0, said.decode()
    layers = (tmp_path / "of-whole").read_text().split()
    assert layers == ["decoder.3", "decoder.2", "decoder.1", "decoder.0"]

    half = begun("again", "of-half", pause="decoder.1")
    assert half.stdout is not None and half.stdout.readline() == b"half\n"
    half.send_signal(signal.SIGKILL)
    half.communicate()
    assert (tmp_path / "of-half").read_text().split() == layers[:3]
    assert not (tmp_path / "again").exists()
    assert (tmp_path / ".again.part").is_dir()

    rest = begun("again", "of-rest")
    _, said = rest.communicate()
    assert rest.returncode == 0, said.decode()
    assert "goes on where the same port was interrupted: 2 of 4 layers are mapped" in said.decode()
    assert (tmp_path / "of-rest").read_text().split() == layers[2:], "the others are made already"
    assert written(tmp_path / "again") == written(tmp_path / "whole")
    assert not (tmp_path / ".again.part").exists()


def test_layers_come_back_in_their_order_and_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(finished, "EVERY", 0.0)
    first, folder = FinishedLayers(tmp_path / "work"), tmp_path / "work"
    made = {"b": torch.rand(4, 3).mT, "a": torch.rand(2)}
    first.put("decoder.1", made)
    first.put("decoder.0", {})
    again = FinishedLayers(folder)
    assert list(again.layers) == ["decoder.1", "decoder.0"]
    assert list(again.tensors) == ["b", "a"]
    assert all(again.tensors[name].equal(made[name]) for name in made)


def test_short_ports_leave_no_files(tmp_path):
    FinishedLayers(tmp_path / "work").put("decoder.0", {"a": torch.ones(1)})
    assert not (tmp_path / "work").exists()


def test_a_file_that_cannot_be_read_is_made_again_and_the_others_stay(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(finished, "EVERY", 0.0)
    first = FinishedLayers(tmp_path)
    for number in range(3):
        first.put(f"decoder.{number}", {f"t{number}": torch.full((2,), float(number))})
    (tmp_path / "0001.safetensors").write_bytes(b"nothing")
    again = FinishedLayers(tmp_path)
    assert list(again.layers) == ["decoder.0", "decoder.2"]
    assert "0001.safetensors cannot be read" in caplog.text
    again.put("decoder.1", {"t1": torch.ones(2)})
    assert set(FinishedLayers(tmp_path).tensors) == {"t0", "t1", "t2"}


def test_other_tokens_or_other_code_are_another_port(tiny_host, tmp_path, monkeypatch):
    """What was finished by one is nothing to go on with for the other."""
    host = host_in(tiny_host("llama"))
    request, donor = a_copy(host)
    ids, places = torch.tensor([[3, 4]]), {"decoder": torch.tensor([0])}
    rows = TokenRows(ids, torch.ones_like(ids), None, places)

    def mark(rows=rows, readout=(5, 3), host=host, how="so"):
        read = (host, [rows], ClassReadout(2, readout))
        generator = torch.Generator().manual_seed(0)
        return port_mark(request, donor, (read, read), how, generator)

    assert mark() == mark()
    for other in (
        {"rows": replace(rows, input_ids=ids.flip(1))},
        {"rows": replace(rows, places={"decoder": torch.tensor([1])})},
        {"rows": replace(rows, labels=torch.tensor([[-1, 4]]))},
        {"readout": (5, 4)},
        {"host": host_in(tiny_host("gpt2"))},
        {"how": "other"},
    ):
        assert mark(**other) != mark()
    before = mark()
    monkeypatch.setattr(finished, "code_mark", lambda: "other")
    assert mark() != before


@pytest.mark.parametrize("error", [BadInput, KeyboardInterrupt])
def test_what_is_finished_stays_where_a_user_stops_and_goes_where_the_port_fails(error, tmp_path):
    with pytest.raises(error), work_beside(tmp_path / "out") as work:
        assert work is not None
        work.mkdir()
        raise error("so")
    assert work.exists() == (error is KeyboardInterrupt)
