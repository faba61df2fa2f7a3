"""What goes into a host's layers lies on the disk while no layer needs it, if it is large."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest
import torch

from families import FAMILIES
from peftport.errors import BadInput
from peftport.porting import aside
from peftport.porting.activations import Spaces
from peftport.porting.aside import Aside
from peftport.porting.estimate import Load
from peftport.porting.grades import ClassGrade
from peftport.porting.walk import Walk
from peftport.training.readout import ClassReadout
from porting.hosts_and_texts import twin
from porting.spaces import geometry, known_maps
from porting.test_activations_cost import rows_of
from porting.test_estimate import requested
from porting.test_layerwise import mapped
from porting.test_procrustes import module_of
from tiny_runs import host_in, task_in

__all__ = ["twin"]


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """Everything goes to the disk, into an empty folder."""
    monkeypatch.setattr(aside, "_FEW", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_is_put_aside_comes_back_and_is_nowhere_meanwhile(on_disk):
    place, one, other = Aside(100), torch.randn(3, 4), torch.arange(6.0).bfloat16().view(2, 3)
    before = [each.clone() for each in (one, other)]
    place.put(one)
    place.put(other)
    for tensor, values in zip((one, other), before, strict=True):
        assert tensor.isnan().all()
        assert tensor.shape == values.shape
        assert tensor.untyped_storage().nbytes() == values.dtype.itemsize
        for _ in range(2):
            with place.at_hand(["no tensor", tensor]):
                assert torch.equal(tensor, values)
        assert tensor.isnan().all()


def test_parts_come_back_as_one(on_disk):
    place, parts = Aside(100), [torch.randn(2, rows, 4) for rows in (3, 1, 2)]
    before = torch.cat(parts, dim=1)
    for part in parts:
        place.put(part)
    whole = place.joined(parts)
    assert whole.isnan().all()
    for _ in range(2):
        with place.at_hand([whole]):
            assert torch.equal(whole, before)
    assert whole.untyped_storage().nbytes() == 4


def test_gradients_come_to_a_tensor_that_lies_aside(on_disk):
    leaf = torch.ones(2, 3, requires_grad=True)
    Aside(100).put(leaf)
    leaf.backward(torch.full((2, 3), 2.0))
    assert torch.equal(leaf.grad, torch.full((2, 3), 2.0))


def test_the_file_has_no_name_and_goes_with_what_lies_there(on_disk):
    place, opened = Aside(1 << 20), len(os.listdir("/proc/self/fd"))
    place.put(torch.ones(5))
    assert not list(on_disk.iterdir())
    del place
    assert len(os.listdir("/proc/self/fd")) == opened - 1


def test_a_few_stay_in_memory(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    place, tensor = Aside(1 << 20), torch.ones(3)
    place.put(tensor)
    with place.at_hand([tensor]):
        assert tensor.sum() == 3
    assert tensor.sum() == 3


def walked(host, sparing: bool = False) -> dict[tuple[str, str], torch.Tensor]:
    """All that a walk gives, of a graded pass and another one."""
    rows = rows_of(host)
    if rows.decoder_ids is not None:  # it reads one token, as tasks have it
        places = torch.arange(len(rows.input_ids))
        rows = replace(
            rows, decoder_ids=rows.decoder_ids[:, :1], places={**rows.places, "decoder": places}
        )
    readout = ClassReadout(2, None if host.geometry.kind == "encoder" else (5, 3))
    head = {"head.weight": torch.ones(2, host.geometry.width), "head.bias": torch.zeros(2)}
    walk = Walk(host, [rows, rows], ClassGrade(readout))
    found = {("end", layer): walk.end(layer) for layer in host.geometry.blocks}
    points = tuple(host.geometry.linears)
    for layer in walk.layers(Spaces(points, points, points), head, sparing):
        seen = {("in", point): each for point, each in layer.observed.inputs.items()}
        seen |= {("out", point): each for point, each in layer.observed.outputs.items()}
        seen |= {("slope", point): each for point, each in layer.gradients.items()}
        assert (layer.aside is not None) is sparing
        if layer.aside is not None:
            assert all(each.isnan().all() for each in seen.values())
            with layer.aside.at_hand(seen.values()):
                seen = {what: each.clone() for what, each in seen.items()}
        found |= seen
    return found


@pytest.mark.parametrize("family", [*FAMILIES, "albert", "bart", "bloom", "deberta-v2", "gpt_neox"])
def test_a_walk_sees_the_same_to_the_bit(family, tiny_host, monkeypatch):
    host = host_in(tiny_host(family))
    monkeypatch.setattr("peftport.porting.reading.tokens_at_once", lambda _: 16)
    monkeypatch.setattr(aside, "_FEW", 1 << 30)
    in_memory = walked(host)
    monkeypatch.setattr(aside, "_FEW", 0)
    for sparing in (False, True):
        found = walked(host, sparing)
        assert found.keys() == in_memory.keys()
        for what, seen in found.items():
            assert torch.equal(seen, in_memory[what]), what


@pytest.mark.parametrize("case", ["lora", "houlsby"])
def test_a_port_is_the_same_to_the_bit(case, on_disk, twin, tiny_host, tiny_task, monkeypatch):
    host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    donor = module_of(case, host, task_in(tiny_task))
    made = mapped(donor, host, wide, prior=True).tensors
    monkeypatch.setattr(aside, "_FEW", 1 << 30)
    for name, tensor in mapped(donor, host, wide, prior=True).tensors.items():
        assert torch.equal(tensor, made[name]), name


@pytest.mark.parametrize("case", ["lora", "houlsby", "prefix"])
def test_a_port_between_large_hosts_is_the_same_to_the_bit(
    case, on_disk, twin, tiny_host, tiny_task, monkeypatch
):
    """On one thread, for sums on several are other ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
        donor = module_of(case, host, task_in(tiny_task))
        made = mapped(donor, host, wide, prior=True).tensors
        monkeypatch.setattr("peftport.porting.layerwise.is_large", lambda _: True)
        found = mapped(donor, host, wide, prior=True).tensors
    finally:
        torch.set_num_threads(threads)
    assert found.keys() == made.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, made[name]), name


