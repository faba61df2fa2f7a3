"""What kinds that ask for text have in common: the loss of the tokens that are asked for, and how
probable they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftport.errors import BadInput
from peftport.kinds.likelihood import Likelihood
from peftport.metrics import Evaluation
from peftport.tasks.batches import TEST_TOKENS
from peftport.tasks.pairs import IGNORED, EncodedPairs, Written, chat, turns_of
from peftport.tasks.verbalizer import continue_with
from peftport.techniques.base import Parameters
from peftport.techniques.head import WEIGHT
from peftport.training.readout import Readout

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.hosts.predictions import Predictions
    from peftport.kind import Kind
    from peftport.tasks import Encoded, Rows, Task

_LOGITS = 1 << 27
"""Logits of a whole vocabulary that a test batch may have, in numbers: half a GiB."""
_FEWEST = 256


Judged = Callable[
    [NDArray[np.floating], Any, NDArray[np.floating] | None, Sequence[str] | None], Evaluation
]
"""A test's figures from the losses of the encoded rows (rows,), the rows as they were encoded, the
losses of the texts of a correction, and what was written."""


class SequenceLosses(Readout):
    """Tokens are predicted one by one. Kept of a row: how improbable its answer is, in nats."""

    classes: ClassVar[int] = 0  # type: ignore[misc]
    columns: ClassVar[int] = 1  # type: ignore[misc]

    def losses(self, host: Host, batch: Any, parameters: Parameters, lanes: int) -> Tensor:
        """Cross-entropy in nats, a mean over all tokens that a lane's rows ask for, as TRL's and
        transformers' trainers have it."""
        batch = batch.to(host.device)
        tokens = batch.labels[batch.labels != IGNORED]
        return lane_means(host, batch, lanes, lambda found, shares: found.nats(tokens, shares))

    def answers(self, host: Host, batch: Any, parameters: Parameters) -> Tensor:
        """The sum of each row's losses in nats, (lanes * batch, 1)."""
        batch = batch.to(host.device)
        found = predictions(host, batch)
        losses = found.nats(batch.labels[batch.labels != IGNORED])  # (tokens,)
        total = losses.new_zeros(len(batch.labels), dtype=torch.float64)
        return total.index_add(0, rows_of(batch), losses.double())[:, None]

    def tokens_at_once(self, host: Host) -> int:
        """As many as have few logits."""
        return with_few_logits(host)


@dataclass(frozen=True)
class SequenceReadout(SequenceLosses):
    """The same, for kinds at which nothing is written.

    judged: gives a test's figures.
    """

    judged: Judged

    def evaluation(
        self,
        answers: NDArray[np.floating],
        encoded: Encoded,
        unlabelled: NDArray[np.floating] | None,
        written: Sequence[str] | None,
    ) -> Evaluation:
        """As `judged` has them."""
        beside = None if unlabelled is None else unlabelled[:, 0]
        return self.judged(answers[:, 0], encoded, beside, written)


def with_few_logits(host: Host) -> int:
    """Tokens whose logits of a whole vocabulary fit into memory."""
    return max(_FEWEST, min(TEST_TOKENS, _LOGITS // max(1, host.geometry.vocabulary)))


def predictions(host: Host, batch: Any) -> Predictions:
    """What a host predicts where a batch asks for a token.

    Args:
        batch: rows with `labels` (rows, places), `IGNORED` where nothing is asked for, on the
            host's device.
    """
    return host.predictions(batch.input_ids, batch.attention_mask, batch.labels)


def rows_of(batch: Any) -> Tensor:
    """The row of each token that a batch asks for, (tokens,)."""
    return (batch.labels != IGNORED).nonzero(as_tuple=True)[0]


def lane_means(
    host: Host, batch: Any, lanes: int, losses: Callable[[Predictions, Tensor], Tensor]
) -> Tensor:
    """Each lane's mean loss of a token, (lanes,).

    Args:
        batch: as `predictions` takes it, rows lane-major.
        losses: of every token that is asked for, (tokens,), from what the host predicts and each
            token's share in its lane's mean, (tokens,).
    """
    lane = rows_of(batch) * lanes // len(batch.labels)  # (tokens,)
    ones = torch.ones_like(lane, dtype=torch.float32)
    counts = ones.new_zeros(lanes).index_add(0, lane, ones)
    tokens = losses(predictions(host, batch), 1 / counts[lane])
    return tokens.new_zeros(lanes).index_add(0, lane, tokens) / counts


def require_no_head(kind: Kind, host: Host, module: Parameters | None) -> None:
    """Raise BadInput unless the host writes, under a module that does not answer with a head."""
    kind.require_host(host.name, host.geometry.kind)
    if WEIGHT in (module or {}):
        raise BadInput(
            f"the module answers with a head of classes and writes nothing: tasks of kind "
            f"{kind.name} are not for it."
        )


def row_as_read(tokenizer: Any, task: Task, text: str, answer: str, kind: str) -> Written:
    """A row's text and answer as a host of a kind reads them: a chat by the host's own template
    unless the task says one, else the task's template."""
    if task.form == "messages" and not task.flat:
        return chat(tokenizer, task, text, answer)
    if task.form == "messages":
        text = turns_text(text, task.system)
    prompt = task.templates[kind].replace("{text}", text)
    if task.form == "pairs" or task.form == "messages" or kind == "encoder-decoder":
        return Written(prompt, answer)  # as TRL joins them
    return Written(prompt, continue_with(prompt, answer)[len(prompt) :])


def turns_text(turns: str, system: str | None = None) -> str:
    """A chat's turns, in JSON, as their contents one below the other.

    Args:
        system: the system's turn in place of the chat's own.
    """
    return "\n\n".join(turn["content"] for turn in turns_of(turns, system))


def reference(task: Task, rows: Rows, row: int) -> str:
    """The answer that a row has: its own text, or its class's word."""
    if not task.classes:
        return str(rows.labels[row])
    if task.label_words is None:
        raise BadInput(
            f"task {task.name}: its labels ({', '.join(map(repr, task.labels))}) have no words. "
            "Name one for each, in this order, with --label-words."
        )
    return task.label_words[rows.labels[row]]


def likelihood(nats: NDArray[np.floating], encoded: EncodedPairs) -> Likelihood:
    """Of each row of the task, from the loss of each encoded row, (encoded rows,)."""

    def summed(parts: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(encoded.labels, weights=parts).astype(np.float64)

    tokens, sizes = summed(encoded.answer_lengths), summed(encoded.sizes)
    return Likelihood(summed(nats), tokens.astype(np.int64), sizes.astype(np.int64))
