"""Prefixes for another host: maps say what every attention's output should change by, and a fit
finds the keys and values that do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from peftport.hosts.geometry import Geometry
from peftport.porting.activations import Spaces
from peftport.porting.fitted import FittedMaps
from peftport.porting.rewriting import ByMaps, Mapped, Receiving
from peftport.techniques.base import Parameters
from peftport.techniques.embeddings import replaced
from peftport.techniques.prefix.core import PrefixConfig, prefixed_attentions
from peftport.techniques.prefix.fit import Target, donor_changes, fit_prefixes

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.porting.base import Request
    from peftport.porting.reading import TokenRows

_RATE = 0.03
"""Learning rate of the fit, in deviations of keys and values."""
_WANTED, _SLOPES = "wanted", "slopes"


class PrefixByMaps(ByMaps):
    """A fit starts from mapped keys and values, and runs the host for every attention."""

    runs_hosts = True

    def spaces(self, config: PrefixConfig, geometry: Geometry) -> Spaces:
        """Keys and values, and what comes out of every attention."""
        attentions = tuple(prefixed_attentions(config, geometry))
        outputs = tuple(f"{a}.o" for a in attentions)
        spaces = tuple(f"{a}.{what}" for a in attentions for what in ("keys", "values"))
        return Spaces((), (*spaces, *outputs), outputs)

    def seen(
        self, request: Request, donor: Parameters, host: Host, rows: TokenRows
    ) -> Mapping[str, Tensor]:
        """What the donor changes at the output of every attention."""
        points = prefixed_attentions(request.config, request.origin)
        return donor_changes(host, rows, request.config, donor, points)

    def layer(
        self, request: Request, donor: Parameters, maps: FittedMaps, seen: Mapping[str, Tensor]
    ) -> Parameters:
        """For each attention mapped keys and values, the change wanted, and the gradients."""
        made: Parameters = {}
        for name in filter(maps.covers, prefixed_attentions(request.config, request.receiver)):
            partner, change = maps.partner(name), maps.changes(f"{name}.o")
            if partner is None or change is None:
                continue
            made[f"{name}.{_WANTED}"] = (change @ seen[partner].mT).mT  # (samples, width)
            if (slopes := maps.gradients.get(f"{name}.o")) is not None:
                made[f"{name}.{_SLOPES}"] = slopes[1]
            for what in ("keys", "values"):
                own = donor[f"{partner}.{what}"]
                made[f"{name}.{what}"] = maps.forward(f"{name}.{what}", own)
        return made

    def whole(self, request: Request, made: Parameters, receiving: Receiving) -> Mapped:
        """Prefixes that are fitted after all layers are mapped."""
        config, host = request.config, receiving.host
        points = prefixed_attentions(config, host.geometry)
        targets = {
            name: Target(made.get(f"{name}.{_WANTED}"), made.get(f"{name}.{_SLOPES}"))
            for name in points
        }
        start = {n: t for n, t in made.items() if n.endswith((".keys", ".values"))}
        steps = request.options.prefix_steps
        with replaced(host, config, receiving.besides):
            fitted, missed = fit_prefixes(
                host, receiving.rows, config, start, points, targets, steps, _RATE
            )
        details = {"missed": {name: round(share, 4) for name, share in missed.items()}}
        return Mapped("prefix", config, fitted, details)
