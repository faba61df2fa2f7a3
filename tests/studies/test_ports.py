"""Ports in processes of their own: the same module, its time and its memory, and its errors."""

from __future__ import annotations

import pytest

from modules.formats.modules import made, same
from peftport.errors import BadInput, RunFailed
from peftport.modules import HostName, Module
from peftport.porting import port
from peftport.studies.ports import PortJob, port_apart
from port_methods import extreme, soft
from tiny_runs import host_in

__all__ = ["extreme", "soft"]


@pytest.fixture
def lora(tiny_host) -> Module:
    return made(host_in(tiny_host("t5")), "lora")


def test_a_port_apart_is_the_same_port(lora, tiny_continuation):
    receiver = host_in(tiny_continuation("t5"))
    taken = port_apart(PortJob(lora, str(receiver.folder), "gaussian", {}, seed=3))
    name = HostName(name=str(receiver.folder), fingerprint=receiver.fingerprint)
    here = port(lora, receiver.geometry, name, "gaussian", seed=3).module
    assert same(taken.module, here)
    assert taken.module.record == here.record
    assert 0 < taken.seconds < 10


def test_it_is_given_options_texts_and_methods_of_other_packages(lora, soft, tiny_host):
    texts = tuple(f"text {i}" for i in range(16))
    job = PortJob(lora, str(tiny_host("t5")), soft, {"scale": 2.0}, 0, texts, "lines")
    found = port_apart(job).module
    name = next(iter(lora.tensors))
    assert found.tensors[name].equal(2 * lora.tensors[name])
    assert found.record.port["texts"] == {"count": 16, "source": "lines"}


def test_its_memory_is_what_it_took_at_its_highest(lora, extreme, tiny_host):
    little, much = (
        port_apart(PortJob(lora, str(tiny_host("t5")), how, {}, 0)).memory
        for how in ("copy", "hungry")
    )
    assert little < 50e6
    assert 190e6 < much < 260e6


def test_its_errors_are_told_here(lora, extreme, tiny_host):
    with pytest.raises(BadInput, match=r"port by copy: only 4 of the module.s 24 tensors"):
        port_apart(PortJob(lora, str(tiny_host("llama")), "copy", {}, 0))
    died = "port by dying: its process gave no module: ended with exit code 9"
    with pytest.raises(RunFailed, match=died):
        port_apart(PortJob(lora, str(tiny_host("t5")), "dying", {}, 0))


def test_a_process_that_the_kernel_killed_is_named_as_such(lora, extreme, tiny_host):
    with pytest.raises(RunFailed) as error:
        port_apart(PortJob(lora, str(tiny_host("t5")), "killed", {}, 0))
    for said in ("port by killed", "the system killed", "memory", "--texts", "places"):
        assert said in str(error.value)


def test_what_a_port_has_to_say_is_said_here(lora, soft, tiny_host, caplog):
    record = lora.record.model_copy(update={"dtype": "float16"})
    texts = tuple(f"text {i}" for i in range(16))
    job = PortJob(
        Module(record, lora.tensors), str(tiny_host("t5")), soft, {"scale": 1e9}, 0, texts, "lines"
    )
    with caplog.at_level("WARNING", "peftport"):
        port_apart(job)
    (said,) = [each for each in caplog.records if "values beyond those of float16" in each.message]
    assert (said.name, said.levelname) == ("peftport.studies.ports", "WARNING")


def test_it_tells_here_how_far_it_is(lora, tiny_continuation):
    told: list[tuple[float, str]] = []
    texts = tuple(f"a dull film and story number {i}" for i in range(20))
    job = PortJob(lora, str(tiny_continuation("t5")), "procrustes", {}, 0, texts, "lines")
    assert port_apart(job, lambda share, what: told.append((share, what))).module.tensors
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1
    assert any(what.startswith("layer ") for _, what in told)
