"""One run as a competent user of transformers and peft would write it: a script per run.

`Trainer` trains and tests; LoRA, and prefix tuning on decoders, are peft's own. Adapter and
Compacter are not in peft, and its prefixes do not reach encoders: those modules are peftport's, as
parameters of an ordinary `torch.nn.Module`.

    python benchmarks/straightforward.py JOB.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_dataset
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["host"])
    tokenizer.padding_side = "right"
    rows = {
        split: encoded(tokenizer, job[split], job["template"], job["kind"])
        for split in ("train", "test")
    }
    model = Own(job) if job["library"] == "peftport" else Peft(job)
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=job["scratch"],
            max_steps=job["steps"],
            per_device_train_batch_size=job["batch_size"],
            per_device_eval_batch_size=64,
            learning_rate=job["learning_rate"],
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=job["warmup"],
            weight_decay=0.0,
            max_grad_norm=1.0,
            train_sampling_strategy=job["sampling"],
            length_column_name="length",
            seed=job["seed"],
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=rows["train"],
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    if job["steps"]:
        trainer.train()
    logits, labels, _ = trainer.predict(rows["test"].sort("length"))
    accuracy = float(np.mean(logits.argmax(-1) == labels))
    Path(job["result"]).write_text(json.dumps({"accuracy": accuracy}))


def encoded(tokenizer: Any, file: str, template: str, kind: str) -> Any:
    """The rows of a JSONL file as tokens; `datasets` keeps them for the next run."""

    def tokens(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = [template.replace("{text}", text) for text in batch["text"]]
        made = tokenizer(texts, truncation=True, max_length=128, add_special_tokens=True)
        ids = made["input_ids"]
        if kind == "decoder" and tokenizer.eos_token_id is not None:
            ids = [row[:-1] if row[-1] == tokenizer.eos_token_id else row for row in ids]
        return {
            "input_ids": ids,
            "attention_mask": [[1] * len(row) for row in ids],
            "length": [len(row) for row in ids],
        }

    rows = load_dataset("json", data_files=file, split="train")
    return rows.map(tokens, batched=True, remove_columns=["text"]).rename_column("label", "labels")


def loss_and_logits(logits: torch.Tensor, labels: torch.Tensor | None) -> dict[str, torch.Tensor]:
    found = {"logits": logits}
    return found if labels is None else {"loss": functional.cross_entropy(logits, labels), **found}


class Peft(nn.Module):
    """A host of transformers with a module of peft, read at label words or at a head."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__()
        from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model

        self.kind, self.tokens = job["kind"], job["label_tokens"]
        auto, task = {
            "encoder": (AutoModelForTokenClassification, "TOKEN_CLS"),
            "decoder": (AutoModelForCausalLM, "CAUSAL_LM"),
            "encoder-decoder": (AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM"),
        }[self.kind]
        host = auto.from_pretrained(job["host"], dtype=torch.float32)
        if job["module"]:
            lora = job["technique"] == "lora"
            self.model = PeftModel.from_pretrained(host, job["module"], is_trainable=lora)
            if not lora:  # peft refuses to load a prefix that is trained further
                self.model.prompt_encoder.requires_grad_(True)
        elif job["technique"] == "lora":
            self.model = get_peft_model(host, LoraConfig(task_type=task, **job["options"]))
        else:
            self.model = get_peft_model(host, PrefixTuningConfig(task_type=task, **job["options"]))
        self.model.eval()

    def train(self, mode: bool = True) -> nn.Module:
        """Hosts are frozen, and so they stay in evaluation, without dropout."""
        return self

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: Any = None, **_: Any
    ) -> dict[str, torch.Tensor]:
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        rows = len(input_ids)
        if self.kind == "encoder-decoder":
            start = self.model.config.decoder_start_token_id
            inputs["decoder_input_ids"] = input_ids.new_full((rows, 1), start)
        every = self.model(**inputs, **({} if self.kind == "encoder" else {"use_cache": False}))
        if self.kind == "encoder":
            mask = attention_mask[..., None]
            logits = (every.logits * mask).sum(1) / mask.sum(1)
        else:
            last = attention_mask.sum(1) - 1 if self.kind == "decoder" else torch.tensor([-1])
            logits = every.logits[torch.arange(rows), last][:, self.tokens]
        return loss_and_logits(logits, labels)


class Own(nn.Module):
    """One of peftport's modules on its host, as an ordinary module."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__()
        from peftport.hosts import load_host
        from peftport.modules import load_module
        from peftport.techniques import technique
        from peftport.training import ClassReadout
        from peftport.training.module import initial_module

        self.made = technique(job["technique"])
        self.host = load_host(job["host"])
        self.options = self.made.configure(job["options"])
        tokens = job["label_tokens"]
        self.readout = ClassReadout(2, tuple(tokens) if tokens else None)
        if job["module"]:
            tensors = load_module(Path(job["module"])).tensors
        else:
            tensors = initial_module(self.made, self.options, self.host, 2, job["seed"])
        self.names = list(tensors)
        self.tensors = nn.ParameterList(tensor.clone() for tensor in tensors.values())

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: Any = None, **_: Any
    ) -> dict[str, torch.Tensor]:
        from peftport.tasks.batches import Batch
        from peftport.training import class_logits

        lane = {n: t[None] for n, t in zip(self.names, self.tensors, strict=True)}
        batch = Batch(input_ids, attention_mask, labels)
        with self.made.attach(self.host, self.options, lane):
            return loss_and_logits(class_logits(self.host, batch, lane, self.readout), labels)


if __name__ == "__main__":
    main()
