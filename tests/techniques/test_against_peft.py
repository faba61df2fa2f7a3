"""LoRA and prefix tuning act as peft's do: same weights, same input, logits within 1e-5."""

from __future__ import annotations

import peft
import pytest
import torch

from families import FAMILIES, KINDS
from peftport.hosts import load_host
from peftport.techniques import technique
from techniques.references import (
    assert_same_effect,
    batch,
    drawn,
    our_answer,
    our_answer_with,
    reference_answer,
    reference_model,
)

TASK_TYPES = {
    "encoder-decoder": peft.TaskType.SEQ_2_SEQ_LM,
    "encoder": peft.TaskType.FEATURE_EXTRACTION,
    "decoder": peft.TaskType.CAUSAL_LM,
}
LORA = {
    "defaults": {},
    "scaled": {"rank": 4, "alpha": 32},
    "rank-stabilised": {"rank": 4, "alpha": 6, "rslora": True},
    "attention outputs and feed-forward": {"rank": 2, "alpha": 2, "targets": ("o", "ffn.down")},
    "everything": {"rank": 2, "alpha": 4, "targets": ("all",)},
}


@pytest.mark.parametrize("options", LORA.values(), ids=LORA.keys())
@pytest.mark.parametrize("family", FAMILIES)
def test_lora_acts_as_in_peft(family, options, tiny_host):
    host, lora = load_host(str(tiny_host(family))), technique("lora")
    config = lora.configure(options)
    parameters = drawn(lora.shapes(config, host.geometry))
    inputs = batch(host.tokenizer)
    model = peft.get_peft_model(
        reference_model(family, tiny_host(family)), peft_lora(config, host, parameters)
    )
    paths = {name: linear.path for name, linear in host.geometry.linears.items()}
    load_lora(model, parameters, paths)

    bare = our_answer(host, inputs)
    ours = our_answer_with(host, lora, config, parameters, inputs)
    assert_same_effect(ours, reference_answer(model, family, inputs), bare)
    assert torch.equal(our_answer(host, inputs), bare)


def peft_lora(config, host, parameters) -> peft.LoraConfig:
    """peft's configuration; where ours names no targets, peft takes its own for the family."""
    points = {name.rpartition(".")[0] for name in parameters}
    return peft.LoraConfig(
        task_type=TASK_TYPES[host.geometry.kind],
        r=config.rank,
        lora_alpha=config.alpha,
        use_rslora=config.rslora,
        target_modules=config.targets and [host.geometry.linears[p].path for p in points],
        fan_in_fan_out=host.geometry.family == "gpt2",
    )


def load_lora(model, parameters, paths) -> None:
    """Put our factors into peft's layers; both must have the same ones in the same shapes."""
    state = {}
    for name, tensor in parameters.items():
        point, _, factor = name.rpartition(".")
        state[f"base_model.model.{paths[point]}.{factor}.default.weight"] = tensor
    theirs = {n: tuple(p.shape) for n, p in model.named_parameters() if "lora_" in n}
    assert theirs == {name: tuple(tensor.shape) for name, tensor in state.items()}
    model.load_state_dict(state, strict=False)


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("family", FAMILIES)
def test_prefix_tuning_acts_as_in_peft(family, length, tiny_host):
    host, prefix = load_host(str(tiny_host(family))), technique("prefix")
    # peft puts no prefix into T5's encoder and cross-attention.
    decoder_only = {"attentions": ("decoder.self",)} if KINDS[family] == "encoder-decoder" else {}
    config = prefix.configure({"length": length, **decoder_only})
    parameters = drawn(prefix.shapes(config, host.geometry))
    inputs = batch(host.tokenizer)
    model = peft_prefix(reference_model(family, tiny_host(family)), host, length)
    load_prefix(model, host, parameters)

    bare = our_answer(host, inputs)
    ours = our_answer_with(host, prefix, config, parameters, inputs)
    assert_same_effect(ours, reference_answer(model, family, inputs), bare)
    assert torch.equal(our_answer(host, inputs), bare)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_reparametrised_prefix_acts_as_peft_s_projection(family, tiny_host):
    host, prefix = load_host(str(tiny_host(family))), technique("prefix")
    config = prefix.configure({"length": 4, "reparametrise": True, "bottleneck": 12})
    parameters = drawn(prefix.shapes(config, host.geometry))
    inputs = batch(host.tokenizer)
    theirs = peft.PrefixTuningConfig(
        task_type=TASK_TYPES[host.geometry.kind],
        num_virtual_tokens=4,
        prefix_projection=True,
        encoder_hidden_size=12,
    )
    model = peft.get_peft_model(reference_model(family, tiny_host(family)), theirs)
    names = {"embedding": "embedding.weight", "down": "transform.0", "up": "transform.2"}
    state = {}
    for name, tensor in parameters.items():
        _, part, *rest = name.split(".")
        state[".".join([names[part], *rest])] = tensor
    model.prompt_encoder["default"].load_state_dict(state)

    bare = our_answer(host, inputs)
    ours = our_answer_with(host, prefix, config, parameters, inputs)
    assert_same_effect(ours, reference_answer(model, family, inputs), bare)
    folded = prefix.fold(config, host.geometry, parameters)
    assert_same_effect(our_answer_with(host, prefix, *folded, inputs), ours, bare)


def peft_prefix(model, host, length):
    """The host with an untrained prefix of peft's."""
    geometry = host.geometry
    different = {}
    if geometry.kind == "encoder-decoder":
        # peft takes the width for T5's keys, which v1.1's inner width is not, and needs room for
        # twice the layers: see `load_prefix`.
        different["token_dim"] = geometry.heads * geometry.head_dim
        different["num_layers"] = 2 * geometry.stacks["decoder"]
    config = peft.PrefixTuningConfig(
        task_type=TASK_TYPES[geometry.kind], num_virtual_tokens=length, **different
    )
    return peft.get_peft_model(model, config)


def load_prefix(model, host, parameters) -> None:
    """Put our keys and values into peft's flat embedding: layer-major, keys before values.

    In encoder-decoder hosts peft doubles the stored list and cuts it into fours, of which the
    cross-attention's halves are dropped: layer l gets what is stored for layer 2 l, modulo their
    number. So every second place is left empty.
    """
    stack = "encoder" if host.geometry.kind == "encoder" else "decoder"
    gap = 2 if host.geometry.kind == "encoder-decoder" else 1
    embedding = model.prompt_encoder["default"].embedding.weight
    layers = embedding.detach().zero_().view(len(embedding), -1, 2, parameters_width(parameters))
    for layer in range(host.geometry.stacks[stack]):
        layers[:, gap * layer, 0] = parameters[f"{stack}.{layer}.self.keys"]
        layers[:, gap * layer, 1] = parameters[f"{stack}.{layer}.self.values"]


def parameters_width(parameters) -> int:
    """The size of a key of all heads together."""
    return next(iter(parameters.values())).shape[-1]
