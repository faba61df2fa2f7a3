"""A family's data give a host's geometry, and are held against the real model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from families import FAMILIES, KINDS
from peftport.errors import BadInput
from peftport.hosts import (
    Geometry,
    discovery,
    families,
    geometry,
    geometry_from_record,
    load_host,
)
from peftport.hosts.geometry import geometry_of
from peftport.hosts.source import geometry_by_name
from tiny_runs import host_in

properties = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


# What the data say of real models


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_every_layer_is_an_insertion_point(family, tiny_host):
    """None is forgotten and none is made up: held against the modules of the loaded model."""
    host = host_in(tiny_host(family))
    blocks = [n for n, _ in host.model.named_modules() if n.split(".")[-1].isdigit()]
    layers = [n for n in blocks if n.split(".")[-2] in ("block", "layer", "h", "layers")]
    inside = {
        name
        for name, module in host.model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
        and any(name.startswith(f"{layer}.") for layer in layers)
    }
    assert {linear.path for linear in host.geometry.linears.values()} == inside


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sizes_are_those_of_the_model(family, tiny_host):
    host = host_in(tiny_host(family))
    found, config = host.geometry, host.model.config
    assert found.kind == KINDS[family]
    embedding = host.model.get_input_embeddings().weight
    assert (found.vocabulary, found.width) == tuple(embedding.shape)
    assert found.heads == config.num_attention_heads
    assert found.kv_heads == getattr(config, "num_key_value_heads", found.heads)
    stacks = {"encoder-decoder": {"encoder": 2, "decoder": 2}}
    assert found.stacks == stacks.get(found.kind, {found.kind: 2})
    assert set(found.blocks) == {f"{s}.{layer}" for s in found.stacks for layer in range(2)}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("t5", {"heads": 4, "head_dim": 6, "ffn": 64, "gated": True}),
        ("t5-v1.0", {"heads": 4, "head_dim": 8, "ffn": 64, "gated": False}),
        ("llama", {"heads": 4, "kv_heads": 2, "head_dim": 8}),
        ("qwen3", {"heads": 4, "kv_heads": 2, "head_dim": 16}),
        ("gemma3_text", {"heads": 4, "kv_heads": 1, "head_dim": 16}),
        ("gpt2", {"heads": 4, "kv_heads": 4, "head_dim": 8, "ffn": 64}),
    ],
)
def test_head_sizes_and_gates_are_read_where_the_family_has_them(family, expected, tiny_host):
    found = geometry_by_name(str(tiny_host(family)))
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_variant_that_would_answer_otherwise_is_refused(tiny_host):
    config = config_of(tiny_host("gemma3_text")) | {"use_bidirectional_attention": True}
    with pytest.raises(BadInput, match="host mine: use_bidirectional_attention is True in its"):
        geometry_of(config, "mine")


def test_points_have_the_names_that_all_families_share(tiny_host):
    found = geometry_by_name(str(tiny_host("t5")))
    assert {"encoder.0.self.q", "decoder.1.cross.o", "decoder.1.ffn.gate"} <= set(found.linears)
    assert list(found.attentions)[-2:] == ["decoder.1.self", "decoder.1.cross"]
    assert found.attentions["decoder.1.self"].bias == "decoder.block.0.layer.0.SelfAttention"
    assert found.attentions["decoder.1.cross"].bias is None


# Data that do not fit the model


@pytest.fixture
def with_families(monkeypatch):
    """A function that puts other data files in place of the real ones."""

    def put(entries: dict[str, Any]) -> None:
        for module in (geometry, discovery):
            monkeypatch.setattr(module, "families", lambda: entries)
        discovery.discovered_in.cache_clear()

    yield put
    discovery.discovered_in.cache_clear()


def wrong_role(family: dict[str, Any]) -> str:
    first, *_, last = family["stacks"][-1]["linears"]
    last["path"] = first["path"]
    return "has shape"


def wrong_linear(family: dict[str, Any]) -> str:
    family["stacks"][0]["linears"][0]["path"] = "no.such.layer"
    return "no.such.layer"


def wrong_attention(family: dict[str, Any]) -> str:
    family["stacks"][0]["attentions"][0]["path"] = "no.such.attention"
    return "no.such.attention"


def wrong_block(family: dict[str, Any]) -> str:
    family["stacks"][-1]["block"]["path"] = "no.such.end"
    return "no.such.end"


def wrong_stack(family: dict[str, Any]) -> str:
    family["stacks"][0]["path"] = "no.such.stack.{layer}"
    return "no.such.stack.0"


@pytest.mark.parametrize(
    "tamper", [wrong_role, wrong_linear, wrong_attention, wrong_block, wrong_stack]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_data_that_do_not_fit_the_model_are_refused(family, tamper, tiny_host, with_families):
    tampered = copy.deepcopy(families())
    name = host_in(tiny_host(family)).geometry.family
    point = tamper(tampered[name])
    with_families(tampered)
    with pytest.raises(BadInput) as error:
        load_host(str(tiny_host(family)))
    assert point in str(error.value)
    assert str(tiny_host(family)) in str(error.value)
    assert f"family {name}" in str(error.value)


def test_a_transposed_layer_is_known_as_one(tiny_host, with_families):
    tampered = copy.deepcopy(families())
    for entry in tampered["gpt2"]["stacks"][0]["linears"]:
        entry.pop("transposed")
    with_families(tampered)
    with pytest.raises(BadInput, match=r"decoder\.0\.self\.qkv .* has shape \(32, 96\)"):
        load_host(str(tiny_host("gpt2")))


# Records


@pytest.mark.parametrize("family", FAMILIES)
def test_a_record_is_json_and_gives_the_geometry_back(family, tiny_host):
    found = geometry_by_name(str(tiny_host(family)))
    assert geometry_from_record(json.loads(json.dumps(found.record()))) == found


@pytest.mark.parametrize("field", ["family", "gated", "width", "kv_heads", "stacks"])
def test_a_record_without_a_field_is_refused_by_its_name(field, tiny_host):
    record = geometry_by_name(str(tiny_host("t5"))).record()
    del record[field]
    with pytest.raises(BadInput, match=field):
        geometry_from_record(record)


@pytest.mark.parametrize(
    ("field", "value"),
    [("family", "nothing"), ("family", ["t5"]), ("width", "wide"), ("stacks", {"encoder": 2})],
)
def test_a_record_with_a_wrong_value_is_refused(field, value, tiny_host):
    record = geometry_by_name(str(tiny_host("t5"))).record() | {field: value}
    with pytest.raises(BadInput, match=r"the geometry cannot be read: [^A-Z]*\.$"):
        geometry_from_record(record)


def test_geometries_differ_by_any_size(tiny_host):
    found = geometry_by_name(str(tiny_host("t5")))
    for size in geometry.SIZES:
        record = found.record() | {size: found.record()[size] * 2}
        assert geometry_from_record(record) != found


# Size rules


def linear_sizes(found: Geometry, role: str) -> set[tuple[int, int]]:
    return {(p.inputs, p.outputs) for n, p in found.linears.items() if n.endswith(f".{role}")}


@properties
@given(
    heads=st.integers(1, 8),
    size=st.integers(1, 9),
    layers=st.integers(1, 5),
    inner=st.none() | st.integers(1, 99),
)
def test_gpt2_s_inner_width_is_four_widths_unless_said(heads, size, layers, inner):
    width = heads * size
    config = {"model_type": "gpt2", "n_embd": width, "vocab_size": 7, "n_head": heads}
    found = geometry_of(config | {"n_layer": layers, "n_inner": inner}, "a host")
    assert found.head_dim == size
    assert found.ffn == (4 * width if inner is None else inner)
    assert linear_sizes(found, "self.qkv") == {(width, 3 * width)}
    assert linear_sizes(found, "ffn.down") == {(found.ffn, width)}
    assert len(found.linears) == 4 * layers


@properties
@given(
    groups=st.integers(1, 4),
    kv_heads=st.none() | st.integers(1, 4),
    head_dim=st.none() | st.integers(1, 9).map(lambda half: 2 * half),
    size=st.integers(1, 9).map(lambda half: 2 * half),
)
def test_llama_s_keys_have_their_own_heads_and_size_where_said(groups, kv_heads, head_dim, size):
    heads = groups * (kv_heads or 1)
    config = {"model_type": "llama", "hidden_size": heads * size, "vocab_size": 7}
    config |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    found = geometry_of(config | {"intermediate_size": 5, "num_hidden_layers": 2}, "a host")
    assert found.kv_heads == (heads if kv_heads is None else kv_heads)
    assert found.head_dim == (size if head_dim is None else head_dim)
    assert linear_sizes(found, "self.q") == {(found.width, heads * found.head_dim)}
    assert linear_sizes(found, "self.k") == {(found.width, found.kv_heads * found.head_dim)}
    assert linear_sizes(found, "self.o") == {(heads * found.head_dim, found.width)}


@properties
@given(encoder=st.integers(1, 4), decoder=st.none() | st.integers(1, 4), gated=st.booleans())
def test_t5_s_decoder_is_as_deep_as_its_encoder_unless_said(encoder, decoder, gated):
    config = {"model_type": "t5", "d_model": 6, "vocab_size": 7, "num_heads": 2, "d_kv": 5}
    config |= {"d_ff": 9, "num_layers": encoder, "num_decoder_layers": decoder}
    found = geometry_of(config | {"feed_forward_proj": "gated-gelu" if gated else "relu"}, "a host")
    deep = encoder if decoder is None else decoder
    assert found.stacks == {"encoder": encoder, "decoder": deep}
    assert len(found.linears) == (6 + gated) * encoder + (10 + gated) * deep
    assert len(found.attentions) == encoder + 2 * deep


@pytest.mark.parametrize(
    ("family", "left_out"),
    [
        ("llama", ("head_dim", "num_key_value_heads")),
        ("mistral", ("head_dim",)),
        ("qwen2", ("head_dim",)),
        ("t5-v1.0", ("num_decoder_layers", "dense_act_fn", "is_gated_act")),
        ("phi3", ("head_dim", "num_key_value_heads")),
        ("gpt2", ("n_inner", "num_hidden_layers")),
        ("falcon", ("num_kv_heads",)),
        ("distilbert", ("hidden_size", "num_attention_heads")),
    ],
)
def test_sizes_that_a_file_leaves_out_are_those_of_the_model_class(family, left_out, tiny_host):
    config = {k: v for k, v in config_of(tiny_host(family)).items() if k not in left_out}
    found = geometry_of(config, "mine")
    made = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(config)
    auto = {"encoder-decoder": "Seq2SeqLM", "decoder": "ForCausalLM"}.get(found.kind, "")
    auto = f"AutoModel{'For' * (auto == 'Seq2SeqLM')}{auto}"
    model = getattr(transformers, auto).from_config(made)
    for linear in found.linears.values():
        weight = tuple(model.get_submodule(linear.path).weight.shape)
        shape = (linear.outputs, linear.inputs)
        assert weight == (shape[::-1] if linear.transposed else shape)


@pytest.mark.parametrize(
    ("size", "value"),
    [("hidden_size", "wide"), ("num_attention_heads", 0), ("hidden_size", [32])],
)
def test_a_size_that_is_no_number_is_refused(size, value, tiny_host):
    config = config_of(tiny_host("bert")) | {size: value}
    with pytest.raises(BadInput, match="host mine: its configuration is none that transformers"):
        geometry_of(config, "mine")


@pytest.mark.parametrize("layers", [10**9, 2001])
def test_counts_that_no_host_has_are_refused_before_anything_is_built(layers, tiny_host):
    config = config_of(tiny_host("bert")) | {"num_hidden_layers": layers}
    with pytest.raises(BadInput, match=f"num_hidden_layers is {layers}"):
        geometry_of(config, "mine")
    record = geometry_by_name(str(tiny_host("bert"))).record()
    with pytest.raises(BadInput, match="stacks"):
        geometry_from_record(record | {"stacks": {"encoder": layers}})


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["banana", "torch.", "nn", 16, ["float32"]])
def test_a_type_of_numbers_that_there_is_not_is_named(key, value):
    for config in ({key: value}, {"text_config": {key: value}}):
        with pytest.raises(BadInput, match=rf"host mine: {key} is .* such as 'bfloat16'"):
            geometry_of({"model_type": "llama"} | config, "mine")


@pytest.mark.parametrize("value", ["float16", "torch.bfloat16", "auto", None])
def test_types_of_numbers_as_transformers_writes_them_are_read(value):
    assert geometry_of({"model_type": "llama", "dtype": value}, "mine").family == "llama"


# Families


def test_a_model_type_that_transformers_does_not_have_is_refused_with_the_nearest():
    with pytest.raises(BadInput) as error:
        geometry_of({"model_type": "lama"}, "mine")
    message = str(error.value)
    assert message.startswith("host mine: transformers has no model of type 'lama'. Did you mean")
    assert "'llama'" in message


def test_a_configuration_without_a_model_type_is_refused():
    with pytest.raises(BadInput, match="transformers has no model of type ''"):
        geometry_of({}, "mine")


@pytest.mark.parametrize("model_type", ["vit", "clip", "whisper", "wav2vec2"])
def test_a_model_that_reads_no_text_alone_is_refused(model_type):
    with pytest.raises(BadInput, match=f"host mine: .*{model_type}"):
        geometry_of({"model_type": model_type}, "mine")


@pytest.mark.parametrize("name", list(families()))
def test_a_family_s_file_says_what_every_family_must(name):
    family = families()[name]
    assert family["positions"] in ("absolute", "after-padding", "rotary", "relative", "none")
    roles = {entry["name"] for stack in family["stacks"] for entry in stack["linears"]}
    assert {target.split(".")[-1] for target in family["lora_targets"]} <= {
        role.split(".")[-1] for role in roles
    }
    for stack in family["stacks"]:
        assert "self.o" in {entry["name"] for entry in stack["linears"]}  # the width is its
