"""A port before it is done: what it rewrites for which host, by which method and means."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.means import Asked, load_of, means_for, require_fit
from peftport.api.reading import words_problem_of
from peftport.api.suggestions import Options, a_way_on, related
from peftport.errors import BadInput
from peftport.progress import Portion

if TYPE_CHECKING:
    from peftport.api.hosts import HostHandle
    from peftport.api.modules import ModuleHandle
    from peftport.modules import Module
    from peftport.porting import Account
    from peftport.porting.base import Need, PortMethod, Request
    from peftport.porting.means import Means
    from peftport.porting.port import PortedModule
    from peftport.tasks import Task

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedPort:
    """A port that is to be done.

    Attributes:
        partial: whether it goes on though tensors are left out.
        means: both hosts and texts, once they are known and its method needs them.
    """

    donor: Module
    receiver: HostHandle
    method: PortMethod
    options: Mapping[str, Any]
    partial: bool
    means: Means | None = None

    @cached_property
    def request(self) -> Request:
        """What the method is asked for."""
        shapes = {key: tuple(tensor.shape) for key, tensor in self.donor.tensors.items()}
        geometry = self.receiver.geometry
        return self.method.request(self.donor.record, shapes, geometry, self.options)

    @cached_property
    def needs(self) -> frozenset[Need]:
        """What of hosts and texts the port looks at."""
        from peftport.porting.port import needs_of

        return needs_of(self.method, self.request)

    @cached_property
    def _account(self) -> Account | None:
        """What would become of every tensor; None where the method does not apply."""
        from peftport.porting import judge

        return judge(self.method, self.request).account

    def require_words(self) -> None:
        """Raise BadInput where a host cannot read the module's label words, for this method."""
        request, receiver = self.request, self.receiver
        record, geometry = request.donor, request.receiver
        if problem := words_problem_of(self.method, record, geometry, receiver.name):
            raise BadInput(f"{problem}.")

    def require_writable(self, format: str) -> None:
        """Raise BadInput, before any work, where a format cannot hold what would be made; of a head
        alone where the port is not partial, which leaves it out."""
        from peftport.modules import formats

        request, geometry = self.request, self.request.receiver
        targets = self._account.targets if self._account else frozenset[str]()
        technique, config = self.method.makes(request), self.method.configuration(request)
        formats.FORMATS.get(format)().require_holds(technique, config, geometry, targets)
        if self.partial:
            return
        if problem := formats.head_problem(targets, geometry, format):
            raise BadInput(f"{problem}. {formats.HEAD_ADVICE}")

    def with_means(
        self, asked: Asked, device: str, seed: int, task: Task | None = None
    ) -> PlannedPort:
        """The same with what it needs; without the module's embeddings where it is partial, needs
        hosts for nothing else, and cannot have them."""
        from peftport.porting.port import without_rows

        record, needs = self.donor.record, self.needs
        if asked.source is not None and "texts" not in needs:
            _log.warning("notice: %s looks at no texts: --texts is not read", self.method.name)
        try:
            means = means_for(needs, record, self.receiver, device, asked, seed, task)
        except BadInput as error:
            if not self.partial or not needs or self.method.requires(self.request.options):
                raise  # it takes both hosts for more than the module's embeddings
            return replace(self, donor=without_rows(self.donor, error))
        return replace(self, means=means)

    def fitting(self, count: int) -> PlannedPort:
        """The same with options by which it fits into memory, and on the disk what lies there
        meanwhile, of `count` texts where none are at hand; says what it takes. BadInput where it
        does not fit."""
        if self.means is None or self._account is None:
            return self
        load = load_of(self.means, self.donor.record, count)
        estimate, options = require_fit(self.method, self.request, load, self.options)
        _log.info("%s: %s", self.method.name, estimate.text())
        return replace(self, options=options)

    def done(
        self, seed: int, rank: int | None, energy: float | None, portion: Portion, work: Path | None
    ) -> PortedModule:
        """Do it.

        Args:
            work: a folder of what is finished, from which a port that was killed goes on.
        """
        from peftport.modules import HostName
        from peftport.porting import port

        receiver, means = self.receiver, self.means
        return port(
            self.donor,
            receiver.geometry,
            HostName(name=receiver.name, fingerprint=receiver.fingerprint),
            self.method.name,
            options=self.options,
            seed=seed,
            allow_partial=self.partial,
            rank=rank,
            energy=energy,
            means=means and replace(means, progress=portion, work=work),
        )

    def writable(self, ported: PortedModule, format: str) -> PortedModule:
        """What was made, without a head that the format cannot hold where the port is partial."""
        from peftport.modules import formats
        from peftport.porting.port import without_head

        if not self.partial:
            return ported
        module = ported.module
        why = formats.head_problem(module.tensors, module.geometry, format)
        return without_head(ported, f"{why}; --format peftport keeps it") if why else ported


def require_a_method(
    handle: ModuleHandle, donor: Module, receiver: HostHandle, given: Options
) -> None:
    """Raise BadInput that says which methods can, where a plain copy cannot; a notice where it can,
    and the hosts are not known to share their pretraining."""
    from peftport.porting import judge_all, to_try
    from peftport.porting.means import unread

    blind = unread(donor.record.host.name, receiver.name)
    verdicts = judge_all(donor.record, handle.outline[1], receiver.geometry, blind)
    found = {verdict.method: verdict for verdict in verdicts}
    problem = found["copy"].problem
    can = to_try(verdicts, kind=donor.record.kind)
    if problem is None:
        others = [each for each in can if each.method != "copy"]
        if others and not related(donor.record, receiver):
            _log.warning(
                "notice: no --method is named, so the module is copied. That keeps something only "
                "where %s continues %s, or the reverse; else see `%s`",
                receiver.name,
                donor.record.host.name,
                a_way_on(handle, receiver.name, others[0], given),
            )
        return
    told = "; ".join(
        f"{each.method} (looks at {_looks_at(each.requires)})" if each.requires else each.method
        for each in can
    )
    advice = f"No method can: {blind}." if blind else "No method can."
    if can:
        tried = a_way_on(handle, receiver.name, can[0], given)
        advice = f"Methods that can: {told}. Name one with --method; see `{tried}`."
    raise BadInput(f"{handle.called} cannot be copied to {receiver.name}: {problem}. {advice}")


def _looks_at(needs: frozenset[str]) -> str:
    return "both hosts and texts" if "texts" in needs else "both hosts"
