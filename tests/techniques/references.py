"""What the tests against other libraries share: texts, references, drawn parameters."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from families import ALL_KINDS, KINDS

TEXTS = (
    "the film was good .",
    "the plot was not very clever and the ending was awful .",
    "the music was lovely and the cast was warm .",
)


def reference_model(family: str, folder) -> PreTrainedModel:
    """The host as transformers loads it, with nothing of peftport's in it."""
    kind = ALL_KINDS[family]
    if kind == "encoder":
        without = {"add_pooling_layer": False} if family in KINDS else {}
        return AutoModel.from_pretrained(folder, **without)
    auto = AutoModelForSeq2SeqLM if kind == "encoder-decoder" else AutoModelForCausalLM
    return auto.from_pretrained(folder)


def batch(tokenizer) -> dict[str, Tensor]:
    """The texts as ids and mask, padded on the right: (rows, tokens) each."""
    ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in TEXTS]
    ones = [torch.ones_like(row) for row in ids]
    pad = torch.nn.utils.rnn.pad_sequence
    return {"input_ids": pad(ids, batch_first=True), "attention_mask": pad(ones, batch_first=True)}


def reference_answer(model, family: str, inputs: dict[str, Tensor]) -> Tensor:
    """What the test compares: the next token's logits, or an encoder's states where text is."""
    mask = inputs["attention_mask"]
    with torch.no_grad():
        if ALL_KINDS[family] == "encoder-decoder":
            start = torch.zeros(len(mask), 1, dtype=torch.long)
            return model(**inputs, decoder_input_ids=start).logits[:, -1]
        if ALL_KINDS[family] == "encoder":
            return model(**inputs).last_hidden_state[mask.bool()]
        logits = model(**inputs).logits
        return logits[torch.arange(len(mask)), mask.sum(1) - 1]


def our_answer(host, inputs: dict[str, Tensor]) -> Tensor:
    """The same of a peftport host, with whatever is attached to it."""
    with torch.no_grad():
        if host.geometry.kind == "encoder":
            return host.token_states(**inputs)[inputs["attention_mask"].bool()]
        return host.next_token_logits(**inputs)


@torch.no_grad()
def target_logits(host, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
    """Logits of the whole vocabulary at the places that labels ask for, (places, vocabulary)."""
    found = host.predictions(input_ids, attention_mask, labels)
    return torch.cat([logits for _, logits in found.parts()])


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Parameters large enough that every one of them shows in the logits; no lane axis."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}


def our_answer_with(host, technique, config, parameters, inputs: dict[str, Tensor]) -> Tensor:
    """Our answer with a module in the second of two lanes; another module is in the first."""
    other = drawn({name: tuple(tensor.shape) for name, tensor in parameters.items()}, seed=1)
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
    lanes = {name: torch.stack([other[name], tensor]) for name, tensor in parameters.items()}
    with technique.attach(host, config, lanes):
        first, second = our_answer(host, twice).chunk(2)
    assert (first - second).abs().max() > 0.1
    return second


def assert_same_effect(ours: Tensor, theirs: Tensor, bare: Tensor) -> None:
    """Both agree within 1e-5, and the module changes the host by far more than that."""
    assert (bare - theirs).abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
