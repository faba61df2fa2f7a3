"""Prefixes for another host: maps say what every attention's output should change by, and a fit
finds the keys and values that do it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    def rewritten(
        self,
        request: Request,
        donor: Parameters,
        layers: Iterable[FittedMaps],
        receiving: Receiving,
        seen: Mapping[str, Tensor],
    ) -> Mapped:
        """Prefixes that are fitted after all layers are mapped."""
        config, host = request.config, receiving.host
        points = prefixed_attentions(config, host.geometry)
        start: Parameters = {}
        targets: dict[str, Target] = {}
        for maps in layers:
            for name in filter(maps.covers, points):
                partner, change = maps.partner(name), maps.changes(f"{name}.o")
                wanted, slopes = None, maps.gradients.get(f"{name}.o")
                if partner is not None and change is not None:
                    wanted = (change @ seen[partner].mT).mT  # (samples, width)
                    for what in ("keys", "values"):
                        own = donor[f"{partner}.{what}"]
                        start[f"{name}.{what}"] = maps.forward(f"{name}.{what}", own)
                targets[name] = Target(wanted, slopes and slopes[1])
        steps = request.options.prefix_steps
        with replaced(host, config, receiving.besides):
            made, missed = fit_prefixes(
                host, receiving.rows, config, start, points, targets, steps, _RATE
            )
        details = {"missed": {name: round(share, 4) for name, share in missed.items()}}
        return Mapped("prefix", config, made, details)
