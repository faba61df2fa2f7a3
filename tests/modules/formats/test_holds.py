"""What a format cannot hold is told before the work: by configuration, host, names of tensors."""

from __future__ import annotations

import pytest

import peftport
from modules.formats.modules import made
from modules.formats.test_token_rows import from_stock
from peftport.api.planned import PlannedPort
from peftport.errors import BadInput
from peftport.modules import Module, load_module
from peftport.porting import port_method
from peftport.techniques.embeddings import brought
from tiny_runs import host_in


@pytest.fixture(autouse=True)
def _nothing_is_done(monkeypatch):
    def done(*_args, **_options):
        raise AssertionError("the port was begun")

    monkeypatch.setattr(PlannedPort, "done", done)


def in_folder(module, folder):
    module.save(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "options", "format", "why"),
    [
        ("t5", {}, "peft", "peft puts prefixes before the decoder's self-attention alone"),
        ("llama", {"shift_positions": False}, "peft", "this module does not .*--format adapterhub"),
        ("llama", {}, "adapterhub", "shift_positions is true.*--format peft or peftport"),
        ("distilbert", {}, "peft", "stock peft cannot give a distilbert host a prefix"),
    ],
)
def test_a_prefix_that_a_format_has_no_place_for(
    family, options, format, why, tiny_host, tiny_continuation, tmp_path
):
    donor = in_folder(made(host_in(tiny_host(family)), "prefix", **options), tmp_path / "donor")
    with pytest.raises(BadInput, match=why):
        peftport.port(donor, tiny_continuation(family), out=tmp_path / "out", format=format)


def test_a_lora_at_places_that_adapters_has_not(tiny_host, tiny_continuation, tmp_path):
    module = made(host_in(tiny_host("llama")), "lora", targets=["self.o"])
    donor = in_folder(module, tmp_path / "donor")
    with pytest.raises(BadInput, match=r"adapters has no LoRA at self\.o of a llama host"):
        peftport.port(donor, tiny_continuation("llama"), out=tmp_path / "out", format="adapterhub")


def test_embeddings_are_never_left_out_without_a_word(tiny_host, tiny_continuation, tmp_path):
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs")
    with pytest.raises(BadInput, match=r"brings embeddings along .* which adapters has no place"):
        peftport.port(
            tmp_path / "theirs",
            tiny_continuation("llama"),
            out=tmp_path / "out",
            format="adapterhub",
        )


def test_rows_of_tokens_stand_beside_no_prefix_in_peft(tiny_host, tiny_continuation, tmp_path):
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs")
    rows = {
        name: tensor
        for name, tensor in load_module(tmp_path / "theirs").tensors.items()
        if name.startswith("embedding.")
    }
    prefix = made(host_in(tiny_host("llama")), "prefix")
    record = prefix.record.model_copy(update={"embeddings": brought(rows)})
    donor = in_folder(Module(record, prefix.tensors | rows), tmp_path / "donor")
    with pytest.raises(BadInput, match=r"peft trains rows of single tokens with LoRA alone"):
        peftport.port(donor, tiny_continuation("llama"), out=tmp_path / "out", format="peft")


def test_check_tells_it_of_what_a_method_makes_anew(tiny_host, tmp_path):
    """A prefix that is learnt from a LoRA of peft's would stand at T5's every attention."""
    module = made(host_in(tiny_host("t5")), "lora")
    task = module.record.task | {"labels": [0, 1], "label_words": ["good", "bad"]}
    record = module.record.model_copy(update={"task": task, "head": "mean"})
    body = {name: t for name, t in module.tensors.items() if not name.startswith("head.")}
    peftport.modules.formats.save(Module(record, body), tmp_path / "donor", "peft")
    found = peftport.check(
        tmp_path / "donor", tiny_host("t5"), method="distill", options={"technique": "prefix"}
    )
    problem = found.to_dict()["problem"]
    assert "peft puts prefixes before the decoder's self-attention alone" in problem


@pytest.mark.parametrize("method", ["ridge", "distill"])
def test_a_format_is_asked_before_it_is_known_which_classes_there_are(method, tiny_host, tmp_path):
    from_stock("llama", tiny_host("llama"), tmp_path / "theirs")
    donor, there = load_module(tmp_path / "theirs"), peftport.load_host(tiny_host("llama"))
    planned = PlannedPort(donor, there, port_method(method), {}, partial=False)
    assert planned.request.classes == 0
    planned.require_writable("peft")
