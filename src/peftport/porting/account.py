"""The ledger of a port: what became of every tensor."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Action = Literal["copied", "mapped", "dropped", "initialised"]
_IDLE = "no layer is paired with this one: it changes nothing"


@dataclass(frozen=True)
class Entry:
    """One tensor of a port.

    source: name in the donor, None when there was none. target: name in the ported module, None
    when the tensor was dropped. scale: what the donor's values were multiplied with. why: the
    reason, where the action does not explain itself. intended: left out or begun anew because that
    was asked for, so that the port is not partial for it.
    """

    source: str | None
    target: str | None
    action: Action
    shape: tuple[int, ...]
    scale: float | None = None
    why: str = ""
    intended: bool = False


def idle(target: str, shape: tuple[int, ...]) -> Entry:
    """A tensor of a layer that no layer of the originating host is paired with."""
    return Entry(None, target, "initialised", shape, why=_IDLE, intended=True)


def left_over(source: str, shape: tuple[int, ...]) -> Entry:
    """A tensor of a layer that no layer of the receiving host is paired with."""
    why = "no layer of the receiving host is paired with this one"
    return Entry(source, None, "dropped", shape, why=why, intended=True)


@dataclass(frozen=True)
class Account:
    """What a port did, tensor by tensor."""

    method: str
    entries: tuple[Entry, ...]

    def with_besides(self, entries: tuple[Entry, ...]) -> Account:
        """The account with what became of things that belong to no technique."""
        return replace(self, entries=self.entries + entries)

    @property
    def targets(self) -> frozenset[str]:
        """Names of the ported module's tensors."""
        return frozenset(entry.target for entry in self.entries if entry.target)

    def counts(self) -> dict[str, int]:
        """Number of tensors by action."""
        found = Counter(entry.action for entry in self.entries)
        return {action: found[action] for action in ("copied", "mapped", "dropped", "initialised")}

    @property
    def problem(self) -> str | None:
        """Why the port is empty or partial, None when every tensor was carried over that should
        be."""
        carried = {e.source for e in self.entries if e.action in ("copied", "mapped")}
        left = [e for e in self.entries if e.action in ("dropped", "initialised")]
        lost = [e for e in left if not e.intended]
        if not lost and carried:
            return None
        if not carried:
            first = f": {left[0].source or left[0].target}: {left[0].why}" if left else ""
            return f"nothing of the module can be carried over{first}"
        whole = carried | {e.source for e in lost if e.source}
        first = f"first left out: {lost[0].source or lost[0].target}: {lost[0].why}"
        if len(carried) < len(whole):
            return (
                f"only {len(carried)} of the module's {len(whole)} tensors can be carried over; "
                f"{first}"
            )
        if lost[0].source:
            return f"{len(lost)} of the module's tensors can be carried over in part alone; {first}"
        return f"the receiving host needs {len(lost)} tensors that the module has not; {first}"

    @property
    def note(self) -> str | None:
        """What a whole port leaves out or begins anew because hosts differ in depth; None if
        nothing."""
        left = sum(1 for e in self.entries if e.action == "dropped" and e.intended)
        new = sum(1 for e in self.entries if e.target and e.why == _IDLE)
        said = [
            *([f"{left} tensors of layers without a partner are left out"] if left else []),
            *([f"{new} of layers without a partner change nothing"] if new else []),
        ]
        return "; ".join(said) or None

    def record(self) -> dict[str, Any]:
        """The account as it is written beside the ported module."""
        return {
            "method": self.method,
            "counts": self.counts(),
            "tensors": [asdict(entry) for entry in self.entries],
        }
