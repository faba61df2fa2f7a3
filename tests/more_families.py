"""Tiny hosts of the families beyond those of `families.py`: configurations and tokenizers."""

from __future__ import annotations

from typing import Any

LENGTH = 128
_PLAIN: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
}
_GROUPED = {**_PLAIN, "num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 16}
_SLIDING = {"sliding_window": 8}
_TWO_KINDS = {"layer_types": ["sliding_attention", "full_attention"], **_SLIDING}
_EXPERTS = {"num_experts_per_tok": 2}
_BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": LENGTH,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}
_T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 32,
    "decoder_start_token_id": 0,
}
_ALBERT = {**_PLAIN, "embedding_size": 16, "inner_group_num": 1, "num_hidden_groups": 1}

# model type -> kind, whose tokenizer, options of its configuration
MORE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma": ("decoder", "gemma3_text", _HEADS),
    "gemma2": ("decoder", "gemma3_text", {**_HEADS, **_TWO_KINDS, "query_pre_attn_scalar": 24}),
    "mistral": ("decoder", "llama", {**_HEADS, **_SLIDING}),
    "ministral": ("decoder", "llama", {**_HEADS, **_TWO_KINDS}),
    "ministral3": ("decoder", "llama", _HEADS),
    "phi3": ("decoder", "llama", _GROUPED),
    "olmo2": ("decoder", "qwen2", _GROUPED),
    "granite": (
        "decoder",
        "qwen2",
        {**_GROUPED, "logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 2},
    ),
    "starcoder2": ("decoder", "qwen2", {**_GROUPED, **_SLIDING}),
    "smollm3": ("decoder", "qwen2", {**_GROUPED, "no_rope_layers": [1, 0]}),
    "qwen3_moe": (
        "decoder",
        "qwen2",
        {**_HEADS, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 24},
    ),
    "gpt_oss": ("decoder", "qwen2", {**_HEADS, **_EXPERTS, **_TWO_KINDS, "num_local_experts": 4}),
    "llama4_text": (
        "decoder",
        "llama",
        {**_HEADS, "num_experts_per_tok": 1, "num_local_experts": 4, "intermediate_size_mlp": 64},
    ),
    "gpt_neox": ("decoder", "qwen2", _PLAIN),
    "opt": ("decoder", "qwen2", {**_PLAIN, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "falcon": (
        "decoder",
        "qwen2",
        {**_PLAIN, "new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 64},
    ),
    "bloom": ("decoder", "qwen2", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "distilbert": (
        "encoder",
        "bert",
        {
            **{"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
            "max_position_embeddings": LENGTH,
        },
    ),
    # With embeddings narrower than the host, as ELECTRA's are: see `SLOW_FITS` in test_families.py.
    "electra": ("encoder", "bert", {**_PLAIN, "embedding_size": 16}),
    "deberta": (
        "encoder",
        "bert",
        {**_PLAIN, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    "deberta-v2": (
        "encoder",
        "bert",
        {
            **_PLAIN,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "share_att_key": True,
        },
    ),
    "albert": ("encoder", "bert", _ALBERT),
    "modernbert": (
        "encoder",
        "bert",
        {**_PLAIN, "local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "xlm-roberta": (
        "encoder",
        "roberta",
        {**_PLAIN, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1},
    ),
    "camembert": (
        "encoder",
        "roberta",
        {**_PLAIN, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1},
    ),
    "bart": ("encoder-decoder", "t5", _BART),
    "mbart": ("encoder-decoder", "t5", _BART),
    "mt5": ("encoder-decoder", "t5", _T5),
    "umt5": ("encoder-decoder", "t5", _T5),
}
_AUTO = {
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModelForMaskedLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}


def made(model_type: str, tokenizer: Any) -> Any:
    """A model of a type, its weights still to be drawn."""
    import transformers

    kind, _, options = MORE[model_type]
    special = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id")
        for name in ("pad", "bos", "eos", "cls", "sep")
    }
    config = transformers.CONFIG_MAPPING[model_type](
        vocab_size=len(tokenizer), **special, **options
    )
    return getattr(transformers, _AUTO[kind]).from_config(config)
