"""New hosts: a tokenizer trained on text, and a model of a known family with random weights.

What a family needs is in its data file: `scratch.model_type` and `scratch.architecture` in
transformers' words, `scratch.sizes`, what the configuration calls them, `scratch.config` beside
them, `scratch.tokens` in the order of their ids, and `scratch.around`, the special tokens that
stand around a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from peftport.errors import BadInput
from peftport.hosts.geometry import families
from peftport.registry import did_you_mean

_SENTINELS = 100


@dataclass(frozen=True)
class Sizes:
    """Sizes of a new host; `layers` are those of each of its stacks.

    vocabulary: the most tokens that its tokenizer may have. positions: the longest text that it
    takes, where the family has such a limit.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    ffn: int = 512
    vocabulary: int = 8000
    positions: int = 512

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise BadInput(f"{name} is {value}; it must be at least 1.")
        if self.width % (2 * self.heads):
            raise BadInput(
                f"a width of {self.width} does not give {self.heads} heads of an even width; "
                f"give a width that {2 * self.heads} divides."
            )


def family_entry(name: str) -> dict[str, Any]:
    """A family's data; BadInput for one of which no new host can be made."""
    known = {name: entry for name, entry in families().items() if entry.get("scratch")}
    if name not in known:
        raise BadInput(
            f"no new host can be made of family {name!r}.{did_you_mean(name, known)} They can of "
            f"{', '.join(known)}."
        )
    return known[name]


def new_tokenizer(family: str, texts: Sequence[str], vocabulary: int, cased: bool = False) -> Any:
    """Train a byte-level BPE tokenizer with the family's special tokens; the same at every run.

    The trainers of WordPiece and Unigram give other tokens at every run, and a host's seed must
    decide all of it.

    Args:
        vocabulary: the most tokens, special ones included; little text gives fewer.
        cased: keep upper case letters.

    Raises:
        BadInput: the vocabulary is too small for the bytes and the special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    entry = family_entry(family)["scratch"]
    named: dict[str, str] = entry["tokens"]
    special = list(dict.fromkeys(named.values()))
    sentinels = [f"<extra_id_{i}>" for i in range(_SENTINELS)] if entry.get("sentinels") else []
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(special) + len(alphabet) + len(sentinels)
    if vocabulary < least:
        raise BadInput(
            f"a vocabulary of {vocabulary} is too small: the bytes and the special tokens of "
            f"{family} take {least}."
        )
    made = Tokenizer(models.BPE())
    steps = [normalizers.NFKC(), *([] if cased else [normalizers.Lowercase()])]
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(sentinels),
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.add_special_tokens(sentinels)
    _put_around(made, entry.get("around"))
    more = {"extra_special_tokens": sentinels} if sentinels else {}
    return PreTrainedTokenizerFast(tokenizer_object=made, **named, **more)


def new_model(family: str, sizes: Sizes, tokenizer: Any, seed: int) -> Any:
    """A model of the family with random weights, in evaluation mode.

    Raises:
        BadInput: transformers refuses the sizes.
    """
    import transformers

    entry = family_entry(family)
    scratch = entry["scratch"]
    config_class = transformers.CONFIG_MAPPING[scratch["model_type"]]
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in _IN_CONFIG}
    options = {**special, **_size_options(scratch, sizes, len(tokenizer)), **scratch["config"]}
    if entry["kind"] == "encoder-decoder":
        options["decoder_start_token_id"] = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, scratch["architecture"])(config_class(**options)).eval()


_IN_CONFIG = ("pad", "bos", "eos")


def _size_options(scratch: dict[str, Any], sizes: Sizes, tokens: int) -> dict[str, int]:
    """The sizes under the names that the family's configuration has for them."""
    head_dim = sizes.width // sizes.heads
    values = {
        "width": sizes.width,
        "heads": sizes.heads,
        "kv_heads": sizes.heads,
        "head_dim": head_dim,
        "scale": head_dim,  # of the queries, where a configuration has it apart
        "ffn": sizes.ffn,
    }
    named = scratch["sizes"]
    options = {key: values[size] for size, key in named.items() if size != "layers"}
    options |= dict.fromkeys(named["layers"], sizes.layers)
    if "positions" in scratch:
        key, before = scratch["positions"]
        options[key] = sizes.positions + before
    return {**options, "vocab_size": tokens}


def _put_around(tokenizer: Any, around: str | None) -> None:
    """Put special tokens around every text, as "[CLS] $A [SEP]" says."""
    from tokenizers import processors

    if around is None:
        return
    used = [token for token in around.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=around,
        pair=f"{around} {around.replace('$A', '$B')}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in used],
    )
