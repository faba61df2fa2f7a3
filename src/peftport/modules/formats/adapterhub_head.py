"""Prediction heads in AdapterHub folders: `head_config.json` and its tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from peftport.errors import BadInput
from peftport.files import exists, read_json
from peftport.modules.formats.adapterhub_layout import NAME, layout_of
from peftport.modules.formats.base import HEAD_ADVICE, Draft, Folder
from peftport.modules.formats.heads import (
    Kind,
    classes_of,
    host_dense,
    host_tensor,
    read_classifier,
    sequence_head,
)
from peftport.modules.module import Module
from peftport.techniques.base import Parameters
from peftport.techniques.head import BIAS, DENSE, WEIGHT, Pooling, pooling_by

CONFIG, SAFE, PICKLED = "head_config.json", "model_head.safetensors", "pytorch_model_head.bin"

# Layers of a head are counted with their dropouts and activations.
_TAGGING = {"1.weight": WEIGHT, "1.bias": BIAS}

_LANGUAGE = (
    "lm_head.weight",
    "shared.weight",
    "transformer.wte.weight",
    "model.embed_tokens.weight",
)


def with_head(folder: Folder, draft: Draft) -> Draft:
    """Add the head of the folder, if there is one; BadInput for one that peftport cannot follow."""
    if not exists(folder.path / CONFIG):
        return draft
    config = read_json(folder.path / CONFIG)
    path, tensors = folder.weights(SAFE, PICKLED)
    if not isinstance(config, dict):
        raise BadInput(f"{folder.path / CONFIG} is not the configuration of a head.")
    # On T5 adapters takes the prefixes for parts of the head, too.
    tensors = {name: t for name, t in tensors.items() if "prefix_tunings." not in name}
    if tensors.keys() == {"lm_head.weight"}:
        _require_the_host_s(folder, path.name, tensors["lm_head.weight"])
        return draft
    if isinstance(config.get("config"), dict):
        pooling, head = _flexible(folder, config, path, tensors)
    else:
        pooling, head = read_classifier(folder, path, tensors, _kind(config))
    return replace(
        draft,
        tensors=draft.tensors | head,
        pooling=pooling,
        labels=_labels(config, classes_of(head, path)),
    )


def written(module: Module) -> tuple[dict[str, Any], Parameters]:
    """Configuration and tensors of a module's head, both empty where it has none; BadInput for one
    that adapters cannot follow."""
    if WEIGHT not in module.tensors:
        return {}, {}
    if problem := flexible_head_problem(module.record.head):
        raise BadInput(f"{problem}. {HEAD_ADVICE}")
    tagging = module.record.head == "mean"
    labels = {str(label): index for index, label in enumerate(module.record.task["labels"])}
    config = {
        "head_type": "tagging" if tagging else "classification",
        "num_labels": module.classes,
        "layers": 1 if tagging else 2,
        "activation_function": "tanh" if tagging else DENSE[module.record.head].activation,
        "label2id": labels,
        "dropout_prob": None,
        **({} if tagging else {"use_pooler": False, "bias": True}),
    }
    names = _TAGGING if tagging else _with_dense(module.record.head)
    return config, {f"heads.{NAME}.{inner}": module.tensors[n] for inner, n in names.items()}


def flexible_head_problem(pooling: Pooling) -> str | None:
    """Why adapters has no head that pools so; None where it has."""
    dense, what = DENSE.get(pooling), ""
    if pooling == "last":
        what = "reads the last token by one matrix"
    if dense is not None and dense.norm is not None:
        what = "has a norm behind its dense layer"
    if not what:
        return None
    return f"the module's head {what}, which heads of adapters do not and those of --format peft do"


def _with_dense(pooling: Pooling) -> dict[str, str]:
    dense = DENSE[pooling]
    assert dense.bias is not None, "`flexible_head_problem` lets none through that has a norm"
    return {"1.weight": dense.weight, "1.bias": dense.bias, "4.weight": WEIGHT, "4.bias": BIAS}


def _flexible(
    folder: Folder, config: dict[str, Any], path: Any, tensors: Parameters
) -> tuple[Pooling, Parameters]:
    """A head of adapters' own making."""
    head, before = config["config"], f"heads.{config.get('name')}."
    kind, layers = head.get("head_type"), head.get("layers")
    pooled = bool(head.get("use_pooler"))
    if kind == "tagging" and layers == 1:
        return "mean", _named(path, tensors, before, _TAGGING)
    on_pooler = bool(layout_of(folder.geometry).get("pooled_heads"))
    if kind == "classification" and layers == 1 and pooled and on_pooler:
        static = sequence_head(folder.geometry)
        pooler = host_dense(folder, static)
        return static.pooling, _named(path, tensors, before, _TAGGING) | pooler
    if kind != "classification" or layers != 2 or pooled:
        raise BadInput(
            f"{folder.path / CONFIG}: config: a head of type {kind!r} with {layers!r} layers"
            f"{' on the pooler' * pooled}; peftport reads classification heads of 2 layers, and "
            f"tagging heads of 1. Remove {CONFIG} and {path.name} to read the module without."
        )
    activation = head.get("activation_function")
    pooling = pooling_by(activation)
    if pooling is None:
        raise BadInput(
            f"{folder.path / CONFIG}: config.activation_function: {activation!r}, expected one of "
            f"{', '.join(dense.activation for dense in DENSE.values() if dense.bias)}."
        )
    return pooling, _named(path, tensors, before, _with_dense(pooling))


def _named(path: Any, tensors: Parameters, before: str, names: dict[str, str]) -> Parameters:
    for name in tensors:
        if name.removeprefix(before) not in names or not name.startswith(before):
            raise BadInput(f"{path}: tensor {name!r} is none of a head's that peftport reads.")
    for inner in names:
        if before + inner not in tensors:
            raise BadInput(f"{path} lacks tensor {before + inner!r}.")
    return {ours: tensors[before + inner] for inner, ours in names.items()}


def _kind(config: dict[str, Any]) -> Kind | None:
    """Which of transformers' classifiers a static head is from."""
    name = str(config.get("model_class"))
    if name.endswith("ForSequenceClassification"):
        return "sequence"
    return "token" if name.endswith("ForTokenClassification") else None


def _labels(config: dict[str, Any], numbers: tuple[int, ...]) -> tuple[Any, ...]:
    """Names of the classes in order; their numbers where they have only those."""
    own = config.get("config")
    named = (own if isinstance(own, dict) else config).get("label2id")
    if not isinstance(named, dict) or sorted(map(str, named.values())) != sorted(map(str, numbers)):
        return numbers
    ordered = tuple(sorted(named, key=lambda label: int(named[label])))
    return numbers if ordered == tuple(f"LABEL_{i}" for i in numbers) else ordered


def _require_the_host_s(folder: Folder, name: str, tensor: torch.Tensor) -> None:
    """adapters saves the host's own language-model head with every module; one that was trained
    would be lost here."""
    if folder.geometry.kind == "encoder":
        raise BadInput(f"{folder.path / name}: a language-model head, which encoders have none of.")
    if not folder.data:
        return
    own = host_tensor(folder, _LANGUAGE)
    if own is None or own.shape != tensor.shape or not torch.equal(own, tensor):
        raise BadInput(
            f"{folder.path / name}: tensor 'lm_head.weight' is not that of {folder.host_name}: it "
            f"was trained, which peftport cannot follow, or the host is another. Remove {CONFIG} "
            f"and {name} to read the module without."
        )
