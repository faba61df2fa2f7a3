"""Language: text alone, each token of which is predicted from those before it. For adapters of a
style or a domain.

A text begins, as lm-evaluation-harness begins it, with the token that begins or ends texts on the
host, which is not predicted itself; one that is longer than the limit is read in windows, each
predicting what the one before did not. An encoder-decoder reads the first half of a text's words
and writes the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftport.errors import BadInput
from peftport.kept import Answers, Lengths
from peftport.kind import Asking, Kind, Lessons
from peftport.kinds.likelihood import BYTES, Likelihood, likelihood_from
from peftport.metrics import Evaluation, Metric

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded, Task
    from peftport.techniques.base import Parameters
    from peftport.training.readout import Readout
    from peftport.training.teacher import Teacher

_METRICS = {
    "bits_per_byte": Metric(
        "bits per byte",
        "lower",
        lambda scored: scored.bits_per_byte,
        digits=3,
        worth=0.01,
        per="sizes",
    ),
    "token_loss": Metric(
        "loss per token",
        "lower",
        lambda scored: scored.token_loss,
        digits=3,
        worth=0.02,
        per="tokens",
    ),
    "perplexity": Metric(
        "perplexity",
        "lower",
        lambda scored: scored.perplexity,
        digits=1,
        worth=0.1,
        per="tokens",
    ),
}


class Language(Kind):
    """How probable texts are."""

    name = "language"
    about = "How probable texts are: for adapters of a style or a domain."
    forms = ("texts",)
    labelled = False
    max_tokens = 256
    primary, plain, ranking = "bits_per_byte", "token_loss", "perplexity"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Bits per byte, which compare across tokenizers; loss and perplexity per token."""
        return _METRICS

    def encode(self, tokenizer: Any, task: Task, split: str, host_kind: str) -> Encoded:
        """The texts, in windows."""
        return self.encode_texts(tokenizer, task, task.split(split).texts, host_kind)

    def encode_texts(
        self, tokenizer: Any, task: Task, texts: Sequence[str], host_kind: str
    ) -> Encoded:
        """The texts, in windows."""
        from peftport.tasks.pairs import Written, encode_pairs

        if host_kind == "encoder-decoder":
            shown = [task.templates[host_kind].replace("{text}", text) for text in texts]
            pairs = [Written(*_halves(text, task)) for text in shown]
            return encode_pairs(tokenizer, task, pairs, host_kind)
        return _windows(tokenizer, task, texts)

    def readout(self, host: Host, task: Task, module: Parameters | None = None) -> Readout:
        """Each token's loss."""
        from peftport.kinds.sequences import SequenceReadout, require_no_head

        require_no_head(self, host, module)
        return SequenceReadout(_judged)

    def gold(self, task: Task, split: str) -> bytes:
        """The bytes of every text."""
        sizes = [len(text.encode()) for text in task.split(split).texts]
        return np.array(sizes, np.int32).tobytes()

    def read_gold(self, data: bytes, record: Mapping[str, Any]) -> NDArray[np.int32]:
        """The same, (examples,)."""
        if not data or len(data) % 4:
            raise ValueError("it has sizes of texts that are none")
        return np.frombuffer(data, np.int32)

    def pack(self, evaluation: Evaluation) -> Answers:
        """Losses, tokens and bytes of every text."""
        return Answers(b"", evaluation.scored.to_bytes())

    def unpack(self, answers: Answers, gold: Any, record: Mapping[str, Any]) -> Likelihood:
        """The same."""
        assert answers.scores is not None
        return likelihood_from(answers.scores, len(gold))

    def lengths(self, gold: Any, record: Mapping[str, Any]) -> Lengths:
        """As many as three numbers of every text take."""
        return Lengths(0, BYTES * len(gold), 0)

    def lessons(self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> Lessons:
        """Texts that the donor writes itself, each from the first words of one of the texts on,
        drawn and not the most probable, which would be dull."""
        from peftport.kinds.teaching import as_lessons, continuations

        written = continuations(teacher, task, texts, how)

        def encode(tokenizer: Any, host_kind: str) -> Encoded:
            return self.encode_texts(tokenizer, task, written, host_kind)

        told = {"written": len(written), "temperature": how.temperature}
        return as_lessons(teacher, encode, told, how)


def _judged(
    nats: NDArray[np.floating],
    encoded: Any,
    unlabelled: NDArray[np.floating] | None,
    written: Sequence[str] | None,
) -> Evaluation:
    """Bits per byte and losses of the texts."""
    from peftport.kinds.sequences import likelihood

    scored = likelihood(nats, encoded)
    return Evaluation.of(scored, _METRICS, len(scored.nats))


def _halves(text: str, task: Task) -> tuple[str, str]:
    words = text.split()
    if not words:
        raise BadInput(f"task {task.name}: the text {text!r} gives no token on this host.")
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def _windows(tokenizer: Any, task: Task, texts: Sequence[str]) -> Encoded:
    """Texts as a decoder reads them."""
    from peftport.tasks.batches import pad_of
    from peftport.tasks.pairs import EncodedPairs, beginning, concatenated

    begin = beginning(tokenizer)
    if begin is None:
        raise BadInput(f"task {task.name}: this host has no token that begins or ends a text.")
    most = min(task.max_tokens, tokenizer.model_max_length) - 1
    inputs: list[list[int]] = []
    answers: list[list[int]] = []
    of: list[int] = []
    shown_texts = [task.templates["decoder"].replace("{text}", text) for text in texts]
    for row, shown in enumerate(shown_texts):
        ids = tokenizer(shown, add_special_tokens=False, verbose=False)["input_ids"]
        if not ids:
            raise BadInput(f"task {task.name}: the text {shown!r} gives no token on this host.")
        for whole, predicted in text_windows([begin, *ids], most):
            inputs.append(whole)
            answers.append(whole[len(whole) - predicted :])
            of.append(row)
    tokens, offsets = concatenated(inputs)
    targets, target_offsets = concatenated(answers)
    # All bytes of a text stand with its first window, so that they are counted once.
    first = np.diff(np.asarray(of), prepend=-1) > 0
    sizes = np.where(first, [len(shown_texts[row].encode()) for row in of], 0)
    return EncodedPairs(
        tokens,
        offsets,
        np.asarray(of, np.int64),
        pad_of(tokenizer),
        targets,
        target_offsets,
        False,
        sizes,
    )


def text_windows(ids: list[int], most: int) -> Iterator[tuple[list[int], int]]:
    """Pieces of a text of which all tokens but the first are predicted, each once: the tokens of a
    piece, `most` + 1 at most, and how many of its last are predicted.

    As lm-evaluation-harness cuts them (`get_rolling_token_windows`, context of 1): the last piece
    sees as much as the others do.
    """
    end = min(most, len(ids) - 1)
    yield ids[: end + 1], end
    while end < len(ids) - 1:
        more = min(most, len(ids) - 1 - end)
        end += more
        yield ids[max(0, end - most) : end + 1], more


LANGUAGE = Language()
