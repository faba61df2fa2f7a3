"""A study's results under another threshold: whether what they say hangs on the texts of the
correction.

The correction rests on training texts. Where these are unlike the test ones, as phrases are unlike
sentences, the offsets that they ask for are off, and for a bare host by more than for a module that
was trained. Here the offsets are those by which the classes are answered equally often on the test
texts themselves, whose labels are not read, for every condition alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from peftport.correction import FEWEST, offsets
from peftport.errors import BadInput
from peftport.kind import USUAL
from peftport.metrics import Scored
from peftport.reports.results import Results

TEST = "test"


def corrected_on_test(results: Results) -> Results:
    """The same runs, corrected on the texts that they were tested on.

    Raises:
        BadInput: the tasks are of another kind than classification, a run did not keep the scores
            that it takes, or a task has too few test texts.
    """
    if results.kind.name != USUAL:
        raise BadInput(
            f"{_OPTION} is for tasks that tell classes apart, and this study's are of the kind "
            f"{results.kind.name}; leave it out."
        )
    known = [run for run in results.done["run_id"] if run in results.scored]
    lacking = len(results.done) - len(known)
    if lacking:
        raise BadInput(
            f"{_OPTION} takes the scores of every test text, which {lacking} of "
            f"{len(results.done)} runs do not have. A study's folder keeps them, and exported rows "
            "do not: give the folder, or leave the option out."
        )
    few = sorted(task for task, gold in results.gold.items() if len(gold) < FEWEST)
    if few:
        raise BadInput(
            f"{_OPTION} takes {FEWEST} test texts or more, and {', '.join(few)} has fewer; "
            "leave it out."
        )
    rows = results.rows.assign(corrected_accuracy=np.nan)  # so that scores are looked at
    facts = {**results.facts, "corrected_on": TEST}
    scored = _OnTest(results.scored)
    return Results(rows, results.predictions, results.gold, facts, scored)


def on_test(results: Results) -> bool:
    """Whether results are corrected so."""
    return results.facts.get("corrected_on") == TEST


class _OnTest(Mapping[str, Scored]):
    """Run id -> its scores with the correction that rests on them."""

    def __init__(self, scored: Mapping[str, Scored]) -> None:
        self._scored = scored

    def __getitem__(self, run_id: str) -> Scored:
        found = self._scored[run_id]
        return replace(found, offsets=offsets(found.scores))

    def __iter__(self) -> Iterator[str]:
        return iter(self._scored)

    def __len__(self) -> int:
        return len(self._scored)


_OPTION = f"--corrected-on {TEST}"
