"""lm-evaluation-harness: a host, with whatever module is attached to it, as one of its models, so
that its tasks test a port.

Figures are those of the harness's own `hf` model on the same weights: texts are read by the same
rules (`TemplateLM`), long ones are cut as there, answers stop where they do there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from peftport.errors import BadInput
from peftport.kinds.sequences import with_few_logits
from peftport.kinds.writing import Writing, write
from peftport.registry import did_you_mean
from peftport.tasks.batches import pad_of, padded
from peftport.tasks.pairs import IGNORED, beginning, by_template

if TYPE_CHECKING:
    from peftport.hosts.host import Host

_KNOWN = {"until", "do_sample", "temperature", "max_gen_toks"}
_LONGEST = 2048
"""Tokens that a host takes where neither its configuration nor its tokenizer says it."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figure:
    """One figure of the harness.

    Attributes:
        task, metric, filter: as the harness names them. value: of the metric. error: its standard
            error, None where it has none. better: "higher" or "lower", None where the task does not
            say it. examples: on which it rests.
    """

    task: str
    metric: str
    filter: str
    value: float
    error: float | None
    better: str | None
    examples: int


def evaluated(
    host: Host,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
) -> list[Figure]:
    """The figures of a host on tasks of the harness, with whatever module is attached to it.

    Args:
        tasks: names of tasks, groups or tags. folder: with task files of one's own.
        limit: use at most so many examples of each task.

    Raises:
        BadInput: the harness is not installed, knows no such task, or cannot read or run one.
    """
    harness = _harness()
    manager = _manager(tasks, folder)
    try:
        found = harness.simple_evaluate(
            model=as_model(host),
            tasks=list(tasks),
            limit=limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=100,
        )
    except BadInput:
        raise
    except Exception as error:  # task files are programs, and data come from anywhere
        raise BadInput(
            f"lm-eval cannot run {', '.join(tasks)}: {type(error).__name__}: {error}"
        ) from error
    return list(_figures(found))


def as_model(host: Host) -> Any:
    """A host as an `lm_eval` model (`lm_eval.api.model.TemplateLM`), which answers with whatever
    module is attached at the time.

    Raises:
        BadInput: the harness is not installed, or the host is an encoder.
    """
    _harness()
    from lm_eval.api.model import TemplateLM

    if host.geometry.kind == "encoder":
        raise BadInput(f"host {host.name} is an encoder and writes nothing: lm-eval needs text.")

    class HostModel(_Answers, TemplateLM):
        pass

    return HostModel(host)


