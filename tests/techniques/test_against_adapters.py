"""Techniques act as those of the `adapters` library: golden logits of its own, within 1e-5.

The library cannot be installed beside transformers 5; `make golden` writes its tensors and logits.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from families import KINDS
from peftport.hosts import load_host
from peftport.techniques import technique
from techniques.references import assert_same_effect, our_answer, our_answer_with
from tiny_hosts import build_model, digest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
OPTIONS = {
    "double_seq_bn": ("adapter", {}),
    "seq_bn": ("adapter", {"variant": "pfeiffer"}),
    "double_seq_bn_cross": ("adapter", {"cross": True}),
    "compacter": ("compacter", {"reduction": 8}),
    "compacter++": ("compacter", {"reduction": 8, "variant": "pfeiffer"}),
    "lora": ("lora", {"rank": 4, "alpha": 12}),
    "prefix_tuning_flat": ("prefix", {"length": 5, "shift_positions": False}),
}
FAMILIES = tuple(sorted(f.stem.removeprefix("adapters-") for f in GOLDEN.glob("*.safetensors")))


def golden_of(family):
    """Everything in a family's file."""
    return load_file(GOLDEN / f"adapters-{family}.safetensors")


CASES = [(f, case) for f in FAMILIES for case in OPTIONS if f"{case}/answer" in golden_of(f)]


def test_every_kind_of_host_has_golden_tensors_for_adapter_and_compacter():
    cases = {(KINDS[family], case) for family, case in CASES}
    bottlenecks = ("double_seq_bn", "seq_bn", "compacter", "compacter++")
    assert cases >= {(kind, case) for kind in set(KINDS.values()) for case in bottlenecks}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hosts_of_the_golden_tensors_are_the_tiny_hosts_of_today(family):
    with safe_open(GOLDEN / f"adapters-{family}.safetensors", framework="pt") as file:
        assert file.metadata()["host"] == digest(build_model(family))


@pytest.mark.parametrize(("family", "case"), CASES)
def test_acts_as_in_adapters(family, case, tiny_host):
    golden, host = golden_of(family), load_host(str(tiny_host(family)))
    ours = technique(OPTIONS[case][0])
    config = ours.configure(OPTIONS[case][1])
    theirs = {n.partition("/module/")[2]: t for n, t in golden.items() if n.startswith(f"{case}/m")}
    parameters = translated(theirs, host.geometry, case)
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    assert shapes == ours.shapes(config, host.geometry)

    inputs = {name: golden[name] for name in ("input_ids", "attention_mask")}
    bare = our_answer(host, inputs)
    answer = our_answer_with(host, ours, config, parameters, inputs)
    assert_same_effect(answer, golden[f"{case}/answer"], bare)


def translated(theirs, geometry, case):
    """The library's tensors under our names."""
    if case == "prefix_tuning_flat":
        (flat,) = theirs.values()
        return prefixes(flat, geometry)
    points = {linear.path: point for point, linear in geometry.linears.items()}
    named = {}
    for name, tensor in theirs.items():
        if name.endswith("phm_rule"):
            named["phm_rule"] = tensor
        elif case == "lora":
            path, _, factor = name.partition(".loras.golden.")
            named[f"{points[path]}.{factor}"] = tensor
        else:
            named[bottleneck_name(name, geometry, case)] = tensor
    return named


SUFFIXES = {
    "adapter_down.0.weight": "down.weight",
    "adapter_down.0.bias": "down.bias",
    "adapter_up.weight": "up.weight",
    "adapter_up.bias": "up.bias",
    "adapter_down.0.W_left": "down.left",
    "adapter_down.0.W_right": "down.right",
    "adapter_down.0.b": "down.bias",
    "adapter_up.W_left": "up.left",
    "adapter_up.W_right": "up.right",
    "adapter_up.b": "up.bias",
}
# The library puts bottlenecks into modules that differ from family to family.
SUBLAYERS = {
    r"encoder\.block\.\d+\.layer\.0": "self",
    r"encoder\.block\.\d+\.layer\.1": "ffn",
    r"decoder\.block\.\d+\.layer\.0": "self",
    r"decoder\.block\.\d+\.layer\.1": "cross",
    r"decoder\.block\.\d+\.layer\.2": "ffn",
    r"encoder\.layer\.\d+\.attention\.output": "self",
    r"encoder\.layer\.\d+\.output": "ffn",
    r".*\.\d+\.attention_adapters": "self",
    r".*\.\d+\.output_adapters": "ffn",
}


def bottleneck_name(name, geometry, case):
    """`encoder.block.1.layer.0.adapters.golden.adapter_up.bias` -> `encoder.1.self.up.bias`."""
    place, _, suffix = name.partition(".adapters.golden.")
    stack = "decoder" if geometry.kind == "decoder" else place.partition(".")[0]
    layer = re.search(r"\.(\d+)\.", f"{place}.").group(1)
    (sublayer,) = {what for known, what in SUBLAYERS.items() if re.fullmatch(known, place)}
    if case in ("seq_bn", "compacter++"):
        assert sublayer == "ffn"
        sublayer = "block"
    return f"{stack}.{layer}.{sublayer}.{SUFFIXES[suffix]}"


def prefixes(flat, geometry):
    """(length * layers * 2 * size,) -> keys and values of every layer, (length, size) each."""
    (stack,) = geometry.stacks
    layers = geometry.stacks[stack]
    states = flat.view(5, layers, 2, -1)
    return {
        f"{stack}.{layer}.self.{what}": states[:, layer, which].contiguous()
        for layer in range(layers)
        for which, what in enumerate(("keys", "values"))
    }
