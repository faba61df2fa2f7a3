"""In which precision a study multiplies, where its specification leaves that to the machine.

The choice is made once, when a study is begun, and written into its store with the specification.
Runs in bfloat16 have names of their own: whatever machine goes on with a study, its runs are of one
precision.
"""

from __future__ import annotations

import logging
from pathlib import Path

from peftport.hosts.precision import (
    Precision,
    PrecisionChoice,
    chosen_precision,
    remark_on,
)
from peftport.studies.resolve import Facts
from peftport.studies.spec import AUTO, Spec
from peftport.studies.store import is_study, read_store

_log = logging.getLogger(__name__)


def with_precision(spec: Spec, folder: Path, facts: Facts) -> Spec:
    """The specification with its precision: as given, as the study in `folder` was begun with, or
    as is faster on this machine for the widest of its hosts."""
    asked = spec.training.precision
    begun = is_study(folder)
    found = _precision_of(folder) if asked == AUTO and begun else _chosen(asked, facts)
    # What was begun in bfloat16 goes on in it, on a machine for which that is slow as well.
    if remark := remark_on("bf16" if begun else asked, found):
        _log.warning(
            "notice: products with the hosts' weights are in bfloat16, %s; a study with "
            "--set training.precision=fp32 has them in single precision",
            remark,
        )
    training = spec.training.model_copy(update={"precision": found})
    return spec.model_copy(update={"training": training})


def _precision_of(folder: Path) -> Precision:
    """What the study in `folder` was begun with."""
    with read_store(folder) as store:
        found: Precision = store.spec["training"]["precision"]
    return found


def _chosen(asked: PrecisionChoice, facts: Facts) -> Precision:
    """As asked, or what is faster here for the widest host that is known: a plan does not know what
    is on the hub."""
    known = [host["geometry"] for host in facts.hosts.values() if "geometry" in host]
    return chosen_precision(asked, max((geometry["width"] for geometry in known), default=0))
