"""peftport ports PEFT modules from one pretrained language model to another and measures,
with honest controls, how much of them survives.

Use it as `import peftport as pp`. Importing it takes no time and brings no torch: each name below
is fetched from `peftport.api` at its first use. The command line is written on the same functions.

>>> import peftport as pp
>>> host = pp.load_host("lab:small-tuned")
>>> module = pp.load_module("modules/films")
>>> pp.check(module, host).can_port
True
>>> ported = pp.port(module, to=host, method="copy")
>>> pp.test(ported, host, "lab:films", limit_test=64).figures["n_test"]
64
>>> ported.save("out", format="peft")
>>> pp.verify("out", host).acts
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftport.api.assess import Assessed, assess
    from peftport.api.check import Checked, check
    from peftport.api.doctor import Diagnosis, doctor
    from peftport.api.formats import list_formats
    from peftport.api.hosts import (
        HostHandle,
        describe_host,
        list_families,
        list_hosts,
        load_host,
    )
    from peftport.api.lm_eval import LmEvaluated, lm_eval
    from peftport.api.merge import Merged, merge
    from peftport.api.methods import list_methods
    from peftport.api.modules import ModuleHandle, load_module
    from peftport.api.port import Ported, port
    from peftport.api.pretraining import pretrain_host
    from peftport.api.study import Study
    from peftport.api.test import test
    from peftport.api.tested import Tested
    from peftport.api.train import TrainedModule, train
    from peftport.api.verify import Verified, verify
    from peftport.errors import BadInput, PeftportError, RunFailed

__version__ = "0.1.0"

__all__ = [
    "Assessed",
    "BadInput",
    "Checked",
    "Diagnosis",
    "HostHandle",
    "LmEvaluated",
    "Merged",
    "ModuleHandle",
    "PeftportError",
    "Ported",
    "RunFailed",
    "Study",
    "Tested",
    "TrainedModule",
    "Verified",
    "assess",
    "check",
    "describe_host",
    "doctor",
    "list_families",
    "list_formats",
    "list_hosts",
    "list_methods",
    "lm_eval",
    "load_host",
    "load_module",
    "merge",
    "port",
    "pretrain_host",
    "test",
    "train",
    "verify",
]

_PLACES = {
    "peftport.api.assess": ("Assessed", "assess"),
    "peftport.api.check": ("Checked", "check"),
    "peftport.api.doctor": ("Diagnosis", "doctor"),
    "peftport.api.formats": ("list_formats",),
    "peftport.api.hosts": (
        "HostHandle",
        "describe_host",
        "list_families",
        "list_hosts",
        "load_host",
    ),
    "peftport.api.lm_eval": ("LmEvaluated", "lm_eval"),
    "peftport.api.merge": ("Merged", "merge"),
    "peftport.api.methods": ("list_methods",),
    "peftport.api.modules": ("ModuleHandle", "load_module"),
    "peftport.api.port": ("Ported", "port"),
    "peftport.api.pretraining": ("pretrain_host",),
    "peftport.api.study": ("Study",),
    "peftport.api.test": ("test",),
    "peftport.api.tested": ("Tested",),
    "peftport.api.train": ("TrainedModule", "train"),
    "peftport.api.verify": ("Verified", "verify"),
    "peftport.errors": ("BadInput", "PeftportError", "RunFailed"),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Fetch a public name at its first use."""
    if name not in _PLACE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_PLACE_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
