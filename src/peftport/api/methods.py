"""The port methods and controls, and what each needs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftport.api.result import Result

if TYPE_CHECKING:
    import pandas as pd

    from peftport.porting.base import PortMethod

_WIDTH = 100


@dataclass(frozen=True)
class MethodList(Result):
    """The port methods and controls: for each `name`, `control`, `about`, `limits`, `source`,
    `needs`, `techniques` and `options`."""

    methods: tuple[Mapping[str, Any], ...]

    def frame(self) -> pd.DataFrame:
        """A row for each."""
        import pandas as pd

        return pd.DataFrame(list(self.methods))

    def to_dict(self) -> dict[str, Any]:
        """The list, under `methods`."""
        return {"methods": list(self.methods)}

    def __str__(self) -> str:
        return "\n".join(line for each in self.methods for line in _lines(each))


def list_methods() -> MethodList:
    """The port methods and controls: what each is for, needs and cannot do, and its options.

    >>> import peftport as pp
    >>> [each["name"] for each in pp.list_methods().methods][0]
    'copy'
    """
    from peftport.porting import METHODS, port_method

    return MethodList(tuple(_entry(name, port_method(name)) for name in METHODS))


def _entry(name: str, made: PortMethod) -> dict[str, Any]:
    from peftport.options import described
    from peftport.techniques import working_techniques

    return {
        "name": name,
        "control": made.control,
        "about": made.about,
        "limits": made.limits,
        "source": made.source,
        "needs": sorted(made.needs),
        "techniques": [t.name for t in working_techniques() if made.ports(t.name)],
        "options": described(made.Options),
    }


def _lines(each: Mapping[str, Any]) -> list[str]:
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
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=then)