class _Answers:
    """What the harness asks of a model, on a host."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host = host
        self.tokenizer = host.tokenizer
        self.apart = host.geometry.kind == "encoder-decoder"
        self.backend = "seq2seq" if self.apart else "causal"
        self._device = host.device

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        found = self.tokenizer.eos_token_id
        return self.prefix_token_id if found is None else int(found)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has nothing before it."""
        found = beginning(self.tokenizer)
        if found is None:
            raise BadInput(f"host {self.host.name} has no token that begins or ends a text.")
        return found

    @property
    def max_length(self) -> int:
        """Tokens that the host takes."""
        from lm_eval.models.utils import resolve_max_length

        config = self.host.model.config
        return int(resolve_max_length(config, self.tokenizer, default=_LONGEST))

    @property
    def tokenizer_name(self) -> str:
        """The host's name, by which the harness keeps requests."""
        return self.host.name.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """A text's tokens, with those that the tokenizer puts around it unless they are there."""
        begins = string.startswith(self.tokenizer.decode(self.prefix_token_id))
        special = not begins if add_special_tokens is None else add_special_tokens
        found: list[int] = self.tokenizer.encode(string, add_special_tokens=special)
        return found

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat by the host's own template."""
        return by_template(
            self.tokenizer,
            chat_history,
            self.host.name,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihoods of whole texts, in windows that have one token in common."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        rows, of = [], []
        for number, request in enumerate(requests):
            (text,) = request.args
            windows = get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
            )
            for window in windows:
                before, predicted = make_disjoint_window(window)
                rows.append((before, predicted))
                of.append(number)
        total = [0.0] * len(requests)
        for number, (found, _) in zip(of, self._scored(rows), strict=True):
            total[number] += found
        return total

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether it is the most probable one."""
        return self._scored([(before, after) for _, before, after in requests])

    @torch.no_grad()
    def _scored(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        for numbers, ids, mask, labels in self._batches(rows):
            wanted = labels[labels != IGNORED]
            losses = torch.zeros(len(wanted), dtype=torch.float64)
            greedy = torch.zeros(len(wanted), dtype=torch.bool)
            for at, logits in self.host.predictions(ids, mask, labels).parts():
                loss = functional.cross_entropy(logits, wanted[at], reduction="none")
                losses[at], greedy[at] = (
                    loss.double().cpu(),
                    (logits.argmax(-1) == wanted[at]).cpu(),
                )
            sizes = (labels != IGNORED).sum(1).tolist()
            for number, loss, best in zip(
                numbers, losses.split(sizes), greedy.split(sizes), strict=True
            ):
                found[number] = (-float(loss.sum()), bool(best.all()))
        return found

    def _batches(
        self, rows: Sequence[tuple[list[int], list[int]]]
    ) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor]]:
        """Rows that are read at a time: their numbers, ids and mask, (rows, tokens), and labels."""
        most = with_few_logits(self.host)
        shown = [self._shown(*row) for row in rows]
        sizes = [max(len(ids), len(labels)) for ids, labels in shown]
        order = sorted(range(len(rows)), key=lambda row: (-sizes[row], row))
        while order:
            many = max(1, most // sizes[order[0]])
            numbers, order = order[:many], order[many:]
            ids = padded([shown[number][0] for number in numbers], pad_of(self.tokenizer))
            mask = padded([[1] * len(shown[number][0]) for number in numbers], 0)
            labels = padded([shown[number][1] for number in numbers], IGNORED)
            device = self.host.device
            yield numbers, ids.to(device), mask.to(device), labels.to(device)

    def _shown(self, before: list[int], after: list[int]) -> tuple[list[int], list[int]]:
        """What the host reads of a row, and the labels of the places there."""
        if self.apart:
            return before[-self.max_length :], after
        # The last token is predicted and not read.
        ids = [*before, *after][-(self.max_length + 1) :][:-1]
        return ids, [IGNORED] * (len(ids) - len(after)) + after

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the host writes after each text, up to a word that ends it, and no more tokens than
        the task asks for; the harness's own encoder-decoders write as many more as the text has."""
        from lm_eval.models.utils import postprocess_generated_text

        found = [""] * len(requests)
        alike: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(repr(request.args[1]), []).append(number)
        for numbers in alike.values():
            how, stops = self._how(requests[numbers[0]].args[1])
            room = self.max_length if self.apart else self.max_length - how.most
            if room < 1:
                raise BadInput(
                    f"a task asks for answers of {how.most} tokens and host {self.host.name} takes "
                    f"{self.max_length}, prompt and all: lower the task's max_gen_toks."
                )
            prompts = [self.tok_encode(requests[number].args[0])[-room:] for number in numbers]
            (said,) = write(self.host, prompts, 1, how)
            for number, answer in zip(numbers, said, strict=True):
                text = self.tokenizer.decode(answer, skip_special_tokens=True)
                found[number] = postprocess_generated_text(text, stops, None)
        return found

    def _how(self, asked: Mapping[str, Any]) -> tuple[Writing, list[str]]:
        """How a task wants answers written, and the words that end them."""
        from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

        wanted = dict(normalize_gen_kwargs(dict(asked)))
        drawn = bool(wanted["do_sample"])
        if unknown := set(wanted) - _KNOWN:
            if drawn:
                raise BadInput(
                    f"a task draws answers with {', '.join(sorted(unknown))}, which peftport does "
                    "not have; it has temperature."
                )
            _log.warning("notice: lm-eval: %s: not used", ", ".join(sorted(unknown)))
        stops = handle_stop_sequences(wanted.get("until"), eos=None)
        temperature = float(wanted.get("temperature") or 1.0) if drawn else 0.0
        ends = (self.eot_token_id,)
        writing = Writing(wanted["max_gen_toks"], ends, temperature, 0, tuple(filter(None, stops)))
        return writing, stops


def _harness() -> Any:
    try:
        import lm_eval
    except ImportError as error:
        raise BadInput(
            "lm-evaluation-harness is not installed: pip install 'peftport[lm-eval]'."
        ) from error
    return lm_eval


def _manager(tasks: Sequence[str], folder: Path | None) -> Any:
    """The harness's index of tasks: the folder's, and its own where one of those is wanted."""
    from lm_eval.tasks import TaskManager

    if folder is not None and not folder.is_dir():
        raise BadInput(f"--lm-eval-path {folder} is no folder.")
    if folder is not None:
        found = TaskManager(include_path=str(folder), include_defaults=False)
        if set(tasks) <= set(found.all_tasks):
            return found
    found = TaskManager(include_path=folder and str(folder))
    for name in tasks:
        if name not in found.all_tasks:
            raise BadInput(
                f"lm-eval has no task {name!r}.{did_you_mean(name, found.all_tasks)} "
                "`lm-eval ls tasks` lists its own; --lm-eval-path names a folder with yours."
            )
    return found


def _figures(found: Mapping[str, Any]) -> Iterator[Figure]:
    """What the harness found, groups after the tasks in them."""
    for part in ("results", "groups"):
        for task, figures in found.get(part, {}).items():
            if part == "results" and task in found.get("groups", {}):
                continue
            for key, value in figures.items():
                metric, comma, kept = key.partition(",")
                if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                    continue
                error = figures.get(f"{metric}_stderr,{kept}")
                higher = found["higher_is_better"].get(task, {}).get(metric)
                better = None if higher is None else "higher" if higher else "lower"
                count = found["n-samples"].get(task, {}).get("effective") or figures.get(
                    "sample_len", 0
                )
                known = float(error) if isinstance(error, int | float) else None
                yield Figure(task, metric, kept, float(value), known, better, int(count))
