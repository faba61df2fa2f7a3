"""What a study's comparisons give: a cell at a budget, its curve, averages over cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peftport.reports.measures import LEAST_GAIN, Recovery, Steps
from peftport.reports.results import Cell
from peftport.reports.statistics import Estimate, Series


@dataclass(frozen=True)
class Flips:
    """Test examples that a ported module changes, averaged over seeds.

    Attributes:
        versus: whose answers are changed: "host" (the bare receiving host) or "origin" (a native
            module on the originating host).
        lost, won: examples that were right and become wrong, and the reverse.
        examples: of the test set.
        p: McNemar's exact p-value of each seed.
    """

    versus: str
    lost: float
    won: float
    examples: int
    p: tuple[float, ...]


@dataclass(frozen=True)
class Point:
    """A cell at one budget, in the metric that everything rests on (`Results.metric`): of classes
    accuracy, corrected where the study's is.

    Attributes:
        means: condition -> mean figure; None where no run is done.
        leads: control -> by how much ported is ahead: ported minus control, or the reverse where
            less is better; None where either is not there.
        plain: condition -> mean of the kind's plain metric: of classes accuracy as answered,
            without the correction.
        plain_lead: ported minus bare host, as answered; None where nothing is corrected.
        ranking: condition -> mean of the kind's third metric: of classes AUROC, which no threshold
            touches.
        effect: what a port keeps of the native module's lift of that over the bare host.
        agreement: of ported modules with their donors, Cohen's kappa of their corrected answers to
            the same unlabelled texts.
        plain_effect: as `effect`, of the plain metric, where that is not the same uncorrected.
    """

    cell: Cell
    budget: int
    means: Mapping[str, Estimate | None]
    leads: Mapping[str, Estimate | None]
    recovery: Recovery | None
    flips: tuple[Flips, ...]
    plain: Mapping[str, Estimate | None]
    plain_lead: Estimate | None
    ranking: Mapping[str, Estimate | None]
    effect: Recovery | None
    agreement: float | None
    plain_effect: Recovery | None = None

    @property
    def only_threshold(self) -> bool:
        """Whether what the port gains over the bare host as answered vanishes under the
        correction: it is a threshold, which the bare host can have without a module."""
        return vanishes(self.plain_lead, self.leads.get("host"))


@dataclass(frozen=True)
class Curve:
    """A cell over all budgets.

    Attributes:
        areas: condition -> area under the curve over log(1 + steps), as a mean figure.
        leads: control -> difference of the areas.
        to_match: steps after which a module trained from scratch is where the ported one starts.
        to_native: steps after which the ported module is where a native one ends.
    """

    cell: Cell
    areas: Mapping[str, Estimate]
    leads: Mapping[str, Estimate]
    to_match: Steps | None
    to_native: Steps | None


@dataclass(frozen=True)
class Pool:
    """Cells of one relation and port method averaged, each counting the same.

    Attributes:
        by: what else the cells share: "all" (nothing), "technique" or "pair"; `name` says which.
        cells, of: how many are in the average, and how many there are.
        lead: the series of ported minus sampled, for contrasts between pools.
        beside_native: as `leads`, over native modules, which are no control; None without them.
    """

    relation: str
    method: str
    by: str
    name: str
    budget: int
    means: Mapping[str, Estimate]
    leads: Mapping[str, Estimate]
    recovery: Recovery | None
    cells: int
    of: int
    lead: Series | None
    plain: Mapping[str, Estimate]
    plain_lead: Estimate | None
    ranking: Mapping[str, Estimate]
    effect: Recovery | None
    plain_effect: Recovery | None = None
    beside_native: Estimate | None = None

    @property
    def only_threshold(self) -> bool:
        """As for a `Point`."""
        return vanishes(self.plain_lead, self.leads.get("host"))


@dataclass(frozen=True)
class Contrast:
    """How much further ported modules lead over sampled ones in the first pool than the second."""

    first: Pool
    second: Pool
    gap: Estimate


def vanishes(plain: Estimate | None, corrected: Estimate | None) -> bool:
    """Whether a gain over the bare host is there as answered and gone under the correction.

    As answered it is surely above 0 and worth the name (`LEAST_GAIN`); corrected it is not surely
    above 0, and surely less than as answered.
    """
    if plain is None or corrected is None:
        return False
    there = plain.above_zero and plain.value >= LEAST_GAIN
    return there and not corrected.above_zero and corrected.high < plain.value
