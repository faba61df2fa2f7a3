"""Names out of other people's files are data: in a terminal and in Markdown they are shown, and
never followed."""

from __future__ import annotations

import re

# What terminals obey: controls (line ends and tabs excepted) and marks that turn text around; and
# what stands for bytes that are no text, in names of files.
_CONTROLS = re.compile(
    "[\ud800-\udfff\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|(?<=\])(?=[(\[])|(?<=\])(?=:)|`")


def printable(text: str) -> str:
    r"""Text that a terminal shows and does not obey: controls as JSON writes them, `\u001b`."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def inline(text: str) -> str:
    """Text within a line of Markdown that is shown as it is: no HTML, no link, no code, no line of
    its own; a bar in it does not end a table's cell."""
    shown = _MARKUP.sub(lambda found: {"<": "&lt;", "`": "\\`"}.get(found[0], "\\"), text)
    return printable(" ".join(shown.split())).replace("|", "\\|")