def test_where_samples_lie_aside_wide_places_go_first_and_by_themselves(on_disk, monkeypatch):
    shape = geometry("llama")
    points = tuple(p for p in shape.linears if p.startswith("decoder.0."))
    maps, at_work, seen = known_maps(shape, shape), [], {}
    maps.asides = (Aside(100),)
    monkeypatch.setattr("peftport.porting.fitted._ALONE", shape.width)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)

    def do(point: str) -> str:
        at_work.append(point)
        seen[point] = torch.get_num_threads(), maps.inputs(point)
        return point

    try:
        assert maps.each(points, do) == list(points)
    finally:
        torch.set_num_threads(threads)
    wide = [
        p for p in points if max(shape.linears[p].inputs, shape.linears[p].outputs) > shape.width
    ]
    assert 0 < len(wide) < len(points)
    assert at_work[: len(wide)] == wide
    assert {p for p, (number, _) in seen.items() if number == 2} == set(wide)


def test_where_samples_lie_aside_no_map_is_kept_but_of_inputs_that_are_read_alike(on_disk):
    shape = geometry("llama")
    maps = known_maps(shape, shape)
    place = Aside(1 << 20)
    for side in (maps.origin, maps.receiver):
        for tensor in {id(t): t for t in [*side.inputs.values(), *side.outputs.values()]}.values():
            place.put(tensor)
    maps.asides = (place,)
    maps.fit_all(Spaces(tuple(shape.linears), tuple(shape.linears), tuple(shape.linears)))
    assert maps.fit.asked == []
    one, other, *_ = shape.linears
    assert maps.inputs(one) is maps.inputs(one)
    assert maps.inputs(one).matrix.isfinite().all()
    assert maps.changes(one) is not maps.changes(one)
    maps.inputs(other)
    maps.inputs(one)
    assert maps.fit.asked == ["inputs", "changes", "changes", "inputs", "inputs"]
    assert maps.receiver.inputs[one].isnan().all()


DEEP = """
import sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from peftport.hosts import load_host
from peftport.memory import forget_peak, keep_freed_memory, resident_peak
from peftport.porting import aside
from peftport.porting.activations import Spaces
from peftport.porting.grades import ClassGrade
from peftport.porting.reading import TokenRows
from peftport.porting.walk import Walk
from peftport.training.readout import ClassReadout

tiny, folder, aside._FEW = sys.argv[1], sys.argv[2], int(sys.argv[3])
keep_freed_memory()
ids = torch.full((256, 64), 5)
places = {"decoder": torch.arange(64)}
for layers in (2, 8, 16):
    sizes = {"hidden_size": 128, "head_dim": 32, "num_hidden_layers": layers}
    config = AutoConfig.from_pretrained(tiny, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(f"{folder}/{layers}")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(f"{folder}/{layers}")
    host = load_host(f"{folder}/{layers}")
    points = tuple(host.geometry.linears)
    held = forget_peak()
    rows = TokenRows(ids, torch.ones_like(ids), None, places)
    for _ in Walk(host, [rows], ClassGrade(ClassReadout(2, (5, 3)))).layers(Spaces((), (), points)):
        pass
    print(resident_peak() - held)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")
def test_a_host_of_twice_the_depth_takes_no_more_memory(tiny_host, tmp_path):
    """The stream behind a layer is 8 MiB here, 64 MiB in all if it is kept.

    What a process holds besides differs by up to 15 MiB from run to run, with whatever else the
    machine does; what is kept of a layer is there in every run.
    """

    def grown(few: int) -> float:
        run = [sys.executable, "-c", DEEP, tiny_host("llama"), tmp_path / str(few), str(few)]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        _, eight, sixteen = map(float, done.stdout.split())
        return sixteen - eight

    assert grown(1 << 30) > 5 * 2**23, "in memory"
    assert any(grown(0) < 2 * 2**23 for _ in range(3))


def test_a_disk_without_room_is_bad_input_that_names_the_folder(on_disk, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(BadInput) as caught:
        Aside(3_400_000_000)
    for said in (str(on_disk), "3.4 GB", "No space left", "TMPDIR", "--text-count"):
        assert said in str(caught.value)


SMALL_FILES = """
import resource, torch
from peftport.errors import BadInput
from peftport.porting import aside
aside._FEW = 0
place = aside.Aside(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
place.put(torch.ones(1 << 17))
try:
    place.put(torch.ones(1 << 18))
except BadInput as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits files")
def test_a_disk_that_fills_up_meanwhile_is_bad_input():
    done = subprocess.run(
        [sys.executable, "-c", SMALL_FILES], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout


def test_the_estimate_counts_it_on_the_disk_and_not_in_memory(monkeypatch):
    method, request = requested("procrustes")
    monkeypatch.setattr(aside, "_FEW", 1 << 30)
    in_memory = method.estimate(request, Load(10_000))
    assert in_memory.temporary == 0
    assert "meanwhile" not in in_memory.text()
    monkeypatch.setattr(aside, "_FEW", 0)
    found = method.estimate(request, Load(10_000))
    streams = 4 * 240_000 * (32 * 2 + 48 * 4)  # tokens, and widths times layers
    assert found.temporary == found.record()["temporary_bytes"] == streams
    assert in_memory.memory - found.memory == pytest.approx(1.3 * streams)
    assert found.text().endswith("0.2 GB of disk meanwhile")
