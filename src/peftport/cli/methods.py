"""`peftport methods`: the port methods and controls."""

from __future__ import annotations

from peftport.cli.output import AsJson, show


def methods(as_json: AsJson = False) -> None:
    """List the port methods and controls: what each is for, needs and cannot do, its options."""
    import peftport as pp

    show(pp.list_methods(), as_json)
