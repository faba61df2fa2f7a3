"""The kind of tasks that ask a host to write what should follow a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftport.kind import Asking, Kind, Lessons
from peftport.metrics import Metric

if TYPE_CHECKING:
    from peftport.hosts.host import Host
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
        from peftport.kinds.sequences import reference, written
        from peftport.tasks.pairs import encode_pairs

        rows = task.split(split)
        references = tuple(reference(task, rows, row) for row in range(len(rows)))
        pairs = [
            written(tokenizer, task, text, answer, host_kind)
            for text, answer in zip(rows.texts, references, strict=True)
        ]
        found = encode_pairs(tokenizer, task, pairs, host_kind)
        return replace(found, references=references)

    def encode_texts(
        self, tokenizer: Any, task: Task, texts: Sequence[str], host_kind: str
    ) -> Encoded:
        """Every prompt alone, behind which nothing is asked for but an end."""
        from peftport.kinds.sequences import written
        from peftport.tasks.pairs import encode_pairs

        pairs = [written(tokenizer, task, text, "", host_kind) for text in texts]
        return encode_pairs(tokenizer, task, pairs, host_kind)

    def readout(self, host: Host, task: Task, module: Parameters | None = None) -> Readout:
        """The references' losses, and what the host writes."""
        from peftport.kinds.completion.readout import CompletionReadout
        from peftport.kinds.sequences import require_no_head

        require_no_head(self, host, module)
        return CompletionReadout(task)

    def lessons(self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> Lessons:
        """What the donor writes to each prompt (sequence-level distillation, Kim & Rush 2016, arXiv
        1606.07947; for modules Trans-LoRA, arXiv 2405.17258)."""
        from peftport.kinds.teaching import answered

        return answered(teacher, task, texts, how)


COMPLETION = Completion()
