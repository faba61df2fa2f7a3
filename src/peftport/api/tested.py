"""What a test found: as one object, and as the lines that are printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftport.api.result import Result

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Tested(Result):
    """A module's figures on the test split of a task, or those of the bare host.

    Attributes:
        module: its folder; None of the bare host.
        technique: that made it; None of the bare host.
        host, task: names.
        made_for_this_host: whether the module is made for the host's very weights; None where
            that is not known, and of the bare host.
        figures: name of the metric -> value, None where it is not defined, and `n_test`.
            Accuracies and AUROC are shares, `log_loss` is in nats.
        intervals: name of the metric -> the ends of its 95 % interval over the test examples;
            of figures that are defined.
        kind: of the task.
        precision: of the products with the host's weights.
        against: the same of what was set beside it; None where nothing was.
        differences: name of the metric -> by how much the figure is above that of `against`, and
            the ends of the 95 % interval over the test examples, which both share. Those by the
            token or byte are left out where the hosts read other ones.
    """

    module: str | None
    technique: str | None
    host: str
    made_for_this_host: bool | None
    task: str
    figures: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]]
    kind: str = "classification"
    precision: str = "fp32"
    against: Tested | None = None
    differences: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """A row for the module, and one for what stands beside it: module, host, task and the
        figures, with the ends of their intervals as `accuracy_low`, `accuracy_high` and so on."""
        import pandas as pd

        tests = [self] if self.against is None else [self, self.against]
        return pd.DataFrame([each._row() for each in tests])

    def _row(self) -> dict[str, Any]:
        ends = {
            f"{name}_{end}": value
            for name, interval in self.intervals.items()
            for end, value in zip(("low", "high"), interval, strict=True)
        }
        return self._plain() | ends

    def to_dict(self) -> dict[str, Any]:
        """Everything, the figures at the top level."""
        found = self._plain() | {"intervals": {n: list(ends) for n, ends in self.intervals.items()}}
        if self.against is not None:
            found["against"] = self.against.to_dict()
            found["differences"] = {
                name: dict(zip(("value", "low", "high"), each, strict=True))
                for name, each in self.differences.items()
            }
        return found

    def _plain(self) -> dict[str, Any]:
        names = ("module", "technique", "host", "precision", "made_for_this_host", "task")
        return {**{name: getattr(self, name) for name in names}, **self.figures}

    @property
    def _called(self) -> str:
        what = f"{self.technique} {self.module} on" if self.module else "bare host"
        return f"{what} {self.host}"

    def __str__(self) -> str:
        beside = "" if self.against is None else f"\nagainst {self.against._called}"
        first = (
            f"{self._called}, {self.task}: {self.figures['n_test']} texts, 95 % intervals over "
            f"them{beside}"
        )
        return "\n".join([first, *self._lines()])

    def _lines(self) -> Iterator[str]:
        """A line for every figure."""
        from peftport.kind import kind_named

        metrics = kind_named(self.kind).metrics
        titles = {name: metrics[name].directed for name in metrics if name in self.intervals}
        wide = max(map(len, titles.values()), default=0)
        if self.against is not None:
            heads = ("the module", "against", "difference")
            yield " " * wide + "".join(f"  {head:<{_WIDE}}" for head in heads).rstrip()
        for name, title in titles.items():
            cells = [_cell(self.figures[name], *self.intervals[name])]
            if self.against is not None and name in self.against.intervals:
                cells.append(_cell(self.against.figures[name], *self.against.intervals[name]))
                apart = self.differences.get(name)
                cells.append(_cell(*apart, sign="+") if apart else "not comparable")
            yield f"{title:<{wide}}" + "".join(f"  {cell:<{_WIDE}}" for cell in cells).rstrip()


_WIDE = len("0.000 (0.000 to 0.000)")


def _cell(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
