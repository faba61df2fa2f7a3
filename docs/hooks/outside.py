"""Links out of the documents: what lies beside them in the repository is no page of the site.

Figures are brought into the site. Any other file or folder is named as what it is, a path in the
repository, so that the site needs nothing but itself.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<to>[^)\s#]+)\)")
ROOT = Path(__file__).resolve().parents[2]


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Rewrite the links of one page that lead out of the documents."""
    here = posixpath.dirname(page.file.src_uri)

    def rewritten(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", here, link["to"]))
        if "://" in link["to"] or path.startswith("docs/"):
            return link[0]
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {path}, which does not exist.")
        if link["image"]:
            if files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
            return f"![{link['text']}]({posixpath.relpath(path, here or '.')})"
        if link["text"].strip("`/") in path:
            return f"`{path}`"
        return f"{link['text']} (`{path}`)"

    return LINK.sub(rewritten, markdown)
