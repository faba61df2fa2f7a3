"""The files that modules are kept in, by library: found by name, read, and written."""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from peftport.errors import BadInput
from peftport.files import new_folder, read_json, write_atomic, write_json
from peftport.hosts.geometry import Geometry
from peftport.modules.card import CARD, card
from peftport.modules.formats.base import HEAD_ADVICE, Folder, ForeignFormat, Format, with_record
from peftport.modules.formats.provenance import KEPT, provenance, read_provenance
from peftport.modules.formats.stored import stored_type
from peftport.modules.found import find_module
from peftport.modules.module import ACCOUNT, FOREIGN_CONFIG, Module, is_foreign, load_tensors
from peftport.plain import printable
from peftport.registry import Registry
from peftport.techniques.head import BIAS, pooling_of

__all__ = ["FORMATS", "HEAD_ADVICE", "OWN", "format_of", "read", "save"]

OWN = "peftport"
LABEL_BIAS = "peftport_label_bias.safetensors"
_log = logging.getLogger(__name__)
FORMATS = Registry(
    "format",
    {
        OWN: "peftport.modules.formats.own:Own",
        "peft": "peftport.modules.formats.peft:Peft",
        "adapterhub": "peftport.modules.formats.adapterhub:AdapterHub",
    },
)


def format_of(folder: Path) -> str:
    """Name of the format that a module's folder is in; BadInput when it is in none."""
    folder = find_module(folder)
    if not is_foreign(folder):
        return OWN
    config = read_json(folder / FOREIGN_CONFIG)
    return _foreign_format(config, folder / FOREIGN_CONFIG)


def read(
    folder: Path,
    from_host: str | None,
    pickles: bool,
    data: bool = True,
    partial: bool = False,
) -> Module:
    """Read a folder of another library; see `load_module`.

    Args:
        data: False reads shapes alone; the tensors are then on torch's meta device.

    Raises:
        BadInput: the folder cannot be read, is of a kind that peftport does not read, or its
            tensors are not those that its configuration and the host ask for.
    """
    path = folder / FOREIGN_CONFIG
    config = read_json(path)
    made: ForeignFormat = FORMATS.get(_foreign_format(config, path))()
    kept = read_provenance(folder)
    source = Folder(folder, config, made.host_key, from_host, pickles, data, kept, partial)
    draft = made.read(source)
    if kept is not None and kept.head == "words":
        draft.tensors.update(load_tensors(folder / LABEL_BIAS, data))
    module = with_record(source, draft)
    if kept is not None:  # and says what the files are
        return module
    told = {"dtype": stored_type(draft.path, draft.tensors), "model": made.model(source, draft)}
    return replace(module, record=module.record.model_copy(update=told))


def save(
    module: Module,
    folder: Path,
    name: str = OWN,
    account: Mapping[str, Any] | None = None,
    figures: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a module's folder in a format, with its card, whole or not at all.

    Args:
        name: of the format.
        account: what a port did (`Account.record()`).
        figures: rows of what was measured, for the card; see `card`.

    A bias of label words, which no other library has, is kept beside its files, with a notice.

    Raises:
        BadInput: the format cannot say what the module does, or `folder` exists already.
    """
    made: Format = FORMATS.get(name)()
    module = replace(module, record=module.record.lasting())
    files, usage = made.files(module), made.usage(module)
    if name != OWN and module.record.head == "words":
        files.tensors[LABEL_BIAS] = {BIAS: module.tensors[BIAS]}
        usage += f"\n# {_bias_told(module)}"
        _log.warning(
            "notice: %s has no bias of label words: it is in %s, and whoever loads the module "
            "elsewhere adds it to their scores",
            made.read_by,
            LABEL_BIAS,
        )
    with new_folder(folder) as temporary:
        for file, content in files.json.items():
            write_json(temporary / file, content)
        for file, tensors in files.tensors.items():
            save_file(module.written(tensors), temporary / file, metadata={"format": "pt"})
        if name != OWN:
            written = [*files.json, *files.tensors]
            write_json(temporary / KEPT, provenance(temporary, written, module.record))
        if account is not None:
            write_json(temporary / ACCOUNT, account)
        text = card(module, made.read_by, usage, account, figures)
        write_atomic(temporary / CARD, text.encode())


def problem(
    technique: str, config: Any, names: Collection[str], geometry: Geometry, name: str
) -> str | None:
    """Why a format cannot hold a module of a technique with such tensors, as far as these tell it;
    None where it can. Arguments as of `Format.require_holds` and `head_problem`."""
    try:
        FORMATS.get(name)().require_holds(technique, config, geometry, names)
    except BadInput as error:
        return str(error).removesuffix(".")
    found = head_problem(names, geometry, name)
    return found and f"{found}; --format peftport keeps it"


def head_problem(names: Container[str], geometry: Geometry, name: str) -> str | None:
    """Why a format cannot hold the head among a module's tensors; None where it can, or where none
    of them is a head's.

    Args:
        geometry: of the module's host. name: of the format.
    """
    pooling, made = pooling_of(names), FORMATS.get(name)()
    return pooling and made.head_problem(geometry, pooling)


def _bias_told(module: Module) -> str:
    """What users of another library have to add, in words."""
    words = ", ".join(
        map(str, module.record.task.get("label_words") or module.record.task["labels"])
    )
    numbers = ", ".join(f"{value:.4f}" for value in module.tensors[BIAS].tolist())
    told = f"then add {numbers} to the scores of the label words {words}"
    return printable(" ".join(told.split()))  # a comment in code: one line, whatever the words are


def _foreign_format(config: Any, path: Path) -> str:
    """Name of the format of an `adapter_config.json` with this content."""
    if isinstance(config, dict) and "peft_type" in config:
        return "peft"
    if isinstance(config, dict) and isinstance(config.get("config"), dict):
        return "adapterhub"
    if isinstance(config, dict) and "fine_tune_type" in config:
        raise BadInput(f"{path} is of MLX, whose adapters peftport does not read.")
    raise BadInput(
        f"{path} has neither a `peft_type`, as PEFT writes it, nor a `config`, as AdapterHub does: "
        "it is not a module of either."
    )
