"""The families tiny hosts are made of, for tests to be parametrised with."""

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
ONE_OF_EACH_KIND = ("t5", "bert", "llama")
