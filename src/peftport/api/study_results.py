"""What a study's calls give: its plan, how it stands, its report, its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.result import Result

if TYPE_CHECKING:
    import pandas as pd

    from peftport.reports import Analysis
    from peftport.studies.run import Outcome


@dataclass(frozen=True)
class Planned(Result):
    """What a study comes to: runs by condition, trajectories, donors, training steps; with
    `estimate` in seconds and bytes, where that was asked for."""

    record: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The record."""
        return dict(self.record)

    def __str__(self) -> str:
        from peftport.studies.outline import outline_text

        return outline_text(dict(self.record))


@dataclass(frozen=True)
class Standing(Result):
    """How far a study is: runs planned, done, failed and missing, by condition too."""

    record: Mapping[str, Any]

    def frame(self) -> pd.DataFrame:
        """A row for each condition."""
        import pandas as pd

        return pd.DataFrame(self.record["conditions"])

    def to_dict(self) -> dict[str, Any]:
        """The record."""
        return dict(self.record)

    def __str__(self) -> str:
        from peftport.studies.outline import standing_text

        return standing_text(dict(self.record))


@dataclass(frozen=True)
class Reported(Result):
    """A study's report.

    Attributes:
        page: the page, which needs no network.
        analysis: cells, leads and intervals, which tables and figures are made from.
        figures: the PNG files, where they were asked for.
    """

    page: Path
    analysis: Analysis = field(repr=False)
    figures: tuple[Path, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Answers, and every cell beside its controls."""
        from peftport.reports import summary

        drawn = {} if self.figures is None else {"figures": [str(path) for path in self.figures]}
        return {"report": str(self.page), **drawn, **summary(self.analysis)}

    def __str__(self) -> str:
        lines = [f"Report: {self.page}"]
        if self.figures:
            lines.append(f"Figures: {', '.join(path.name for path in self.figures)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The page, in a frame of its own."""
        import html

        page = html.escape(self.page.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="600"></iframe>'


@dataclass(frozen=True)
class StudyRun(Result):
    """How a study stands after it was run.

    Attributes:
        study: its name.
        folder: its folder.
        outcome: runs in all, done and failed, and seconds.
        report: its report; None where nothing is done yet or it was interrupted.
    """

    study: str
    folder: Path
    outcome: Outcome
    report: Reported | None

    def to_dict(self) -> dict[str, Any]:
        """Numbers of runs, and where the report is."""
        outcome = self.outcome
        return {
            "study": self.study,
            "folder": str(self.folder),
            "report": None if self.report is None else str(self.report.page),
            "runs": outcome.total,
            "done": outcome.done,
            "failed": outcome.failed,
            "missing": outcome.total - outcome.done - outcome.failed,
            "recorded_now": outcome.ran,
            "seconds": round(outcome.seconds, 1),
            "interrupted": outcome.interrupted,
        }

    def __str__(self) -> str:
        done, failed = self.outcome.done, self.outcome.failed
        lines = [f"{done:,} of {self.outcome.total:,} runs done, {failed:,} failed."]
        if self.outcome.interrupted:
            lines.append(f"Interrupted; go on with: peftport study run {self.folder}")
        if failed:
            lines.append(f"Why: peftport study status {self.folder}")
        if self.report is not None:
            lines.append(f"Report: {self.report.page}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Exported(Result):
    """Rows of a study as a file's bytes.

    Attributes:
        out: the file, if there is one.
        form: "csv", "parquet" or "json".
        rows: how many.
        data: the bytes.
    """

    out: Path | None
    form: str
    rows: int
    data: bytes = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Where the rows are; or the rows, where they are in no file and are JSON."""
        if self.out is None and self.form == "json":
            return {"rows": json.loads(self.data)}
        out = None if self.out is None else str(self.out)
        return {"out": out, "format": self.form, "rows": self.rows}

    def __str__(self) -> str:
        return f"{self.rows} rows: {self.out}"


@dataclass(frozen=True)
class Rescued(Result):
    """What was whole of a damaged study: `runs` and `donors`, now in the folder `out`."""

    out: Path
    runs: int
    donors: int

    def to_dict(self) -> dict[str, Any]:
        """Everything."""
        return {"out": str(self.out), "runs": self.runs, "donors": self.donors}

    def __str__(self) -> str:
        return (
            f"{self.runs:,} runs and {self.donors:,} donors: {self.out}\n"
            f"`peftport study run {self.out}` does what is missing"
        )


@dataclass(frozen=True)
class TunedRates(Result):
    """Learning rates that were tried on the validation split, and the best of each technique."""

    record: Mapping[str, Any]
    text: str = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The record."""
        return dict(self.record)

    def __str__(self) -> str:
        return self.text
