"""The kind of tasks that ask a host to write what should follow a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from peftport.kept import Answers, Lengths, pack_values, unpack_values
from peftport.kind import Asking, Kind, Lessons
from peftport.kinds.likelihood import BYTES, likelihood_from
from peftport.metrics import Evaluation, Metric

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.kinds.completion.judging import Judged
    from peftport.tasks import Encoded, Task
    from peftport.techniques.base import Parameters
    from peftport.training.readout import Readout
    from peftport.training.teacher import Teacher


class Completion(Kind):
    """What should follow a prompt."""

    name = "completion"
    about = "What should follow a prompt: an instruction, a chat, a format."
    forms = ("messages", "pairs", "labelled")
    primary, plain, ranking = "token_loss", "exact_match", "chrf"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Loss and perplexity of the reference; exact match, chrF and ROUGE-L of what is written;
        a function of one's own."""
        from peftport.kinds.completion.judging import METRICS

        return METRICS

    def encode(self, tokenizer: Any, task: Task, split: str, host_kind: str) -> Encoded:
        """Every prompt with its reference."""
        from peftport.kinds.sequences import reference, row_as_read
        from peftport.tasks.pairs import encode_pairs

        rows = task.split(split)
        references = tuple(reference(task, rows, row) for row in range(len(rows)))
        pairs = [
            row_as_read(tokenizer, task, text, answer, host_kind)
            for text, answer in zip(rows.texts, references, strict=True)
        ]
        found = encode_pairs(tokenizer, task, pairs, host_kind)
        return replace(found, references=references)

    def encode_texts(
        self, tokenizer: Any, task: Task, texts: Sequence[str], host_kind: str
    ) -> Encoded:
        """Every prompt alone, behind which nothing is asked for but an end."""
        from peftport.kinds.sequences import row_as_read
        from peftport.tasks.pairs import encode_pairs

        pairs = [row_as_read(tokenizer, task, text, "", host_kind) for text in texts]
        return encode_pairs(tokenizer, task, pairs, host_kind)

    def readout(self, host: Host, task: Task, module: Parameters | None = None) -> Readout:
        """The references' losses, and what the host writes."""
        from peftport.kinds.completion.readout import CompletionReadout
        from peftport.kinds.sequences import require_no_head

        require_no_head(self, host, module)
        return CompletionReadout(task)

    def own_answers(
        self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking
    ) -> list[str]:
        """What the donor most probably writes to each prompt."""
        from peftport.kinds.teaching import said

        return [each[0] for each in said(teacher, task, texts, Asking(seed=how.seed))]

    def gold(self, task: Task, split: str) -> bytes:
        """The references."""
        from peftport.kinds.sequences import reference

        rows = task.split(split)
        return pack_values([reference(task, rows, row).strip() for row in range(len(rows))])

    def read_gold(self, data: bytes, record: Mapping[str, Any]) -> tuple[str, ...]:
        """The references, one for each example."""
        return _texts(unpack_values(data))

    def pack(self, evaluation: Evaluation) -> Answers:
        """What was written, and of every example losses, tokens, bytes and judgements; those of
        one's own metric too, whose function is never called again."""
        from peftport.kinds.completion.judging import JUDGEMENTS

        judged = evaluation.scored
        found = np.full((len(JUDGEMENTS), len(judged.nats)), np.nan)
        for place, name in enumerate(JUDGEMENTS):
            values = judged.judgement(name)
            if values is not None:
                found[place] = values
        return Answers(pack_values(list(judged.written)), judged.to_bytes() + found.tobytes())

    def unpack(self, answers: Answers, gold: Any, record: Mapping[str, Any]) -> Judged:
        """The same."""
        from peftport.kinds.completion.judging import JUDGEMENTS, Judged

        assert answers.scores is not None
        rows, written = len(gold), _texts(unpack_values(answers.predictions))
        if len(written) != rows:
            raise ValueError("a run has written to another number of examples")
        losses = likelihood_from(answers.scores, rows)
        values = np.frombuffer(answers.scores, np.float64, offset=BYTES * rows).reshape(-1, rows)
        known = {
            name: None if np.isnan(found).any() else found
            for name, found in zip(JUDGEMENTS, values, strict=True)
        }
        return Judged(losses.nats, losses.tokens, losses.sizes, written, gold, known=known)

    def lengths(self, gold: Any, record: Mapping[str, Any]) -> Lengths:
        """As many as the numbers of every example take; texts are as long as they are."""
        from peftport.kinds.completion.judging import JUDGEMENTS

        return Lengths(None, (BYTES + 8 * len(JUDGEMENTS)) * len(gold), 0)

    def lessons(self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> Lessons:
        """What the donor writes to each prompt (sequence-level distillation, Kim & Rush 2016, arXiv
        1606.07947; for modules Trans-LoRA, arXiv 2405.17258)."""
        from peftport.kinds.teaching import answered

        return answered(teacher, task, texts, how)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise ValueError("it has texts that are none")
    return tuple(values)


COMPLETION = Completion()
