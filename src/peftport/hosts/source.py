"""Where a host comes from: the lab, a folder, or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import read_json
from peftport.hosts.geometry import Geometry, geometry_of

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True)
class HostSource:
    """A host found by name: `origin` is "lab", "folder" or "hub"."""

    name: str
    origin: str
    folder: Path | None = None

    def files(self, weights: bool = True) -> Path:
        """The host's folder; a hub host is fetched (or found in the hub's cache) first.

        Args:
            weights: False fetches configuration and tokenizer alone.

        Raises:
            BadInput: the hub knows no such host or cannot be reached.
        """
        if self.folder is not None:
            return self.folder
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )

        name, _, revision = self.name.partition("@")
        patterns = _HUB_FILES if weights else [p for p in _HUB_FILES if p != "*.safetensors"]
        try:
            return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise BadInput(
                f"host {self.name!r} is neither a folder with a config.json, nor lab:NAME, nor a "
                f"model that the hub gave ({type(error).__name__}: {_first_line(error)})."
            ) from error


def find_host(name: str) -> HostSource:
    """Find a host by `lab:NAME`, a folder, or a hub name (`google/t5-v1_1-base`, `name@revision`).

    Nothing is loaded. BadInput: an unknown lab host, or a folder that holds no model.
    """
    if name.startswith("lab:"):
        from peftport.hosts import lab

        return HostSource(name, "lab", lab.folder(name.removeprefix("lab:")))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BadInput(
                f"host folder {name} has no config.json: it is not a transformers model."
            )
        return HostSource(name, "folder", folder)
    if folder.exists() or folder.is_absolute() or name.startswith("."):
        raise BadInput(f"host {name!r} is not a folder with a transformers model.")
    return HostSource(name, "hub")


def geometry_by_name(name: str) -> Geometry:
    """The geometry of a host from its configuration; no weight is read.

    Raises:
        BadInput: the host cannot be found, or transformers has no such model.
    """
    return geometry_in(find_host(name).files(weights=False), name)


def geometry_in(folder: Path, name: str) -> Geometry:
    """The geometry of the host in `folder`, called `name` in messages."""
    return geometry_of(written_config(folder, name), name)


def config_in(folder: Path, name: str) -> Any:
    """The configuration of the host in `folder` as its model class reads it."""
    from peftport.hosts.skeleton import configuration

    return configuration(written_config(folder, name), name)


def written_config(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of the host in `folder` as its file has it."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise BadInput(f"host {name}: its config.json is not a transformers configuration.")
    return config


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]
