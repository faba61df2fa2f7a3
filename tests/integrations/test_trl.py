"""A LoRA of TRL's SFTTrainer goes in as it is, and what comes out answers in stock peft."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import peftport as pp
from peftport.hosts import load_host
from peftport.kinds.writing import Writing, write
from peftport.tasks import load_task
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import readout_of
from tiny_runs import encoded
from written_rows import chats, pairs, write_splits

trl = pytest.importorskip("trl", reason="trl is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # what trl and accelerate warn of is theirs

TEMPLATE = (
    "{% for turn in messages %}{{ turn.role }} : {{ turn.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
ANSWER = "great film and very good cast"


def with_template(folder: Path, to: Path) -> Path:
    """A copy of a host whose tokenizer has a chat template."""
    shutil.copytree(folder, to)
    tokenizer = AutoTokenizer.from_pretrained(to)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(to)
    return to


def talks() -> list[dict]:
    """Chats whose answer is always the same."""
    return [
        {"prompt": row["messages"][:1], "completion": [{"role": "assistant", "content": ANSWER}]}
        for row in chats(12)
    ]


def trainer_of(host: Path, rows: list[dict], out: Path, steps: int):
    """TRL's trainer of a LoRA, as its documentation has it."""
    import datasets

    return trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(host),
        args=trl.SFTConfig(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=2e-2,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=0,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(host),
        peft_config=peft.LoraConfig(
            r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )


def answered(model, host: Path) -> list[str]:
    """Answers to the chats' prompts in transformers' own generate, one at a time."""
    tokenizer = AutoTokenizer.from_pretrained(host)
    found = []
    for row in talks()[:6]:
        text = tokenizer.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        whole = model.generate(
            **ids, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.eos_token_id
        )
        found.append(tokenizer.decode(whole[0, ids["input_ids"].shape[1] :], True).strip())
    return found


def test_a_lora_of_sfttrainer_s_is_ported_and_answers_in_stock_peft(
    tiny_host, tiny_continuation, tmp_path
):
    origin = with_template(tiny_host("llama"), tmp_path / "origin")
    receiver = with_template(tiny_continuation("llama"), tmp_path / "receiver")
    trainer = trainer_of(origin, talks(), tmp_path / "run", 60)
    trainer.train()
    trainer.save_model(str(tmp_path / "lora"))

    data = write_splits(tmp_path / "data", talks())
    module = pp.load_module(tmp_path / "lora", from_host=str(origin))
    assert pp.test(module, origin, str(data)).figures["exact_match"] == 1

    ported = pp.port(module, receiver, method="copy", out=tmp_path / "ported", format="peft")
    attached = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(receiver), tmp_path / "ported"
    )
    told = answered(attached, receiver)
    assert told.count(ANSWER) >= 5
    assert ANSWER not in answered(AutoModelForCausalLM.from_pretrained(receiver), receiver)

    host, task = load_host(str(receiver)), load_task(str(data))
    prompts = encoded(host, task, "test").prompts(np.arange(6))
    lanes = stack_lanes([ported.module.module.tensors])
    with technique("lora").attach(host, ported.module.module.config, lanes):
        (said,) = write(host, prompts, 1, Writing(12, (host.tokenizer.eos_token_id,)))
    ours = host.tokenizer.batch_decode(said, skip_special_tokens=True)
    assert [text.strip() for text in ours] == told


@pytest.mark.parametrize("rows", [pairs(4), talks()[:4]], ids=["texts", "chats"])
def test_the_loss_is_sfttrainer_s_on_the_same_rows(rows, tiny_host, tmp_path):
    folder = with_template(tiny_host("llama"), tmp_path / "host")
    trainer = trainer_of(folder, rows, tmp_path / "run", 1)
    (batch,) = trainer.get_train_dataloader()
    with torch.no_grad():
        expected = trainer.compute_loss(trainer.model, dict(batch))
    host, task = load_host(str(folder)), load_task(str(write_splits(tmp_path / "data", rows)))
    read = encoded(host, task, "test")
    ours = readout_of(host, task).losses(host, read.batch(np.arange(4)), {}, 1)
    assert read.lengths.sum() == batch["attention_mask"].sum()
    torch.testing.assert_close(ours[0], expected, atol=1e-5, rtol=0)
