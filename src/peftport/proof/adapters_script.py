"""Answers of an AdapterHub folder that the adapters library loads; runs in its environment, where
peftport is not.

    python adapters_script.py JOB OUT

JOB is a JSON file of `host`, `folder`, `kind`, `model_class`, `eager`, `input_ids`,
`attention_mask`; OUT gets the tensors `bare` and `module`.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def main(job: dict[str, Any], out: str) -> None:
    """Load the host and the folder, and write what they answer."""
    import torch
    import transformers
    from safetensors.torch import save_file

    adapters: Any = import_module("adapters")  # of another environment than peftport's
    name = job["model_class"]
    flexible = name.endswith("AdapterModel")
    more = {"attn_implementation": "eager"} if job["eager"] else {}
    model: Any = getattr(adapters if flexible else transformers, name).from_pretrained(
        job["host"], **more
    )
    model = model.float().eval()
    if not flexible:
        adapters.init(model)
    inputs = {key: torch.tensor(job[key]) for key in ("input_ids", "attention_mask")}
    if flexible and hasattr(model, "heads"):
        model.active_head = None
    model.load_adapter(job["folder"], use_safetensors=True, set_active=True)
    model.eval()
    if flexible:
        (module,) = model.active_adapters.children
        model.active_head = module if module in model.heads else None
    with torch.no_grad():
        made = ask(model, job["kind"], inputs)
        active = model.active_adapters
        head = model.active_head if flexible else None
        model.set_active_adapters(None)
        if flexible:
            model.active_head = head
        bare = ask(model, job["kind"], inputs)
        model.set_active_adapters(active)
    save_file({"bare": bare.contiguous(), "module": made.contiguous()}, out)


def ask(model: Any, kind: str, inputs: dict[str, Any]) -> Any:
    """An answer as `peftport.proof.answers` has it."""
    import torch

    mask = inputs["attention_mask"]
    if kind == "encoder-decoder":
        start = mask.new_full((len(mask), 1), model.config.decoder_start_token_id)
        return model(**inputs, decoder_input_ids=start).logits[:, -1].float()
    found = model(**inputs)
    if kind == "decoder":
        return found.logits[torch.arange(len(mask)), mask.sum(1) - 1].float()
    if "logits" not in found:
        return found.last_hidden_state[mask.bool()].float()
    if found.logits.ndim == 2:
        return found.logits.float()
    wide = mask[..., None]
    return ((found.logits * wide).sum(1) / wide.sum(1)).float()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
