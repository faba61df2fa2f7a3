"""A tiny host as a GGUF file, as llama.cpp keeps it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def in_gguf(name: str) -> str:
    name = name.removeprefix("model.")
    if not name.startswith("layers."):
        stem, _, end = name.rpartition(".")
        return f"{ {'embed_tokens': 'token_embd', 'norm': 'output_norm'}[stem] }.{end}"
    _, layer, rest = name.split(".", 2)
    stem, _, end = rest.rpartition(".")
    return f"blk.{layer}.{_NAMES[stem]}.{end}"


def write_gguf(folder: Path, file: Path) -> Path:
    """Write a tiny Qwen 2 as a GGUF file, its matrices in Q8_0."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(file), "qwen2")
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    made = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = sorted(made["model"]["vocab"], key=made["model"]["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in made["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    kind = gguf.GGMLQuantizationType
    for name, tensor in load_file(folder / "model.safetensors").items():
        data = tensor.float().numpy()
        if data.ndim == 2:
            data = gguf.quants.quantize(data, kind.Q8_0)
            writer.add_tensor(in_gguf(name), data, raw_dtype=kind.Q8_0)
        else:
            writer.add_tensor(in_gguf(name), data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
