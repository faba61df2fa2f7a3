"""`peftport doctor`: what is installed and at hand, and what is missing for what."""

from __future__ import annotations

from peftport.cli.output import AsJson, show


def doctor(as_json: AsJson = False) -> None:
    """Say versions, devices and caches, and what is missing for which command."""
    import peftport as pp

    show(pp.doctor(), as_json)
