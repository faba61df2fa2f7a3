"""Handles read no more than they are asked for, and load once."""

from __future__ import annotations

import pytest

import peftport as pp
from peftport.errors import BadInput


def test_a_host_is_looked_at_without_reading_its_weights(tiny_host, monkeypatch):
    monkeypatch.setattr("peftport.hosts.fingerprint.fingerprint", lambda folder: 1 / 0)
    host = pp.load_host(tiny_host("llama"))
    assert "width 32" in host._repr_html_()
    assert "loaded" not in vars(host)


def test_a_host_is_loaded_once_and_lent_where_it_is_kept(tiny_host):
    host = pp.load_host(tiny_host("llama"))
    assert host.loaded is host.lend() is host.loaded
    by_name = pp.HostHandle(str(tiny_host("llama")), kept=False)
    assert by_name.lend() is not by_name.lend()


def test_a_port_method_is_lent_a_host_in_full_precision(tiny_host):
    host = pp.load_host(tiny_host("llama"), precision="bf16")
    assert host.loaded.precision == "bf16"
    assert host.lend().precision == "fp32"


def test_what_cannot_be_found_is_said_at_once(tiny_host, tmp_path):
    with pytest.raises(BadInput, match=r"host .* was not found"):
        pp.load_host(tmp_path / "nowhere")
    for device in ("tpu", "cpu:x", "cuda:x", "cuda:9", "meta", ""):
        with pytest.raises(BadInput, match=f"--device '{device}' is not here"):
            pp.load_host(tiny_host("llama"), device=device)
    with pytest.raises(BadInput, match=r"module .* was not found"):
        pp.load_module(tmp_path / "nowhere")


def test_a_model_in_memory_is_told_to_be_named_by_its_folder(tiny_host, lab_module):
    model = pp.load_host(tiny_host("llama")).loaded.model
    with pytest.raises(BadInput, match=r"host: expected a hub name.* not a Llama"):
        pp.check(lab_module, model)
    with pytest.raises(BadInput, match=r"host: expected a hub name.* not a Llama"):
        pp.test(lab_module, model, "lab:films")
    with pytest.raises(BadInput, match=r"module: expected a folder.* not a Llama"):
        pp.check(model, "lab:small")


def test_a_forecast_is_made_where_the_host_is_to_be(lab_module, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    receiver = pp.load_host("lab:small", device="cpu")
    texts = [f"a film, number {n}" for n in range(40)]
    assert pp.check(lab_module, receiver, forecast=True, texts=texts).forecast["on_texts"]


def test_a_module_s_record_is_read_without_its_tensors(lab_module, monkeypatch):
    monkeypatch.setattr("peftport.modules.load_module", lambda *_, **__: 1 / 0)
    module = pp.load_module(lab_module)
    assert module.technique == "lora"
    assert "task lab:films" in str(module)
    assert module.to_dict()["format"] == module.format == "peftport"


@pytest.mark.parametrize("fast", [True, False])
def test_the_faster_precision_is_taken_where_none_is_asked_for(
    fast, tiny_host, monkeypatch, caplog
):
    monkeypatch.setattr("peftport.hosts.precision.WIDE", 16)
    monkeypatch.setattr("peftport.hosts.precision.bf16_is_fast", lambda device: fast)
    folder = tiny_host("llama")
    assert pp.load_host(folder).precision == ("bf16" if fast else "fp32")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == fast
    assert all("multiplies in bfloat16" in line and "--precision fp32" in line for line in said)
    caplog.clear()
    assert pp.load_host(folder, precision="fp32").precision == "fp32"
    assert not caplog.records
    assert pp.load_host(folder, precision="bf16").precision == "bf16"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (not fast), "what a machine is slow at is done as asked, and said"
    assert all("single precision is several times as fast" in line for line in said)
