"""A host: a frozen pretrained model with its tokenizer and its geometry."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from peftport.errors import BadInput
from peftport.files import by_library, is_file
from peftport.hosts import attention
from peftport.hosts.configuration import host_config
from peftport.hosts.discovery import family_of
from peftport.hosts.fingerprint import fingerprint, weight_files
from peftport.hosts.fused import fuse
from peftport.hosts.geometry import Geometry
from peftport.hosts.loading import load_model
from peftport.hosts.lowered import lower_products
from peftport.hosts.precision import Precision
from peftport.hosts.predictions import Predictions, acting_as, predicted
from peftport.hosts.quantised import require_plain
from peftport.hosts.skeleton import auto_class, pooler_options, require_points
from peftport.hosts.source import (
    find_host,
    geometry_in,
    require_readable,
    require_weights_for,
)
from peftport.hosts.vocabulary import hold_together

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CUT_AT = ("self.o", "ffn.gate", "ffn.up", "ffn.gate_up")
"""Roles of a decoder's layer whose inputs are no token's but their own."""
WORDS_AT_ONCE = 16384
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


@dataclass
class Host:
    """A loaded host. Its weights never change; modules are attached to it for a while.

    precision: of the products with its weights. position_shift: added to the position of every
    token while a prefix stands before the text.
    """

    name: str
    folder: Path
    model: Any
    tokenizer: Any
    geometry: Geometry
    fingerprint: str
    precision: Precision = "fp32"
    position_shift: int = field(default=0, repr=False)
    _parts: dict[str, Any] = field(default_factory=dict, repr=False)

    def part(self, path: str) -> Any:
        """The submodule of the model at `path`; found once, for modules are attached every step."""
        if path not in self._parts:
            self._parts[path] = self.model.get_submodule(path)
        return self._parts[path]

    @property
    def device(self) -> torch.device:
        """Where the host's weights are."""
        return next(self.model.parameters()).device

    def run(self, input_ids: Tensor, attention_mask: Tensor, decoder_ids: Tensor | None) -> None:
        """Run it over texts, every token in every layer, for what can be seen on the way.

        Args:
            input_ids, attention_mask: (rows, tokens), padded on the right.
            decoder_ids: (rows, answer tokens), which only an encoder-decoder reads.
        """
        ids, mask = input_ids.to(self.device), attention_mask.to(self.device)
        if self.geometry.kind == "encoder-decoder":
            assert decoder_ids is not None
            answers = decoder_ids.to(self.device)
            self.model(
                input_ids=ids, attention_mask=mask, decoder_input_ids=answers, use_cache=False
            )
        elif self.geometry.kind == "encoder":
            self.token_states(ids, mask)
        else:
            self.next_token_logits(ids, mask, vocabulary=(), whole=True)

    def next_token_logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        vocabulary: Sequence[int] | None = None,
        whole: bool = False,
    ) -> Tensor:
        """Logits of the token after the text (decoder) or of the first answer token (T5).

        Args:
            input_ids, attention_mask: (rows, tokens), padded on the right.
            vocabulary: the tokens whose logits are wanted, and for which no more is computed than
                they need; None is the whole vocabulary, with every token in every layer.
            whole: compute every token in every layer in any case, for those who look on.

        Returns:
            (rows, vocabulary).
        """
        chosen = slice(None) if vocabulary is None else list(vocabulary)
        if self.geometry.kind == "encoder-decoder":
            start = start_token(self.model.config)
            first = input_ids.new_full((input_ids.shape[0], 1), start)
            self.require_room(input_ids.shape[1])
            head = self.model.get_output_embeddings()
            # In single precision always: a few words with logits near each other are compared.
            with acting_as(head, partial(type(head).forward, head)):
                out = self.model(
                    input_ids=input_ids,
                    attention_mask=self._mask(attention_mask),
                    decoder_input_ids=first,
                    use_cache=False,
                )
            return out.logits[:, -1, chosen]  # (rows, vocabulary)
        last = attention_mask.sum(1) - 1
        # A causal host never looks at padding on the right, so that no mask is needed.
        seen = {} if self.geometry.known else {"attention_mask": attention_mask}
        with ExitStack() as stack:
            if vocabulary is not None and not whole:
                stack.enter_context(self._only_last(last))
            stack.enter_context(self._read_at(last, chosen))
            out = self.model(
                input_ids=input_ids, **seen, **self._positions(input_ids), use_cache=False
            )
        return out.logits[:, 0]  # (rows, vocabulary)

    def predictions(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Predictions:
        """What the host predicts at the places where a token is asked for, row by row.

        Args:
            input_ids, attention_mask: (rows, tokens), padded on the right.
            labels: the token that follows each place (decoder), or those of the answer (T5), and
                below 0 where nothing is asked for: (rows, places).
        """
        inputs: dict[str, Tensor] = {"input_ids": input_ids}
        if self.geometry.kind == "encoder-decoder":
            self.require_room(input_ids.shape[1])
            start = labels.new_full((len(labels), 1), start_token(self.model.config))
            before = torch.cat([start, labels.clamp(min=0)[:, :-1]], dim=1)
            inputs |= {"attention_mask": self._mask(attention_mask), "decoder_input_ids": before}
        else:
            seen = {} if self.geometry.known else {"attention_mask": attention_mask}
            inputs |= seen | self._positions(input_ids)
        return predicted(self.model, labels >= 0, **inputs)

    def last_states(self, input_ids: Tensor, attention_mask: Tensor, whole: bool = False) -> Tensor:
        """A decoder's state at each text's last token, behind its last norm: (rows, width), from
        (rows, tokens) inputs, with every token in every layer if they are wanted `whole`."""
        last = attention_mask.sum(1) - 1
        seen = {} if self.geometry.known else {"attention_mask": attention_mask}
        with nullcontext() if whole else self._only_last(last):
            states = self.model.base_model(
                input_ids=input_ids, **seen, **self._positions(input_ids), use_cache=False
            ).last_hidden_state  # (rows, tokens, width)
        return _rows_at(states, last)[:, 0]

    def token_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """An encoder's last hidden states: (rows, tokens, width), from (rows, tokens) inputs."""
        return self.model(
            input_ids=input_ids,
            attention_mask=self._mask(attention_mask),
            **self._positions(input_ids),
        ).last_hidden_state

    @contextmanager
    def _only_last(self, last: Tensor) -> Iterator[None]:
        """Compute no more of a decoder's last layer than the token at `last`, (rows,), of each row.

        Behind its attention a token's state depends on no other token. What enters the layer's
        output and feed-forward layers is cut to one token; added to the residual stream, which
        keeps all tokens, it is right there, and wrong at the others, which nobody reads.
        """
        layer = f"decoder.{self.geometry.stacks['decoder'] - 1}"
        cut_at = () if self.geometry.trait("whole_layers") else _CUT_AT
        with ExitStack() as stack:
            for role in cut_at:
                if linear := self.geometry.linears.get(f"{layer}.{role}"):
                    module = self.model.get_submodule(linear.path)
                    cut = module.register_forward_pre_hook(lambda _, x: (_rows_at(x[0], last),))
                    stack.callback(cut.remove)
            yield

    @contextmanager
    def _read_at(self, last: Tensor, chosen: slice | list[int]) -> Iterator[None]:
        """Read a decoder's vocabulary at one token of each row, (rows,), and some of its words.

        What a family does with its logits (scales, caps) it does with these.
        """
        head = self.model.get_output_embeddings()
        weight = head.weight[chosen]  # (vocabulary, width)
        bias = None if head.bias is None else head.bias[chosen]

        def read(states: Tensor) -> Tensor:
            states = _rows_at(states, last)  # (rows, 1, width)
            if weight.dtype == states.dtype:
                return functional.linear(states, weight, bias)
            # A vocabulary that is held in another type is never converted as a whole.
            logits = states.new_empty(*states.shape[:2], len(weight))  # (rows, 1, vocabulary)
            for first in range(0, len(weight), WORDS_AT_ONCE):
                at = slice(first, first + WORDS_AT_ONCE)
                some = None if bias is None else bias[at].to(states)
                logits[..., at] = functional.linear(states, weight[at].to(states), some)
            return logits

        with acting_as(head, read):
            yield

    def _mask(self, mask: Tensor) -> Tensor:
        """A mask as the host takes it, and where it may so that none is made in the model."""
        return _seen_by_all(mask) if self.geometry.trait("key_mask") else mask

    def require_room(self, tokens: int) -> None:
        """Raise BadInput when `tokens` and the prefix before them pass the host's positions."""
        limit = self._last_position()
        if limit is not None and self._first_position() + self.position_shift + tokens > limit:
            raise BadInput(
                f"host {self.name} has {limit} positions: texts of {tokens} tokens after a prefix "
                f"of {self.position_shift} do not fit. Lower max_tokens or the prefix length."
            )

    def room_after(self, tokens: int) -> int:
        """How many tokens a decoder can write after `tokens` and the prefix before them.

        Raises:
            BadInput: they pass the host's positions already.
        """
        limit = self._last_position()
        if limit is None:
            return sys.maxsize
        self.require_room(tokens)
        # The last token that is written is not read again.
        return limit - self._first_position() - self.position_shift - tokens + 1

    def _last_position(self) -> int | None:
        """How many positions the host has; None where texts may have any length."""
        if self.geometry.positions not in ("absolute", "after-padding"):
            return None
        found: int | None = getattr(self.model.config, "max_position_embeddings", None)
        return found

    def _positions(self, input_ids: Tensor) -> dict[str, Tensor]:
        """The argument that says where each token stands; none for hosts that do not take it."""
        if self.geometry.positions in ("none", "relative", "unknown"):
            return {}
        self.require_room(input_ids.shape[1])
        start = self._first_position() + self.position_shift
        positions = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
        return {"position_ids": positions[None]}  # (1, tokens)

    def _first_position(self) -> int:
        """RoBERTa counts positions from the one after its padding index."""
        if self.geometry.positions == "after-padding":
            return int(self.model.config.pad_token_id) + 1
        return 0


def start_token(config: Any) -> int:
    """The token that an encoder-decoder's answers begin with, by its configuration."""
    names = ("decoder_start_token_id", "pad_token_id", "eos_token_id")
    found = (getattr(config, name, None) for name in names)
    return int(next((token for token in found if token is not None), 0))


def _seen_by_all(mask: Tensor) -> Tensor:
    """A mask as attentions take it, so that none is made in the model: (rows, 1, 1, tokens)."""
    return mask.bool()[:, None, None]


def _rows_at(states: Tensor, places: Tensor) -> Tensor:
    """The state of one token of each row: (rows, tokens, width) -> (rows, 1, width)."""
    rows = torch.arange(len(states), device=states.device)
    return states[rows, places][:, None]


def load_host(name: str, device: str | torch.device = "cpu", precision: Precision = "fp32") -> Host:
    """Load and freeze a host from the lab, a folder or the hub.

    Args:
        name: `lab:NAME`, a folder, or a hub name, optionally `name@revision`.
        device: where its weights go.
        precision: of the products with its frozen weights.

    Raises:
        BadInput: the host cannot be found, is no language model, lacks weights or a tokenizer,
            or does not have the insertion points that its family promises.
    """
    folder = find_host(name).files()
    geometry = geometry_in(folder, name)
    require_plain(folder, name)
    # Refuses hosts without safetensors, or with too few, before anything large is read.
    files = weight_files(folder)
    require_readable(folder, name)
    require_weights_for(geometry, files, name)
    mark = fingerprint(folder)
    model = _load_model(folder, geometry, name).to(device)
    model.requires_grad_(False)
    fuse(model)
    model.eval()
    require_points(model, geometry, name)
    if precision == "bf16":
        lower_products(model, geometry)
    tokenizer = load_tokenizer(folder, name)
    hold_together(tokenizer, model, name)
    return Host(name, folder, model, tokenizer, geometry, mark, precision)


def load_tokenizer(folder: Path, name: str) -> Any:
    """Load a host's tokenizer, padding on the right; BadInput when there is none.

    The last ones are kept: of a large vocabulary one takes seconds, and hundreds of megabytes.
    """
    # Without files, transformers makes a tokenizer that knows no word, and says nothing.
    if not any(is_file(folder / file) for file in _VOCABULARIES):
        raise BadInput(
            f"host {name} has no tokenizer: {folder} holds no {', '.join(_VOCABULARIES)}."
        )
    require_readable(folder, name)
    found = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    stamps = tuple((called, stat.st_mtime_ns, stat.st_size) for called, stat in found)
    return _tokenizer(folder.resolve(), name, stamps)


@lru_cache(maxsize=2)
def _tokenizer(folder: Path, name: str, _stamps: tuple[tuple[str, int, int], ...]) -> Any:
    """The tokenizer of a folder whose files are these."""
    from transformers import AutoTokenizer

    with by_library(f"host {name} has no tokenizer that can be read"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer.padding_side = "right"
        try:
            _ = tokenizer.unk_token_id
        except RecursionError:  # transformers looks for its number by its number
            raise ValueError(f"its unk_token {tokenizer.unk_token!r} is none of its own") from None
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Some files are read at the first use, others at the first word that they do not know.
        tokenizer(["one text", "\U00013000 \u0f3a"])
    return tokenizer


def _load_model(folder: Path, geometry: Geometry, name: str) -> Any:
    config = host_config(folder, name)
    auto = auto_class(geometry.kind, family_of(config)[1])
    own = geometry.trait("own_attention") or not geometry.known
    wanted = "eager" if own else attention.NAME
    options = pooler_options(auto, config)
    model = load_model(auto, folder, name, attn_implementation=wanted, **options)
    if model.config._attn_implementation != wanted:
        raise BadInput(
            f"host {name}: transformers gave it attention {model.config._attn_implementation!r} "
            "in place of peftport's, without which prefixes do nothing."
        )
    return model
