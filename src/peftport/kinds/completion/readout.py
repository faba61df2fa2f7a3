"""How completions are trained and tested on a host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from peftport.kinds.completion.judging import METRICS, Judged
from peftport.kinds.sequences import SequenceLosses, likelihood
from peftport.kinds.writing import MOST, Writing, ends_of, write
from peftport.metrics import Evaluation

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Task


@dataclass(frozen=True)
class CompletionReadout(SequenceLosses):
    """References' losses, and what is written in their place."""

    writes: ClassVar[bool] = True
    task: Task

    def written(
        self, host: Host, encoded: Any, lanes: int, done: Callable[[int], None]
    ) -> list[list[str]]:
        """The most probable answer to each row, token by token."""
        how = writing_of(host.tokenizer, self.task, encoded)
        prompts = encoded.prompts(np.arange(len(encoded)))
        said = write(host, prompts, lanes, how, done)
        return [host.tokenizer.batch_decode(lane, skip_special_tokens=True) for lane in said]

    def evaluation(
        self,
        answers: NDArray[np.floating],
        encoded: Any,
        unlabelled: NDArray[np.floating] | None,
        written: Sequence[str] | None,
    ) -> Evaluation:
        """Loss and perplexity of the references, and how near the host comes to them."""
        assert written is not None
        losses = likelihood(answers[:, 0], encoded)
        scored = Judged(
            losses.nats,
            losses.tokens,
            losses.sizes,
            tuple(text.strip() for text in written),
            tuple(text.strip() for text in encoded.references),
            self.task.scorer,
        )
        return Evaluation.of(scored, METRICS, len(scored.nats))


def writing_of(tokenizer: Any, task: Task, encoded: Any) -> Writing:
    """How a host writes answers to these rows: as long as the longest reference, unless the task
    says it, and no longer than `MOST`."""
    longest = int(encoded.answer_lengths.max())
    return Writing(task.max_answer or min(longest, MOST), ends_of(tokenizer, encoded.answers()))
