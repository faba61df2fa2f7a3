"""Reports: what the runs of a study or an assessment say, with statistics, tables and a page.

What to do with a module, and where its ports stand, is in `peftport.reports.decision`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftport.reports.comparisons import Analysis, analyse
    from peftport.reports.exports import FORMATS, write_export
    from peftport.reports.figures import write_png
    from peftport.reports.page import write_report
    from peftport.reports.results import COLUMNS, Results
    from peftport.reports.summaries import summary
    from peftport.reports.tables import latex, markdown, terminal_table

_PLACES = {
    "COLUMNS": "results",
    "FORMATS": "exports",
    "Analysis": "comparisons",
    "Results": "results",
    "analyse": "comparisons",
    "export": "exports",
    "latex": "tables",
    "markdown": "tables",
    "summary": "summaries",
    "terminal_table": "tables",
    "write_png": "figures",
    "write_report": "page",
}

__all__ = [
    "COLUMNS",
    "FORMATS",
    "Analysis",
    "Results",
    "analyse",
    "latex",
    "markdown",
    "summary",
    "terminal_table",
    "write_export",
    "write_png",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Give each at its first use, so that pandas, scipy and matplotlib are imported only then."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
