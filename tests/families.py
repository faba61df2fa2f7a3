"""The families tiny hosts are made of, for tests to be parametrised with."""

from more_families import MORE

KINDS = {
    "t5": "encoder-decoder",
    "t5-v1.0": "encoder-decoder",
    "bert": "encoder",
    "roberta": "encoder",
    "gpt2": "decoder",
    "llama": "decoder",
    "qwen2": "decoder",
    "qwen3": "decoder",
    "gemma3_text": "decoder",
}
FAMILIES = tuple(KINDS)
ALL_KINDS = KINDS | {family: kind for family, (kind, _, _) in MORE.items()}
ONE_OF_EACH_KIND = ("t5", "bert", "llama")
