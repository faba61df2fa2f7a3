"""`peftport formats`: which files are read, written and refused."""

from __future__ import annotations

from peftport.cli.output import AsJson, show


def formats(as_json: AsJson = False) -> None:
    """Print what is read, written and refused, by technique, family and key, as in
    docs/formats.md."""
    import peftport as pp

    show(pp.list_formats(), as_json)
