"""AdapterHub folders (adapters 1.3): `adapter_config.json` with `pytorch_adapter.bin` or
`adapter.safetensors`, and a head's `head_config.json` with `pytorch_model_head.bin` or
`model_head.safetensors`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry, families
from peftport.hosts.source import for_others
from peftport.modules.formats import adapterhub_head
from peftport.modules.formats.adapterhub_layout import NAME, Hub, layout_of
from peftport.modules.formats.base import Draft, Files, Folder, ForeignFormat
from peftport.modules.formats.keeping import how_kept, kept_in
from peftport.modules.module import FOREIGN_CONFIG, Module
from peftport.techniques.embeddings import is_embedding
from peftport.techniques.head import Pooling

SAFE, PICKLED = "adapter.safetensors", "pytorch_adapter.bin"
VERSION = "adapters.1.3.0"


class AdapterHub(ForeignFormat):
    """Bottleneck adapters, Compacter, LoRA and prefix tuning as adapters keeps them."""

    name = "adapterhub"
    host_key = "model_name"
    read_by = "adapter-transformers"

    def read(self, folder: Folder) -> Draft:
        """Read a module and its head; a method that peftport does not know is refused by name."""
        config = folder.config["config"]
        method, known = config.get("architecture"), list(kept_in(self.name).values())
        meant = [each for each in known if each.kind == method and each.meant(config)]
        if not meant:
            kinds = dict.fromkeys(each.kind or "bottleneck adapters" for each in known)
            folder.refuse(
                "config.architecture",
                f"{method!r} is none that peftport reads; it reads {', '.join(kinds)}",
            )
        name = folder.config.get("name")
        if not isinstance(name, str) or not name or "." in name or "/" in name:
            folder.refuse("name", f"{name!r} is no name of an adapter")
        _require_family(folder)
        path, tensors = folder.weights(SAFE, PICKLED)
        draft = meant[0].read(Hub(folder, path, tensors, name))
        return adapterhub_head.with_head(folder, draft)

    def files(self, module: Module) -> Files:
        """The files of the module, and of its head; BadInput where adapters cannot do the same."""
        self.require_holds(module.technique, module.config, module.geometry, module.tensors)
        layout = layout_of(module.geometry)
        config, tensors = how_kept(self.name, module.technique).written(module)
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

    def require_holds(
        self, technique: str, config: Any, geometry: Geometry, names: Collection[str]
    ) -> None:
        """Every technique, on hosts of a family whose layout is known; no embeddings."""
        layout_of(geometry)
        how_kept(self.name, technique).holds(config, geometry, names)
        if brought := [name for name in names if is_embedding(name)]:
            raise BadInput(
                f"the module brings embeddings along ({brought[0]}), which adapters has no place "
                "for. Write it with --format peft or peftport."
            )

    def head_problem(self, geometry: Geometry, pooling: Pooling) -> str | None:
        """Heads are those of adapters' own making, the same on every host."""
        return adapterhub_head.flexible_head_problem(pooling)

    def usage(self, module: Module) -> str:
        """How adapters loads it."""
        name = layout_of(module.geometry)["model_class"]
        flexible = name.endswith("AdapterModel")
        origin = "adapters" if flexible else "transformers"
        made = "" if flexible else "adapters.init(host)\n"
        more = how_kept(self.name, module.technique).host_arguments(module.geometry)
        place, revision = for_others(module.record.host.name)
        revised = f", revision={revision!r}" if revision else ""
        return (
            f"import adapters\nfrom {origin} import {name}\n\n"
            f"host = {name}.from_pretrained({place!r}{revised}{more})\n{made}"
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
