"""Which methods could port a module: refused by name, told for every method, options by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modules.formats.modules import made
from peftport.errors import BadInput
from peftport.modules import HostName, Module
from peftport.porting import judge, judge_all, port, port_method
from peftport.porting.base import Request
from peftport.porting.means import Means, side
from peftport.porting.methods import way
from port_methods import soft
from tiny_runs import host_in

__all__ = ["soft"]
HERE = HostName(name="here", fingerprint="")


def asked(module: Module, receiver, name: str, **options) -> Request:
    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    return port_method(name).request(module.record, shapes, receiver, options)


@pytest.fixture
def lora(tiny_host) -> Module:
    return made(host_in(tiny_host("t5")), "lora")


@pytest.fixture
def means(tiny_host) -> Means:
    folder = str(tiny_host("t5"))
    return Means(side(folder), side(folder), tuple(f"text {i}" for i in range(16)), "16 lines")


def test_a_method_reads_its_options_from_the_request(soft, lora, means):
    ported = port(lora, lora.geometry, HERE, soft, options={"scale": 3}, means=means)
    name = next(iter(lora.tensors))
    assert ported.module.tensors[name].equal(3 * lora.tensors[name])
    assert ported.module.record.port["options"] == {
        "scale": 3.0,
        "layers": "proportional",
        "steps": 0,
    }
    assert ported.module.record.port["texts"] == {"count": 16, "source": "16 lines"}
    assert ported.module.record.port["receiver"] == means.receiver.name


def test_a_wrong_option_is_refused_by_its_name(soft, lora, means):
    with pytest.raises(BadInput, match=r"port by soft: option 'scal'.*Did you mean 'scale'"):
        port(lora, lora.geometry, HERE, soft, options={"scal": 3}, means=means)
    with pytest.raises(BadInput, match=r"port by copy: option 'scale'.*Known: layers"):
        port(lora, lora.geometry, HERE, "copy", options={"scale": 3})


def test_a_method_that_does_not_apply_names_those_that_do(soft, tiny_host, means):
    prefix = made(host_in(tiny_host("t5")), "prefix")
    with pytest.raises(
        BadInput, match=r"soft: does not apply: it ports lora, not prefix. .*: copy"
    ):
        port(prefix, prefix.geometry, HERE, soft, means=means, allow_partial=True)


def test_a_partial_port_is_refused(lora, tiny_host):
    llama = host_in(tiny_host("llama")).geometry
    with pytest.raises(
        BadInput, match=r"port by copy: only 4 of the module.s 24 tensors can be carried"
    ):
        port(lora, llama, HERE, "copy")


def test_a_configuration_that_does_not_fit_the_host_is_a_verdict(tiny_host):
    module = made(host_in(tiny_host("llama")), "compacter")
    record = module.record.model_copy(update={"config": {**module.record.config, "n": 7}})
    found = judge(
        port_method("copy"),
        asked(replace(module, record=record), host_in(tiny_host("gpt2")).geometry, "copy"),
    )
    assert found.account is None
    assert found.problem is not None and "7" in found.problem


def test_every_method_is_judged_and_no_control(soft, lora):
    shapes = asked(lora, lora.geometry, "copy").shapes
    found = {v.method: v for v in judge_all(lora.record, shapes, lora.geometry)}
    assert {"copy", "soft"} <= set(found)
    assert not {"scratch", "gaussian", "sampled"} & set(found)
    assert found["soft"].requires == {"weights", "texts"}
    assert found["copy"].requires == frozenset()
    assert found["copy"].account.counts()["copied"] == len(shapes)


def test_layers_paired_by_activations_need_hosts_and_texts(soft, lora, monkeypatch):
    method = port_method(soft)
    monkeypatch.setattr(type(method), "needs", frozenset())
    plain, paired = (asked(lora, lora.geometry, soft, layers=how) for how in ("every", "cka"))
    assert method.requires(plain.options) == frozenset()
    assert method.requires(paired.options) == {"weights", "texts"}


def test_a_method_without_what_it_needs_says_so(soft, lora, means):
    with pytest.raises(BadInput, match="port by soft needs both hosts"):
        port(lora, lora.geometry, HERE, soft)
    with pytest.raises(BadInput, match=r"needs unlabelled texts: .*--text"):
        port(lora, lora.geometry, HERE, soft, means=replace(means, texts=()))


def test_a_method_is_written_with_its_options(soft):
    found = way("soft:scale=2:layers=every")
    assert (found.name, found.options) == ("soft", {"scale": 2, "layers": "every"})
    assert found.settings.steps == 0
    assert found.requires == {"weights", "texts"}
    assert way("copy").options == {}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("sof", "unknown port method 'sof'. Did you mean 'soft'"),
        ("soft:scale", "method soft:scale: 'scale': expected KEY=VALUE"),
        ("soft:scal=1", "port by soft: option 'scal': no such option"),
        ("soft:scale=[", "method soft:scale=.: 'scale=.' is not valid YAML"),
    ],
)
def test_a_method_that_is_written_wrong_is_refused(soft, written, message):
    with pytest.raises(BadInput, match=message):
        way(written)
