"""The class of model that a PEFT module was made on, and how its files name layers in it.

A layer is `model.layers.0...` in a causal language model and `layers.0...` in the bare model;
`bert.encoder.layer.0...` in a model with a head and `encoder.layer.0...` without. peft finds layers
by these names, so that a module is of use in its own class alone. peftport's own names are those of
the class that it runs a host in; a module keeps the class that it came with.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from peftport.hosts.geometry import Geometry
from peftport.hosts.skeleton import auto_class
from peftport.hosts.towers import without_towers
from peftport.modules.module import Module
from peftport.modules.record import ModelClass
from peftport.techniques.base import Parameters

MODEL = "base_model.model."
_log = logging.getLogger(__name__)
_USUAL = {
    "encoder-decoder": "SEQ_2_SEQ_LM",
    "decoder": "CAUSAL_LM",
    "encoder": "FEATURE_EXTRACTION",
}
_AUTO = {
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoModel",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
_WITH_HEAD = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")


def read_model_class(
    config: dict[str, Any], names: Iterable[str], geometry: Geometry
) -> ModelClass:
    """The class that a folder's configuration and the names of its tensors tell.

    Args:
        names: as in the file.
    """
    mapping = config.get("auto_mapping")
    kind = config.get("task_type")
    if isinstance(kind, str) and kind not in _AUTO:
        _log.warning("notice: task_type %r is none that peft has; it is left out", kind)
        kind = None
    return ModelClass(
        family=geometry.family,
        kind=geometry.kind,
        task_type=kind if isinstance(kind, str) else None,
        auto_mapping=mapping if isinstance(mapping, dict) else None,
        inside=layers_inside(names, geometry),
    )


def layers_inside(names: Iterable[str], geometry: Geometry) -> bool | None:
    """Whether layers are named as in a model that holds the bare one; None where no name tells."""
    prefix = geometry.prefix
    paths = (without_towers(linear.path) for linear in geometry.linears.values())
    bare = {path.removeprefix(f"{prefix}.") for path in paths}
    if not prefix:
        return None
    for name in names:
        path = without_towers(name.removeprefix(MODEL))
        within = path.removeprefix(f"{prefix}.")
        if any(layer in bare for layer in accumulate(within.split("."), "{}.{}".format)):
            return within != path
    return None


class WrittenClass:
    """How a module without a head of its own is written: for the class that it came with."""

    def __init__(self, module: Module) -> None:
        self._module, self._geometry = module, module.geometry
        made_on = module.record.model
        alike = made_on if made_on and made_on.kind == self._geometry.kind else None
        # peft loads nothing into a model with a head without that head.
        headless = alike is not None and alike.task_type in _WITH_HEAD
        self._kept = None if headless else alike
        self._lost = "with a head that it does not bring along" if headless else "of another kind"

    def notice_change(self) -> None:
        """Say so where the class is not the one that the module came with."""
        made_on = self._module.record.model
        if made_on and self._kept is None:
            _log.warning(
                "notice: the module was made on a model %s (%s); it is now for %s",
                *(self._lost, made_on.task_type or "of no named task", _AUTO[self.task_type or ""]),
            )

    @property
    def task_type(self) -> str | None:
        """What peft calls the model."""
        return self._kept.task_type if self._kept else _USUAL[self._geometry.kind]

    @property
    def auto_mapping(self) -> dict[str, Any] | None:
        """peft's own word for the class, where the receiving host is of the same family."""
        same = self._kept is not None and self._kept.family == self._geometry.family
        return self._kept.auto_mapping if self._kept and same else None

    @property
    def auto_class(self) -> str:
        """transformers' automatic class that gives such a model."""
        if self._geometry.in_larger:
            return auto_class(self._geometry.kind, wrapped=True)
        if self.task_type in _AUTO:
            return _AUTO[self.task_type or ""]
        named = (self._kept.auto_mapping or {}).get("base_model_class") if self._kept else None
        _, is_for, task = str(named).partition("For")
        if is_for:
            return f"AutoModelFor{task.replace('ConditionalGeneration', 'Seq2SeqLM')}"
        if self._geometry.kind != "encoder":
            return _AUTO[_USUAL[self._geometry.kind]]
        return "AutoModelForMaskedLM" if self._kept and self._kept.inside else "AutoModel"

    def tensors(self, tensors: Parameters) -> Parameters:
        """Tensors by the names that they have on that class."""
        return {
            f"{MODEL}{self._path(name.removeprefix(MODEL))}" if name.startswith(MODEL) else name: t
            for name, t in tensors.items()
        }

    def config(self, config: dict[str, Any]) -> dict[str, Any]:
        """The configuration with layers that it names by their whole paths named so there, too."""
        named = config.get("target_modules")
        if not isinstance(named, list):
            return config
        whole = {linear.path for linear in self._geometry.linears.values()}
        return config | {
            "target_modules": [self._path(path) if path in whole else path for path in named]
        }

    def _path(self, path: str) -> str:
        """A path of the class that peftport runs hosts in, in the class that the module is for."""
        inside = self._kept.inside if self._kept else None
        prefix = self._geometry.prefix
        if inside is False:
            return path.removeprefix(f"{prefix}.")
        # Decoders are run in the class that holds the bare model: the prefix is there already.
        return f"{prefix}.{path}" if inside and self._geometry.kind == "encoder" else path
