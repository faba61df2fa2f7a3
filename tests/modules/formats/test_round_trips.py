"""A module written in a format of another library comes back bit for bit, with and without the
record that peftport keeps beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import FAMILIES, KINDS
from modules.formats.modules import change, made, same
from peftport.modules import Module, formats, load_module, read_outline
from peftport.modules.formats.adapterhub_layout import layout_of
from tiny_runs import host_in

HUB_FAMILIES = tuple(family for family in FAMILIES if not family.startswith(("qwen", "gemma")))
ACTIVATIONS = ("relu", "swish", "gelu", "gelu_new")
# Numbers that are lost where a file is written in other precision or as text.
ODD = (0.0, -0.0, 1e-45, 3.4e38, 1 / 3, -1.1754944e-38)
few = settings(max_examples=40, deadline=None)


def drawn_lora(draw, roles: list[str]) -> dict[str, Any]:
    targets = draw(st.sets(st.sampled_from(roles), min_size=1))
    return {
        "rank": draw(st.integers(1, 6)),
        "alpha": draw(st.floats(0.01, 64) | st.integers(1, 64)),
        "rslora": draw(st.booleans()),
        "targets": tuple(sorted(targets)),
    }


def drawn_module(draw, host, case: str, options: dict[str, Any]) -> Module:
    """A module with some of the odd numbers in its tensors, and any number of classes."""
    head, classes = draw(st.sampled_from(("mean", "first"))), draw(st.integers(0, 4))
    kind = host.geometry.kind
    module = made(host, case, head if kind == "encoder" and classes else "mean", classes, **options)
    for tensor in module.tensors.values():
        place = draw(st.integers(0, tensor.numel() - 1))
        tensor.view(-1)[place] = draw(st.sampled_from(ODD))
    return module


@st.composite
def for_peft(draw, hosts) -> Module:
    """A module that peft can have."""
    family = draw(st.sampled_from(FAMILIES))
    host = host_in(hosts(family))
    if draw(st.booleans()):
        roles = sorted({point.split(".", 2)[2] for point in host.geometry.linears})
        return drawn_module(draw, host, "lora", drawn_lora(draw, roles))
    options: dict[str, Any] = {"length": draw(st.integers(1, 6))}
    if KINDS[family] == "encoder-decoder":
        options["attentions"] = ("decoder.self",)
    return drawn_module(draw, host, "prefix", options)


@st.composite
def for_adapterhub(draw, hosts) -> Module:
    """A module that adapters can have."""
    family = draw(st.sampled_from(HUB_FAMILIES))
    host = host_in(hosts(family))
    layout = layout_of(host.geometry)
    cases = ["houlsby", "compacter", "lora"] + ["prefix"] * bool(layout["prefixes"])
    case = draw(st.sampled_from(cases))
    if case == "lora":
        by_switch: dict[str, list[str]] = {}
        for role, switch in layout["lora"].items():
            by_switch.setdefault(switch, []).append(role)
        options = drawn_lora(draw, sorted(by_switch))
        options["targets"] = tuple(r for switch in options["targets"] for r in by_switch[switch])
    elif case == "prefix":
        options = {"length": draw(st.integers(1, 6)), "shift_positions": False}
    else:
        options = {
            "variant": draw(st.sampled_from(("houlsby", "pfeiffer"))),
            "activation": draw(st.sampled_from(ACTIVATIONS)),
            "reduction": draw(st.sampled_from((2, 4, 8))),
        }
        if KINDS[family] == "encoder-decoder" and options["variant"] == "houlsby":
            options["cross"] = draw(st.booleans())
        if case == "compacter":
            options |= {"n": draw(st.sampled_from((1, 2, 4))), "rank": draw(st.integers(1, 3))}
    return drawn_module(draw, host, case, options)


def merged(module: Module) -> bool:
    """Whether adapters keeps a change of one layer as one of its queries, keys and values."""
    return module.geometry.family == "gpt2" and any("qkv" in name for name in module.tensors)


def comes_back(module: Module, format: str) -> None:
    """Write, read, forget what peftport kept, read again."""
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "module"
        formats.save(module, into, format)
        assert formats.format_of(into) == format
        known = load_module(into)
        assert known.record == module.record
        assert same(known, module)
        record, shapes = read_outline(into)
        assert record == module.record
        assert shapes == {name: tuple(t.shape) for name, t in module.tensors.items()}

        (into / "peftport.json").unlink()
        alone = load_module(into)
        assert alone.record.host.name == module.record.host.name
        assert alone.record.head == module.record.head
        assert alone.classes == (module.classes if "head.weight" in module.tensors else 0)
        if not (format == "adapterhub" and merged(module)):
            assert same(alone, module)
            assert_means_the_same(alone.config, module.config)


def assert_means_the_same(found: Any, expected: Any) -> None:
    """Two configurations do the same, though they may say it in other words."""
    for key in ("rank", "variant", "nonlinearity", "n", "length", "shift_positions", "scale"):
        wanted = getattr(expected, key, None)
        assert getattr(found, key, None) == (pytest.approx(wanted) if wanted else wanted)


@few
@given(data=st.data())
def test_there_and_back_by_peft(data, tiny_host):
    comes_back(data.draw(for_peft(tiny_host)), "peft")


@few
@given(data=st.data())
def test_there_and_back_by_adapterhub(data, tiny_host):
    comes_back(data.draw(for_adapterhub(tiny_host)), "adapterhub")


def test_gpt2_s_one_layer_comes_back_from_adapterhub_as_the_same_change(tiny_host, tmp_path):
    module = made(host_in(tiny_host("gpt2")), "lora", alpha=3)
    formats.save(module, tmp_path / "module", "adapterhub")
    (tmp_path / "module" / "peftport.json").unlink()
    alone = load_module(tmp_path / "module")
    assert (alone.config.rank, alone.config.scale) == (12, module.config.scale)
    for point in ("decoder.0.self.qkv", "decoder.1.self.qkv"):
        changes = [
            m.tensors[f"{point}.lora_B"] @ m.tensors[f"{point}.lora_A"] for m in (alone, module)
        ]
        torch.testing.assert_close(*changes)


# What peftport keeps beside


def test_a_module_that_was_edited_since_is_not_taken_for_the_one_that_was_kept(
    tiny_host, tmp_path, caplog
):
    module = made(host_in(tiny_host("llama")), "lora", alpha=4)
    formats.save(module, tmp_path / "module", "peft")
    change(tmp_path / "module", lora_alpha=8)
    caplog.set_level("INFO", "peftport")
    found = load_module(tmp_path / "module")
    assert found.config.alpha == 8
    assert found.record.task["name"] == "unknown"
    assert found.record.host.fingerprint == ""
    assert "peftport.json is of other files than those beside it and is not used" in caplog.text


def test_what_was_kept_needs_no_host_at_hand(tiny_host, tmp_path):
    module = made(host_in(tiny_host("llama")), "lora")
    nowhere = module.record.host.model_copy(update={"name": "/nowhere/llama"})
    kept = Module(module.record.model_copy(update={"host": nowhere}), module.tensors)
    formats.save(kept, tmp_path / "module", "peft")
    assert load_module(tmp_path / "module").record == kept.record


@pytest.mark.parametrize("format", ["peft", "peftport"])
def test_another_place_of_the_host_is_named_and_its_fingerprint_stays(format, tiny_host, tmp_path):
    module = made(host_in(tiny_host("llama")), "lora")
    formats.save(module, tmp_path / "module", format)
    elsewhere = tmp_path / "moved"
    elsewhere.symlink_to(tiny_host("llama"))
    found = load_module(tmp_path / "module", from_host=str(elsewhere)).record
    assert found.host.name == str(elsewhere)
    assert found.host.fingerprint == module.record.host.fingerprint
    assert found.origin == module.record.origin


def test_a_failure_while_writing_leaves_nothing(tiny_host, tmp_path, monkeypatch):
    def fail(*_args: Any, **_named: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(formats, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        formats.save(made(host_in(tiny_host("bert")), "lora"), tmp_path / "module", "peft")
    assert list(tmp_path.iterdir()) == []
