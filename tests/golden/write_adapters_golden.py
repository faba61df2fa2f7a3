"""Write what the `adapters` library (1.3) computes, for tests in an environment without it.

Run by `make golden` in an environment of its own, with tests/ on Python's path. For every family
and configuration: a tiny host with weights drawn from their names, the library's own module with
weights drawn the same way, a batch of texts, and the logits that come out. A file holds the modules
and the logits; the host is drawn again by the test, and its digest tells whether it is the same.
"""

from __future__ import annotations

from pathlib import Path

import adapters
import torch
from safetensors.torch import save_file

from families import KINDS
from techniques.references import batch, reference_answer
from tiny_hosts import build_model, build_tokenizer, digest, drawn_like

GOLDEN = Path(__file__).resolve().parent
NAME = "golden"

BOTTLENECKS = {
    "double_seq_bn": adapters.DoubleSeqBnConfig(),
    "seq_bn": adapters.SeqBnConfig(),
    # The tiny hosts are too narrow for the default reduction of 32.
    "compacter": adapters.CompacterConfig(reduction_factor=8),
    "compacter++": adapters.CompacterPlusPlusConfig(reduction_factor=8),
}
CROSS = {"double_seq_bn_cross": adapters.DoubleSeqBnConfig(cross_adapter=True)}
LORA = {"lora": adapters.LoRAConfig(r=4, alpha=12)}
PREFIX = {"prefix_tuning_flat": adapters.PrefixTuningConfig(flat=True, prefix_length=5)}

# adapters' LoRA on GPT-2 has factors for q and v in one tensor, a form of its own; its prefixes
# on T5 count the text's positions from the prefix for keys and from the text for queries.
CASES = {
    "t5": BOTTLENECKS | CROSS | LORA,
    "t5-v1.0": BOTTLENECKS,
    "bert": BOTTLENECKS | LORA | PREFIX,
    "roberta": BOTTLENECKS,
    "gpt2": BOTTLENECKS | PREFIX,
    "llama": BOTTLENECKS | LORA | PREFIX,
}


def write(family: str, cases: dict[str, adapters.AdapterConfig]) -> None:
    """Write a family's file: for each case the module's tensors and the answer to the texts."""
    inputs = batch(build_tokenizer(family))
    tensors = dict(inputs)
    for case, config in cases.items():
        model = build_model(family)
        if KINDS[family] == "decoder":
            # adapters 1.3 ignores prefixes under transformers' default attention.
            model.set_attn_implementation("eager")
        host = digest(model)
        model = model.base_model if KINDS[family] == "encoder" else model
        bare = reference_answer(model, family, inputs)
        module = add_module(model, config)
        answer = reference_answer(model, family, inputs)
        assert (answer - bare).abs().max() > 0.1
        tensors |= {f"{case}/module/{name}": tensor for name, tensor in module.items()}
        tensors[f"{case}/answer"] = answer.contiguous()
    metadata = {"host": host, "adapters": adapters.__version__}
    save_file(tensors, GOLDEN / f"adapters-{family}.safetensors", metadata=metadata)


def add_module(model: torch.nn.Module, config: adapters.AdapterConfig) -> dict[str, torch.Tensor]:
    """Add a module to the model, draw its tensors from their names, and return them."""
    adapters.init(model)
    model.add_adapter(NAME, config=config)
    model.set_active_adapters(NAME)
    model.eval()
    module = {n: p.detach() for n, p in model.named_parameters() if f".{NAME}." in n}
    for name, tensor in module.items():
        tensor.copy_(drawn_like(tensor, name))
    return module


if __name__ == "__main__":
    for family, cases in CASES.items():
        write(family, cases)
