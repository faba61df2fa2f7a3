"""In which precision a study multiplies, where its specification leaves that to the machine.

The choice is made once, when a study is begun, and written into its store with the specification.
Runs in bfloat16 have names of their own: whatever machine goes on with a study, its runs are of one
precision.
"""

from __future__ import annotations

import logging
from pathlib import Path

from peftport.hosts.precision import Precision, chosen_precision
from peftport.studies.resolve import Facts
from peftport.studies.spec import AUTO, Spec
from peftport.studies.store import is_study, read_store

_log = logging.getLogger(__name__)


def with_precision(spec: Spec, folder: Path, facts: Facts) -> Spec:
    """The specification with its precision: as given, as the study in `folder` was begun with, or
    as is faster on this machine for the widest of its hosts."""
    if spec.training.precision != AUTO:
        return spec
    if is_study(folder):
        with read_store(folder) as store:
            found: Precision = store.spec["training"]["precision"]
    else:
        # What is on the hub is not known to a plan.
        known = [host["geometry"] for host in facts.hosts.values() if "geometry" in host]
        widest = max((geometry["width"] for geometry in known), default=0)
        found = chosen_precision(AUTO, widest)
        if found != "fp32":
            _log.warning(
                "notice: products with the hosts' weights are in bfloat16, which is faster on this "
                "machine; --set training.precision=fp32 has them in single precision"
            )
    training = spec.training.model_copy(update={"precision": found})
    return spec.model_copy(update={"training": training})
