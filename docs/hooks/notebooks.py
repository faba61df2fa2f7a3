"""Executed notebooks as pages: text as it is, code and what it gave below each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files


def on_files(files: Files, *, config: Any) -> Files:
    """Put a page in the place of every notebook."""
    for file in [each for each in files if each.src_uri.endswith(".ipynb")]:
        cells = json.loads(file.content_string)["cells"]
        page = str(PurePosixPath(file.src_uri).with_suffix(".md"))
        text = "\n\n".join(part for cell in cells for part in _shown(cell))
        files.append(File.generated(config, page, content=text))
    return files


def _shown(cell: dict[str, Any]) -> Iterator[str]:
    """The parts of one cell, in Markdown."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell.get("outputs", ()):
        yield _output(output)


def _output(output: dict[str, Any]) -> str:
    """What a cell gave: HTML where it has any, else a picture or its text."""
    if "text" in output:
        return _block("".join(output["text"]))
    data = output["data"]
    if "text/html" in data:
        return f'<div class="output" markdown="0">\n{"".join(data["text/html"])}\n</div>'
    if "image/png" in data:
        picture = "".join(data["image/png"]).replace("\n", "")
        return f'<img alt="Figure drawn by the code above" src="data:image/png;base64,{picture}">'
    return _block("".join(data["text/plain"]))


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
