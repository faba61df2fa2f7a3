"""Modules of stock peft whose effect is in their embeddings alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from modules.formats.test_saved_by_others import save_quietly
from peftport.hosts.host import Host
from peftport.modules import Module, load_module
from peftport.tasks import Task
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import ClassReadout, readout_of, scores
from tiny_runs import encoded, host_in

ROWS = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}
FACTORS = {"target_modules": ["q_proj", "embed_tokens"]}
_STEPS, _RATE = 40, 0.02


def trained(folder: Path, task: Task, into: Path, **options: Any) -> Any:
    """Train the embeddings of a peft model on a task's training rows, and nothing else of it, and
    save it; the model."""
    torch.manual_seed(0)
    made = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **options),
    )
    for name, value in made.named_parameters():
        value.requires_grad_("embed_tokens" in name and value.requires_grad)
    ids, mask, words, labels = _asked(host_in(folder), task)
    learner = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=_RATE)
    for _ in range(_STEPS):
        cross_entropy(_last_logits(made, ids, mask, words), labels).backward()
        learner.step()
        learner.zero_grad()
    save_quietly(made, into)
    return made.eval()


def _asked(host: Host, task: Task) -> tuple[Any, Any, list[int], Any]:
    """The training rows as one batch: ids and mask, (rows, tokens), the tokens of the classes, and
    labels, (rows,)."""
    rows, readout = encoded(host, task, "train"), readout_of(host, task)
    batch = rows.batch(np.arange(len(rows)))
    assert isinstance(readout, ClassReadout)
    words = list(readout.label_tokens or ())
    return batch.input_ids, batch.attention_mask, words, torch.as_tensor(batch.labels)


def _last_logits(model: Any, ids: Tensor, mask: Tensor, words: list[int]) -> Tensor:
    logits = model(input_ids=ids, attention_mask=mask).logits
    return logits[torch.arange(len(ids)), mask.sum(1) - 1][:, words]


@torch.no_grad()
def last_answers(model: Any, host: Host, task: Task) -> Tensor:
    """Class scores of the training rows by a model of transformers or peft: (rows, classes)."""
    ids, mask, words, _ = _asked(host, task)
    return _last_logits(model, ids, mask, words)


def loaded(folder: Path, task: Task) -> Module:
    """A module of peft's that says which task it is for."""
    module = load_module(folder)
    return Module(module.record.model_copy(update={"task": task.record()}), module.tensors)


def scores_of(host: Host, module: Module | None, task: Task) -> Tensor:
    """Class scores of the training rows on a host with a module, or bare: (rows, classes)."""
    this: Any = (None, None, {})
    if module is not None:
        this = (technique(module.technique), module.config, stack_lanes([module.tensors]))
    return scores(host, *this, encoded(host, task, "train"), readout_of(host, task))[0]
