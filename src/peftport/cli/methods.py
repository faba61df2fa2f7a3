"""`peftport methods`: the port methods and controls."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from peftport.cli.output import AsJson, show

if TYPE_CHECKING:
    from peftport.porting.base import PortMethod


def methods(as_json: AsJson = False) -> None:
    """List the port methods and controls: what each is for, needs and cannot do, its options."""
    from peftport.porting import METHODS, port_method

    found = [_entry(name, port_method(name)) for name in METHODS]
    show({"methods": found}, "\n".join(line for each in found for line in _lines(each)), as_json)


def _entry(name: str, made: PortMethod) -> dict[str, Any]:
    from peftport.options import described
    from peftport.techniques import TECHNIQUES

    return {
        "name": name,
        "control": made.control,
        "about": made.about,
        "limits": made.limits,
        "source": made.source,
        "needs": sorted(made.needs),
        "techniques": [t for t in TECHNIQUES if made.techniques is None or t in made.techniques],
        "options": described(made.Options),
    }


def _lines(each: dict[str, Any]) -> list[str]:
    """A control in one line; a method with all that there is to know."""
    head = _wrapped(f"{each['name']:<12} {each['about']}", first="", then=" " * 13)
    if each["control"]:
        return head
    needs = {"weights": "both hosts", "texts": "unlabelled texts"}
    told = {
        "limits": each["limits"],
        "needs": ", ".join(needs[need] for need in reversed(each["needs"])) or "the module alone",
        "techniques": ", ".join(each["techniques"]),
        "source": each["source"],
    }
    lines = [line for key, text in told.items() if text for line in _wrapped(f"{key}: {text}")]
    for option in each["options"]:
        usual = "" if option["default"] is None else f", {option['default']} if not given"
        about = f": {option['about']}" if option["about"] else ""
        lines += _wrapped(f"--set {option['name']} ({option['type']}{usual}){about}")
    return [*head, *lines]


def _wrapped(text: str, first: str = " " * 13, then: str = " " * 15) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=first, subsequent_indent=then)
