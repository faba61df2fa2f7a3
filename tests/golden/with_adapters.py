"""AdapterHub folders written by the `adapters` library (1.3), and answers of folders it is given.

Runs in an environment of its own, with tests/ on Python's path:

    python with_adapters.py write            writes tests/golden/adapterhub, which tests read
    python with_adapters.py answer JOBS OUT  answers with folders that peftport wrote

JOBS is a JSON list of {"family", "folder"}; OUT gets a tensor of logits for each, by its number.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import adapters
import torch
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

from families import ALL_KINDS
from techniques.references import batch, reference_answer
from tiny_hosts import build_model, build_tokenizer, digest, drawn_like

FOLDER = Path(__file__).resolve().parent / "adapterhub"
NAME = "golden"
PREFIX = {"prefix_length": 5, "bottleneck_size": 6}
COMPACTER = {"reduction_factor": 8}

# family, folder -> configuration, head, and whether it is saved as safetensors
CASES: dict[tuple[str, str], tuple[Any, str | None, bool]] = {
    ("t5", "double_seq_bn"): (adapters.DoubleSeqBnConfig(cross_adapter=True), "language", False),
    ("t5", "compacter"): (adapters.CompacterConfig(**COMPACTER), None, True),
    ("t5", "lora"): (adapters.LoRAConfig(r=4, alpha=6, intermediate_lora=True), None, False),
    ("bert", "seq_bn"): (adapters.SeqBnConfig(), "classification", False),
    ("bert", "compacter"): (adapters.CompacterConfig(**COMPACTER), "tagging", True),
    ("bert", "prefix"): (adapters.PrefixTuningConfig(**PREFIX), "pooled", False),
    ("bert", "lora"): (adapters.LoRAConfig(r=4, alpha=6, output_lora=True), "static", False),
    ("roberta", "double_seq_bn"): (adapters.DoubleSeqBnConfig(), "classification", False),
    ("roberta", "lora"): (adapters.LoRAConfig(r=2, attn_matrices=["k"]), None, True),
    ("xlm-roberta", "seq_bn"): (adapters.SeqBnConfig(), "classification", True),
    ("xlm-roberta", "lora"): (adapters.LoRAConfig(r=2), None, False),
    ("gpt2", "seq_bn"): (adapters.SeqBnConfig(), "language", False),
    ("gpt2", "lora"): (adapters.LoRAConfig(r=4, alpha=12, output_lora=True), None, False),
    ("gpt2", "prefix"): (adapters.PrefixTuningConfig(flat=True, **PREFIX), None, False),
    ("llama", "compacter++"): (adapters.CompacterPlusPlusConfig(**COMPACTER), None, False),
    ("llama", "lora"): (adapters.LoRAConfig(r=4, intermediate_lora=True), "language", False),
    ("llama", "prefix"): (adapters.PrefixTuningConfig(**PREFIX), None, False),
}
FLEXIBLE = {
    "bert": adapters.BertAdapterModel,
    "roberta": adapters.RobertaAdapterModel,
    "xlm-roberta": adapters.XLMRobertaAdapterModel,
}


def host_of(family: str, static: bool = False) -> torch.nn.Module:
    """The tiny host as adapters wants it; encoders in a model that takes heads."""
    model = build_model(family)
    if family not in FLEXIBLE:
        if ALL_KINDS[family] == "decoder":
            # adapters 1.3 ignores prefixes under transformers' default attention.
            model.set_attn_implementation("eager")
        adapters.init(model)
        return model.eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        if not static:
            return FLEXIBLE[family].from_pretrained(folder).eval()
        model = BertForSequenceClassification.from_pretrained(folder)
    adapters.init(model)
    return model.eval()


def answer(model: torch.nn.Module, family: str) -> torch.Tensor:
    """Class logits of a model with a head, else what the references of techniques answer."""
    inputs = batch(build_tokenizer(family))
    if family not in FLEXIBLE:
        return reference_answer(model, family, inputs)
    if hasattr(model, "heads"):  # a host from a checkpoint brings a head of its own
        (module,) = model.active_adapters.children
        model.active_head = module if module in model.heads else None
    with torch.no_grad():
        found = model(**inputs)
    if "logits" not in found:
        return found.last_hidden_state[inputs["attention_mask"].bool()]
    if found.logits.ndim == 2:
        return found.logits
    mask = inputs["attention_mask"][..., None]
    return (found.logits * mask).sum(1) / mask.sum(1)


def add(model: Any, config: Any, head: str | None) -> None:
    """Add a module with a head to the model and draw its tensors from their names."""
    model.add_adapter(NAME, config=config)
    if head == "classification":
        model.add_classification_head(NAME, num_labels=2)
    elif head == "pooled":
        model.add_classification_head(NAME, num_labels=2, layers=1, use_pooler=True)
    elif head == "tagging":
        model.add_tagging_head(NAME, num_labels=2, id2label={0: "bad", 1: "good"})
    model.set_active_adapters(NAME)
    model.eval()
    for name, tensor in model.named_parameters():
        if f".{NAME}." in name or ".pooler." in name or name.startswith("classifier."):
            tensor.detach().copy_(drawn_like(tensor, name) * (1.0 if tensor.ndim == 1 else 0.6))


def write() -> None:
    """Write all folders, and the answers beside them."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    answers, hosts = {}, {}
    for (family, case), (config, head, safe) in CASES.items():
        model = host_of(family, static=head == "static")
        add(model, config, head)
        into = FOLDER / f"{family}-{case}"
        into.mkdir(parents=True)
        model.save_adapter(str(into), NAME, with_head=head is not None, use_safetensors=safe)
        for file in into.glob("*.json"):
            described = json.loads(file.read_text()) | {"model_name": f"tiny-{family}"}
            file.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
        answers[f"{family}-{case}"] = answer(model, family).contiguous()
        hosts[family] = digest(build_model(family))
    save_file(answers, FOLDER / "answers.safetensors", metadata=hosts)


def answer_all(jobs: list[dict[str, str]], out: Path) -> None:
    """Load folders and write what the hosts answer with them."""
    answers = {}
    for number, job in enumerate(jobs):
        model = host_of(job["family"])
        model.load_adapter(job["folder"], use_safetensors=True, set_active=True)
        answers[str(number)] = answer(model.eval(), job["family"]).contiguous()
    save_file(answers, out)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write()
    else:
        answer_all(json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]))
