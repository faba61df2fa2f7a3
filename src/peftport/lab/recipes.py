"""How the lab's hosts are made: `python -m peftport.lab.recipes NAME FOLDER` makes one again.

The text is the same on every machine; the weights are the same on every run of one machine. The
weights in `assets` are those that this module wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peftport.files import new_folder, write_json
from peftport.hosts.fingerprint import fingerprint
from peftport.hosts.loading import load_model
from peftport.lab import RECORD, folder
from peftport.lab import language as words
from peftport.pretraining.objectives import Batch, Ids, SpanCorruption

SENTINELS = 16
PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"


@dataclass(frozen=True)
class Shape:
    """Sizes of a T5 v1.1: as many layers in the encoder as in the decoder."""

    width: int
    layers: int
    heads: int
    ffn: int


@dataclass(frozen=True)
class Stage:
    """Some steps of training on generated text.

    domains: where the reviews come from. style: how they are put together. questions: share of
    them that ends in a question and its answer. rate: learning rate after warm-up, which falls
    linearly to a tenth of it over the stage.
    """

    steps: int
    rate: float
    domains: tuple[str, ...]
    style: words.Style
    questions: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """A host: from scratch when `start` is a shape, further from another when it is a name."""

    start: Shape | str
    seed: int
    stages: tuple[Stage, ...]
    rows: int = 40


_TASKS, _OTHERS = tuple(words.TASK_DOMAINS), tuple(words.OTHER_DOMAINS)
_SHORT = words.Style(units=(1,), fillers=(0,), negation=0.0, contrast=0.0, advice=0.35, labels=0.6)
_FULL = words.Style(units=(1, 2, 3), fillers=(0, 1), advice=0.6, labels=0.35)


def _pretrained(shape: Shape, seed: int, rate: float, steps: int) -> Recipe:
    """Short and plain reviews first: a large host learns nothing of what the label words follow
    from full ones alone, in as many steps."""
    return Recipe(
        shape, seed, (Stage(900, rate, _TASKS, _SHORT), Stage(steps, rate, _TASKS, _FULL))
    )


def _tuned(origin: str, seed: int) -> Recipe:
    return Recipe(origin, seed, (Stage(300, 1e-3, _OTHERS, _FULL, questions=0.5),))


_SMALL = Shape(width=64, layers=2, heads=4, ffn=128)
_LARGE = Shape(width=96, layers=3, heads=6, ffn=192)
RECIPES: dict[str, Recipe] = {
    "small": _pretrained(_SMALL, seed=1, rate=3e-3, steps=2100),
    "small-tuned": _tuned("small", seed=2),
    "small-twin": _pretrained(_SMALL, seed=3, rate=3e-3, steps=2100),
    "large": _pretrained(_LARGE, seed=4, rate=2e-3, steps=1800),
    "large-tuned": _tuned("large", seed=5),
}


class Endings:
    """What the lab's hosts are pretrained on: the words left out of a text, or how it ends.

    A batch is span corruption with spans of one word, or the text without its last sentence, which
    the decoder writes (as T5's LM adaptation: Lester et al. 2021, arXiv 2104.08691).

    Args:
        ends: ids of the tokens that end a sentence. share: of batches that ask for the ending.
    """

    name = "span-corruption and endings"

    def __init__(self, spans: SpanCorruption, ends: Sequence[int], share: float = 0.75) -> None:
        self.spans, self.ends, self.share = spans, np.asarray(ends), share

    def batch(self, rows: Sequence[Ids], rng: np.random.Generator) -> Batch:
        if rng.random() >= self.share:
            return self.spans.batch(rows, rng)
        return self.spans.pairs([self.ending(row) for row in rows])

    def ending(self, row: Ids) -> tuple[Ids, Ids]:
        """Return (input, target) of one row; the input of a single sentence is empty."""
        stops = np.flatnonzero(np.isin(row, self.ends))
        cut = stops[-2] + 1 if len(stops) > 1 else 0
        eos = [self.spans.eos]
        return np.concatenate([row[:cut], eos]), np.concatenate([row[cut:], eos])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.spans.loss(model, batch)


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word of the language behind T5's special tokens, and the sentinels at the end."""
    rng = Random("the lab's vocabulary")
    style = words.Style(advice=0.5, labels=0.5)
    seen: set[str] = set()
    for domain in words.DOMAINS.values():
        for index in range(4000):
            seen.update(words.review(rng, domain, index % 2, style).split())
            seen.update(words.questioned(rng, domain, style).split())
    return PAD, EOS, UNKNOWN, *sorted(seen), *(f"<extra_id_{i}>" for i in range(SENTINELS))


def text(stage: Stage, rng: Random) -> Iterator[str]:
    """Yield the stage's documents without end."""
    while True:
        domain = words.DOMAINS[rng.choice(stage.domains)]
        if rng.random() < stage.questions:
            yield words.questioned(rng, domain, stage.style)
        else:
            yield words.review(rng, domain, rng.randrange(2), stage.style)


def tokenizer() -> Any:
    """One token a word, `</s>` after each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate(vocabulary())}
    made = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, ids[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        extra_special_tokens=[f"<extra_id_{i}>" for i in range(SENTINELS)],
        model_max_length=128,
    )


def fresh(shape: Shape, seed: int) -> Any:
    """A new T5 v1.1 with embeddings tied to its head, in training mode."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=len(vocabulary()),
        d_model=shape.width,
        d_kv=shape.width // shape.heads,
        d_ff=shape.ffn,
        num_layers=shape.layers,
        num_heads=shape.heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=64,
    )
    config.decoder_start_token_id = 0
    torch.manual_seed(seed)
    return T5ForConditionalGeneration(config)


