"""What is written of a study: its report, its rows, and what is whole of a damaged one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from peftport.api.study_results import Exported, Reported, Rescued
from peftport.errors import BadInput
from peftport.files import is_file
from peftport.places import require_writable
from peftport.registry import did_you_mean

if TYPE_CHECKING:
    from peftport.reports import Results

PAGE = "index.html"
OURS = {
    PAGE: re.compile(r'<meta name="generator" content="peftport '),
    "results.md": re.compile(r"\A# .*\n\n[\d,]+ runs? done"),
    "results.tex": re.compile(r"\A(\\begin\{longtable\}|\Z)"),
}
"""The files of a report, and how each is known for one."""
CORRECTED_ON = ("training", "test")
"""Texts that a report's correction can rest on."""


def report_of(
    study: str | Path,
    out: str | Path | None = None,
    *,
    figures: bool = False,
    corrected_on: str = "training",
) -> Reported:
    """Write the report of a study's folder, or of a file of rows that `export` wrote.

    Args:
        out: a folder; the study's own if not given.
        figures: also write figures as PNG files.
        corrected_on: "training", the texts that every condition was corrected on when it was
            tested, or "test", the test texts themselves without their labels: whether what the
            report says hangs on the threshold's texts.

    Raises:
        BadInput: there is no study and no table of rows, a report has no place, other files are
            in its place, or the correction cannot rest on such texts.
    """
    from peftport.reports import analyse, write_png, write_report

    source = Path(study)
    if corrected_on not in CORRECTED_ON:
        raise BadInput(
            f"--corrected-on {corrected_on} is unknown."
            f"{did_you_mean(corrected_on, CORRECTED_ON)} Known: {', '.join(CORRECTED_ON)}."
        )
    if out is None and is_file(source):
        raise BadInput(f"{source} is a file: say with --out where its report is to be written.")
    if out is None and corrected_on != CORRECTED_ON[0]:
        raise BadInput(
            f"--corrected-on {corrected_on} makes another report than the study's own: say with "
            "--out where it is to be written."
        )
    place = source if out is None else Path(out)
    require_writable(place / PAGE)
    _require_own(place)
    analysis = analyse(_results(source, corrected_on))
    page = write_report(analysis, place)
    drawn = write_png(analysis, place) if figures else None
    return Reported(page, analysis, None if drawn is None else tuple(drawn))


def export_of(
    folder: str | Path,
    out: str | Path | None = None,
    form: str = "csv",
    *,
    excel_safe: bool = False,
) -> Exported:
    """The rows of the study in a folder; see `Study.export`."""
    from peftport.files import write_atomic
    from peftport.reports.exports import write_export as rows_as
    from peftport.reports.stored import read_rows

    if out is not None:
        _require_new(Path(out))
    rows = read_rows(Path(folder))
    data = rows_as(rows, form, excel_safe)
    if out is not None:
        write_atomic(Path(out), data)
    return Exported(None if out is None else Path(out), form, len(rows), data)


def rescue_of(folder: str | Path, out: str | Path) -> Rescued:
    """What is whole of the damaged study in a folder, in a new one; see `Study.rescue`."""
    from peftport.studies.rescue import rescue

    found = rescue(Path(folder), Path(out))
    return Rescued(Path(out), found.runs, found.donors)


def _results(study: Path, corrected_on: str) -> Results:
    from peftport.reports.recorrected import corrected_on_test
    from peftport.reports.stored import read_exported, read_results

    found = read_exported(study) if is_file(study) else read_results(study)
    return found if corrected_on == CORRECTED_ON[0] else corrected_on_test(found)


def _require_own(place: Path) -> None:
    """Refuse to put a report in the place of other files of these names."""
    for name, mark in OURS.items():
        file = place / name
        if file.exists() and not (is_file(file) and mark.search(file.read_text(errors="replace"))):
            raise BadInput(
                f"{file} exists already and is of no report by peftport; give another --out or "
                "remove it first."
            )


def _require_new(out: Path) -> None:
    """Refuse a place where nothing can be written before anything is read."""
    if out.exists():
        what = "is a folder; name a file in it" if out.is_dir() else "exists already"
        raise BadInput(f"--out {out} {what}.")
    if not out.parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}.")
    require_writable(out)
