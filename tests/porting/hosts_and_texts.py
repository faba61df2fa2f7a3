"""What the tests of ports from host to host share: requests, texts, and twins of a tiny host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftport.hosts.host import Host
from peftport.modules import Module
from peftport.porting import port_method
from peftport.porting.base import Request
from peftport.porting.layers import pair_layers
from peftport.porting.layerwise import How
from peftport.porting.means import Means, side
from peftport.porting.procrustes import SemiOrthogonal
from porting.test_procrustes import calibration
from twins import write_twin


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A function from a kind of twin and a family to the twin's folder; made once a file."""
    made: dict[tuple[str, str], Path] = {}

    def of(how: str, family: str) -> Path:
        if (how, family) not in made:
            made[how, family] = write_twin(how, family, tmp_path_factory.mktemp(how) / family)
        return made[how, family]

    return of


def means_of(origin: Host, receiver: Host, texts: int = 120) -> Means:
    """Both hosts and texts that no task shows."""
    return Means(side(origin.name), side(receiver.name), calibration()[:texts])


def request_of(
    module: Module, receiver: Host, method: str = "procrustes", **options: Any
) -> Request:
    """A port of a module, before anything is computed."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    if method == "procrustes":
        options = {"prefix_steps": 20} | options
    return port_method(method).request(module.record, shapes, receiver.geometry, options)


def how_of(request: Request, prior: bool = False, **pairs: Any) -> How:
    """Whole whitening and gradients, layers by position unless pairs are given."""
    given = pairs or pair_layers("proportional", request.origin.stacks, request.receiver.stacks)
    return How(given, SemiOrthogonal(0.3, 1.0), 1024, prior)