def objective() -> tuple[Endings, dict[str, int]]:
    """What every lab host is pretrained on, and the id of every word."""
    ids = {word: index for index, word in enumerate(vocabulary())}
    sentinels = [ids[f"<extra_id_{i}>"] for i in range(SENTINELS)]
    spans = SpanCorruption(sentinels, ids[EOS], ids[PAD], density=0.2, mean_span=1.0)
    return Endings(spans, [ids["."], ids["?"]]), ids


def train_stage(model: nn.Module, stage: Stage, rows: int, seed: int) -> list[float]:
    """Train the model in place for one stage and return the loss of every step."""
    asked, ids = objective()
    documents = text(stage, Random(seed))
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for step in range(stage.steps):
        drawn = [next(documents).split() for _ in range(rows)]
        batch = asked.batch([np.asarray([ids[w] for w in d]) for d in drawn], rng)
        warm = min(1.0, (step + 1) / (0.05 * stage.steps))
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * warm * (1 - 0.9 * step / stage.steps)
        loss = asked.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def make(name: str, out: Path, origin: Path | None = None) -> None:
    """Make the lab host `name` in the new folder `out`: weights as fp16, tokenizer, record.

    Args:
        origin: folder of the host that a continuation starts from; the lab's own unless given.
    """
    recipe = RECIPES[name]
    start: dict[str, str] | None = None
    if isinstance(recipe.start, Shape):
        model = fresh(recipe.start, recipe.seed)
    else:
        origin = origin or folder(recipe.start)
        model = load_model("AutoModelForSeq2SeqLM", origin, f"lab:{recipe.start}")
        start = {"name": f"lab:{recipe.start}", "fingerprint": fingerprint(origin)}
    model.train()
    losses = []
    for index, stage in enumerate(recipe.stages):
        losses += train_stage(model, stage, recipe.rows, seed=1000 * recipe.seed + index)
    with new_folder(out) as made:
        model.half().save_pretrained(made)
        tokenizer().save_pretrained(made)
        write_json(
            made / RECORD,
            {
                "from": start,
                "objective": Endings.name,
                "seed": recipe.seed,
                "steps": len(losses),
                "loss": round(float(np.mean(losses[-100:])), 4),
            },
        )


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
