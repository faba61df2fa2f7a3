"""Where a host comes from: the lab, a folder, or the hub."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import exists, is_folder, read_json, require_regular
from peftport.hosts.configuration import written_config
from peftport.hosts.fingerprint import weight_files
from peftport.hosts.geometry import Geometry, geometry_of
from peftport.hosts.gguf import gguf_at, unpacked
from peftport.hosts.growth import require_bounded
from peftport.hosts.quantised import quantised_by
from peftport.lookup import not_found
from peftport.registry import Registry

COLLECTIONS = Registry("collection of hosts", {"lab": "peftport.lab:folder"})
"""What gives the folder of a host by its name in a collection, as that of `small` in `lab:small`.
"""

_READ_BY_TRANSFORMERS = (".json", ".txt", ".model", ".jinja", ".safetensors", ".tiktoken")
_SETTINGS = (
    *("config.json", "generation_config.json", "model.safetensors.index.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
_NAMED = "Name a folder with a config.json, a GGUF file, lab:NAME, or a model on the hub."
_FETCHED = (
    "Where there is a network, `hf download OWNER/NAME` puts one of the hub's into its cache."
)
_LARGEST_VOCABULARY = 128 << 20
_MOST_IN_A_BYTE = 8
_HUB_FILES = [f"*{ending}" for ending in _READ_BY_TRANSFORMERS]


@dataclass(frozen=True)
class HostSource:
    """A host found by name: `origin` is "lab", "folder", "gguf" (then `folder` is the file) or
    "hub"."""

    name: str
    origin: str
    folder: Path | None = None

    def files(self, weights: bool = True) -> Path:
        """The host's folder; a hub host is fetched (or found in the hub's cache) first.

        Args:
            weights: False fetches configuration and tokenizer alone.

        Raises:
            BadInput: the hub knows no such host or cannot be reached; a GGUF file cannot be read.
        """
        if self.folder is not None:
            return unpacked(self.folder) if self.origin == "gguf" else self.folder
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )

        patterns = _HUB_FILES if weights else [p for p in _HUB_FILES if p != "*.safetensors"]
        try:
            return self._of_hub(allow_patterns=patterns)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise not_found("host", self.name, f"{_NAMED} {_FETCHED}", error) from error

    def at_hand(self) -> Path | None:
        """The host's folder where it is on this machine, in the hub's cache also; None where its
        weights would have to be fetched.

        Raises:
            BadInput: a GGUF file cannot be read.
        """
        if self.folder is not None:
            return self.files()
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            found = self._of_hub(local_files_only=True)
            weight_files(found)  # the cache may have its configuration alone
        except (HFValidationError, LocalEntryNotFoundError, OSError, BadInput):
            return None
        return found

    def _of_hub(self, **options: Any) -> Path:
        """The folder of a hub host by huggingface_hub's own client."""
        from huggingface_hub import snapshot_download

        name, _, revision = self.name.partition("@")
        return Path(snapshot_download(name, revision=revision or None, **options))


def find_host(name: str) -> HostSource:
    """Find a host by `lab:NAME`, a folder, a GGUF file or a folder with one, or a hub name
    (`google/t5-v1_1-base`, `name@revision`).

    Nothing is loaded. BadInput: an unknown lab host, or a folder that holds no model.
    """
    if collection := _collection(name):
        find = COLLECTIONS.get(collection)
        return HostSource(name, collection, find(name.removeprefix(f"{collection}:")))
    folder = Path(name).expanduser()
    if file := gguf_at(folder):
        return HostSource(name, "gguf", file)
    if is_folder(folder):
        if not exists(folder / "config.json"):
            raise BadInput(
                f"host folder {name} has no config.json: it is not a transformers model."
            )
        return HostSource(name, "folder", folder)
    if exists(folder) or folder.is_absolute() or name.startswith("."):
        raise not_found("host", name, _NAMED)
    return HostSource(name, "hub")


