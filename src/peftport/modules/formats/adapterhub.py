"""AdapterHub folders (adapters 1.3): `adapter_config.json` with `pytorch_adapter.bin` or
`adapter.safetensors`, and a head's `head_config.json` with `pytorch_model_head.bin` or
`model_head.safetensors`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peftport.errors import BadInput
from peftport.hosts.geometry import families
from peftport.hosts.source import for_others
from peftport.modules.formats import (
    adapterhub_bottleneck,
    adapterhub_head,
    adapterhub_lora,
    adapterhub_prefix,
)
from peftport.modules.formats.adapterhub_layout import NAME, Hub, layout_of
from peftport.modules.formats.base import Draft, Files, Folder, ForeignFormat
from peftport.modules.module import FOREIGN_CONFIG, Module

SAFE, PICKLED = "adapter.safetensors", "pytorch_adapter.bin"
VERSION = "adapters.1.3.0"

_READERS: dict[Any, Callable[[Hub], Draft]] = {
    None: adapterhub_bottleneck.read,
    "lora": adapterhub_lora.read,
    "prefix_tuning": adapterhub_prefix.read,
}
_WRITERS: dict[str, Callable[[Module], tuple[dict[str, Any], Any]]] = {
    "adapter": adapterhub_bottleneck.written,
    "compacter": adapterhub_bottleneck.written,
    "lora": adapterhub_lora.written,
    "prefix": adapterhub_prefix.written,
}
TECHNIQUES = {name: (True, True) for name in _WRITERS}
"""Which techniques are read and written."""


class AdapterHub(ForeignFormat):
    """Bottleneck adapters, Compacter, LoRA and prefix tuning as adapters keeps them."""

    name = "adapterhub"
    host_key = "model_name"
    read_by = "adapter-transformers"

    def read(self, folder: Folder) -> Draft:
        """Read a module and its head; a method that peftport does not know is refused by name."""
        config = folder.config["config"]
        method = config.get("architecture")
        if not isinstance(method, str | None) or method not in _READERS:
            known = ", ".join(name or "bottleneck adapters" for name in _READERS)
            folder.refuse(
                "config.architecture", f"{method!r} is none that peftport reads; it reads {known}"
            )
        name = folder.config.get("name")
        if not isinstance(name, str) or not name or "." in name or "/" in name:
            folder.refuse("name", f"{name!r} is no name of an adapter")
        _require_family(folder)
        path, tensors = folder.weights(SAFE, PICKLED)
        return adapterhub_head.with_head(folder, _READERS[method](Hub(folder, path, tensors, name)))

    def files(self, module: Module) -> Files:
        """The files of the module, and of its head; BadInput where adapters cannot do the same."""
        layout = layout_of(module.geometry)
        config, tensors = _WRITERS[module.technique](module)
        shared = {
            "model_type": families()[module.geometry.family]["model_types"][0],
            "model_name": for_others(module.record.host.name)[0],
            "model_class": layout["model_class"],
            "hidden_size": module.geometry.width,
            "name": NAME,
            "version": VERSION,
        }
        json = {FOREIGN_CONFIG: shared | {"config": config}}
        head_config, head = adapterhub_head.written(module)
        if not head:
            return Files(json, {SAFE: tensors})
        json[adapterhub_head.CONFIG] = shared | {"config": head_config}
        return Files(json, {SAFE: tensors, adapterhub_head.SAFE: head})

    def usage(self, module: Module) -> str:
        """How adapters loads it."""
        name = layout_of(module.geometry)["model_class"]
        flexible = name.endswith("AdapterModel")
        origin = "adapters" if flexible else "transformers"
        made = "" if flexible else "adapters.init(host)\n"
        eager = ""
        if module.technique == "prefix" and module.geometry.kind == "decoder":
            eager = ', attn_implementation="eager"'  # under SDPA adapters ignores prefixes
        place, revision = for_others(module.record.host.name)
        revised = f", revision={revision!r}" if revision else ""
        return (
            f"import adapters\nfrom {origin} import {name}\n\n"
            f"host = {name}.from_pretrained({place!r}{revised}{eager})\n{made}"
            "host.load_adapter(FOLDER, use_safetensors=True, set_active=True)"
        )


def _require_family(folder: Folder) -> None:
    """Raise BadInput when the module is from a model of another family than its host."""
    found, family = folder.config.get("model_type"), folder.geometry.family
    if found not in (folder.geometry.trait("model_types") or (family,)):
        folder.refuse(
            "model_type", f"{found!r}, and its host {folder.host_name} is of family {family}"
        )
    try:
        layout_of(folder.geometry)
    except BadInput as error:
        folder.refuse("model_type", str(error).rstrip("."))
