"""PEFT folders (peft 0.21): `adapter_config.json` and `adapter_model.safetensors` (or `.bin`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from peftport.hosts.geometry import Geometry
from peftport.hosts.source import for_others
from peftport.modules.formats.base import Draft, Files, Folder, ForeignFormat
from peftport.modules.formats.converted import INSTEAD, as_lora, is_known_to_peft
from peftport.modules.formats.heads import Kind, classifier_problem, written_classifier
from peftport.modules.formats.keeping import InPeft, how_kept, kept_in
from peftport.modules.formats.model_class import WrittenClass, read_model_class
from peftport.modules.formats.stored import names_in
from peftport.modules.module import FOREIGN_CONFIG, Module
from peftport.modules.record import ModelClass
from peftport.registry import did_you_mean
from peftport.techniques.head import Pooling

SAFE, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
CONVERTED = frozenset(
    {
        *("DORA", "ADALORA", "C3A", "DELORA", "FOURIERFT", "GRALORA", "LOHA", "LOKR", "MISS"),
        *("PSOFT", "RANDLORA", "TINYLORA", "UNILORA", "VBLORA", "VERA", "WAVEFT"),
    }
)
"""What peft makes a LoRA of; of a kind that no list here has, the peft that is installed knows."""
REFUSED = frozenset(
    {
        # They act on activations or weights in ways that peft makes no LoRA of.
        *("ADAMSS", "BEFT", "BOFT", "DEFT", "FROD", "GLORA", "HIRA", "HRA", "IA3", "LILY"),
        *("LN_TUNING", "OFT", "OSF", "PEANUT", "POLY", "PVERA", "ROAD", "SHADOW", "SHIRA"),
        *("SUPERTUNING", "TRAINABLE_TOKENS", "XLORA"),
        # They are tokens, or keys and values, that a host reads besides its text.
        *("ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PROMPT_TUNING"),
        "P_TUNING",
    }
)

_HEADS: dict[Kind, tuple[str, str]] = {
    "sequence": ("SEQ_CLS", "AutoModelForSequenceClassification"),
    "token": ("TOKEN_CLS", "AutoModelForTokenClassification"),
}


class Peft(ForeignFormat):
    """LoRA and prefix tuning as peft keeps them."""

    name = "peft"
    host_key = "base_model_name_or_path"
    read_by = "peft"

    def read(self, folder: Folder) -> Draft:
        """Read LoRA or prefix tuning; what else changes weights is converted to LoRA by peft where
        the host is at hand, and the rest is refused by its name."""
        kind = folder.config["peft_type"]
        variant = "DORA" if kind == "LORA" and folder.config.get("use_dora") is True else kind
        if not isinstance(kind, str):
            folder.refuse("peft_type", f"{kind!r} is none that peftport reads")
        if kind in REFUSED:
            folder.refuse("peft_type", f"{kind!r} is none that peftport reads. {INSTEAD}")
        known = by_type()
        if variant in CONVERTED or (kind not in known and is_known_to_peft(kind)):
            return self._converted(folder, variant)
        if kind not in known:
            folder.refuse(
                "peft_type",
                f"{kind!r} is none that peftport or the peft that is installed knows."
                f"{did_you_mean(kind, known)} peftport reads {', '.join(known)}",
            )
        path, tensors = folder.weights(SAFE, PICKLED)
        return known[kind].read(folder, path, tensors)

    def _converted(self, folder: Folder, kind: str) -> Draft:
        path, tensors = replace(folder, data=True).weights(SAFE, PICKLED)
        made = as_lora(folder, kind, tensors)
        draft = by_type()["LORA"].read(made.folder, path, made.tensors)
        before = f"{folder.geometry.prefix}."
        places = {
            linear.path.removeprefix(before): point
            for point, linear in folder.geometry.linears.items()
        }
        lost = {places.get(p.removeprefix(before), p): share for p, share in made.lost.items()}
        return replace(draft, converted=lost)

    def files(self, module: Module) -> Files:
        """The two files; BadInput for what peft does not have."""
        self.require_holds(module.technique, module.config, module.geometry, module.tensors)
        config, tensors = how_kept(self.name, module.technique).written(module)
        name, revision = for_others(module.record.host.name)
        kind, _ = written_classifier(module)
        shared: dict[str, Any] = {"base_model_name_or_path": name, "revision": revision}
        if kind:
            shared["task_type"] = _HEADS[kind][0]
        else:
            made_on = WrittenClass(module)
            made_on.notice_change()
            config, tensors = made_on.config(config), made_on.tensors(tensors)
            shared |= {"task_type": made_on.task_type, "auto_mapping": made_on.auto_mapping}
        shared["inference_mode"] = True
        return Files({FOREIGN_CONFIG: shared | config}, {SAFE: tensors})

    def require_holds(
        self, technique: str, config: Any, geometry: Geometry, names: Collection[str]
    ) -> None:
        """LoRA and prefix tuning."""
        how_kept(self.name, technique).holds(config, geometry, names)

    def head_problem(self, geometry: Geometry, pooling: Pooling) -> str | None:
        """Heads are those of transformers' classifiers."""
        return classifier_problem(geometry, pooling)

    def model(self, folder: Folder, draft: Draft) -> ModelClass:
        """As the configuration and the tensors' names tell it."""
        return read_model_class(folder.config, names_in(draft.path), folder.geometry)

    def usage(self, module: Module) -> str:
        """How stock peft loads it."""
        kind, _ = written_classifier(module)
        auto = _HEADS[kind][1] if kind else WrittenClass(module).auto_class
        name, revision = for_others(module.record.host.name)
        given = f", revision={revision!r}" if revision else ""
        given += f", num_labels={module.classes}" if kind else ""
        lines = [
            "from peft import PeftModel",
            f"from transformers import {auto}",
            "",
            f"host = {auto}.from_pretrained({name!r}{given})",
            "model = PeftModel.from_pretrained(host, FOLDER)",
        ]
        if kind == "token":
            lines.append("# a text's class logits are the mean of its tokens' logits")
        return "\n".join(lines)


def by_type() -> dict[str, InPeft]:
    """How peft keeps the modules of every technique that it has, by its own word for it."""
    return {kept.kind: kept for kept in kept_in("peft").values()}