def _collection(name: str) -> str:
    """The collection that a name says its host is in; empty where it says none."""
    before, colon, _ = name.partition(":")
    return before if colon and before in COLLECTIONS else ""


def lasting(name: str) -> str:
    """A host's name as it holds from everywhere on this machine: a folder by its whole path."""
    return os.path.abspath(Path(name).expanduser()) if is_folder(Path(name).expanduser()) else name


def for_others(name: str) -> tuple[str, str | None]:
    """The name, and the revision if it has one, by which other libraries load a host."""
    if _collection(name):
        return str(find_host(name).files()), None
    if exists(Path(name).expanduser()):
        return lasting(name), None
    place, _, revision = name.partition("@")
    return place, revision or None


def geometry_by_name(name: str) -> Geometry:
    """The geometry of a host from its configuration; no weight is read.

    Raises:
        BadInput: the host cannot be found, or transformers has no such model.
    """
    return geometry_in(find_host(name).files(weights=False), name)


def geometry_in(folder: Path, name: str) -> Geometry:
    """The geometry of the host in `folder`, called `name` in messages.

    Raises:
        BadInput: transformers has no such model, or the folder has weights of another size than its
            configuration says, which may leave sizes out.
    """
    geometry = geometry_of(written_config(folder, name), name)
    _require_sizes(geometry, folder, name)
    return geometry


def _require_sizes(geometry: Geometry, folder: Path, name: str) -> None:
    """Hold the layers of a geometry against the weights in the folder, where they are at hand."""
    from peftport.hosts.weights import Weights

    try:
        weights = None if quantised_by(folder) else Weights(folder)
    except BadInput:  # whoever reads weights is told
        return
    if weights is None:
        return
    for linear in geometry.linears.values():
        weight = f"{linear.path}.weight"
        made = (linear.outputs, linear.inputs)[:: -1 if linear.transposed else 1]
        if weight in weights and weights.shape(weight) != made:
            raise BadInput(
                f"host {name}: its config.json makes {weight} of the shape {made}, and its weights "
                f"have {weights.shape(weight)}: they do not belong together, or config.json leaves "
                "sizes out that the host was made with."
            )
    for path in geometry.embeddings.values():
        weight = f"{path}.weight"
        if weight in weights and weights.shape(weight)[0] != geometry.vocabulary:
            raise BadInput(
                f"host {name}: its config.json has a vocabulary of {geometry.vocabulary:,} tokens, "
                f"and {weight} has {weights.shape(weight)[0]:,} rows: they do not belong together."
            )


def require_readable(folder: Path, name: str) -> None:
    """Look at a host's files before transformers opens them.

    Raises:
        BadInput: one of them is a pipe or the like, is larger than such files are, is JSON that
            cannot be read, or a tokenizer that makes texts far longer.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in _READ_BY_TRANSFORMERS:
            continue
        require_regular(path)
        if path.suffix == ".safetensors":
            continue  # of any size, and never read as a whole
        if path.stat().st_size > _LARGEST_VOCABULARY:
            raise BadInput(f"host {name}: {path} is larger than any tokenizer's file.")
        if path.name in _SETTINGS:
            read_json(path)
        if path.name == "tokenizer.json":
            require_bounded(path, _LARGEST_VOCABULARY)


def require_weights_for(geometry: Geometry, files: Iterable[Path], name: str) -> None:
    """Raise BadInput when a host's layers would be larger than its files, before there is memory
    for them."""
    wanted = sum(linear.inputs * linear.outputs for linear in geometry.linears.values())
    require_room_for(wanted, files, name)


def require_room_for(weights: int, files: Iterable[Path], name: str) -> None:
    """Raise BadInput for more weights than a host's files have bits."""
    there = sum(file.stat().st_size for file in files)
    if weights > _MOST_IN_A_BYTE * there:
        raise BadInput(
            f"host {name}: its configuration has layers of {weights:,} weights, and its files have "
            f"{there:,} bytes: they do not belong together."
        )
