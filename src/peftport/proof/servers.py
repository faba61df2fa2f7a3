"""Whether servers would take a folder of peft's, by the rules that they document.

vLLM 0.26 (vllm/config/lora.py, vllm/lora/peft_helper.py, docs.vllm.ai "LoRA Adapters"): LoRA on the
linear layers of decoders, ranks up to 512 with `--max-lora-rank` at one of a few values, one scale
for all places, no saved modules, no bias, no DoRA; every tensor is a factor. SGLang
(docs.sglang.io, "LoRA Serving"): the same for the layers that it names, any rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftport.hosts.geometry import Geometry

_FACTOR = re.compile(r"base_model\.model\..+\.lora_(embedding_)?[AB](\.weight)?")
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_VLLM_DEFAULT = 16
_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Served:
    """Whether a server would take a folder.

    Attributes:
        server: its name. problems: why it would not, all of them; none if it would.
        options: what it must be started with beyond what is usual.
    """

    server: str
    problems: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def taken(self) -> bool:
        """Whether it would take the folder."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        problems, options = list(self.problems), list(self.options)
        return {
            "server": self.server,
            "taken": self.taken,
            "problems": problems,
            "options": options,
        }


def served(config: Mapping[str, Any], tensors: Iterable[str], geometry: Geometry) -> list[Served]:
    """What vLLM and SGLang say of a folder.

    Args:
        config: content of `adapter_config.json`. tensors: names in the file of tensors.
        geometry: of the host.
    """
    names = sorted(tensors)
    return [
        Served("vLLM", tuple(_vllm(config, names, geometry)), tuple(_vllm_options(config))),
        Served("SGLang", tuple(_sglang(config, names, geometry)), tuple(_sglang_options(config))),
    ]


def folder_of_peft(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Configuration and names of tensors of a folder, read without the tensors' data."""
    from peftport.files import read_json
    from peftport.hosts.fingerprint import read_header
    from peftport.modules.formats.peft import SAFE
    from peftport.modules.module import FOREIGN_CONFIG

    header: Mapping[str, Any] = {}
    if (folder / SAFE).is_file():
        header, _ = read_header(folder / SAFE)
    return read_json(folder / FOREIGN_CONFIG), list(header)


def _vllm(config: Mapping[str, Any], names: list[str], geometry: Geometry) -> Iterator[str]:
    yield from _shared(config, names, geometry)
    if "vLLM" in (geometry.trait("without_lora") or ()):
        yield f"vLLM has no LoRA for the family {geometry.family}"
    rank = _rank(config)
    if rank > _VLLM_RANKS[-1]:
        yield f"rank {rank}: the most is {_VLLM_RANKS[-1]}"
    for key in ("rank_pattern", "alpha_pattern"):
        if config.get(key):
            yield f"{key}: every place is scaled with one lora_alpha / r"


def _vllm_options(config: Mapping[str, Any]) -> Iterator[str]:
    rank = _rank(config)
    if _VLLM_DEFAULT < rank <= _VLLM_RANKS[-1]:
        yield f"--max-lora-rank {next(each for each in _VLLM_RANKS if each >= rank)}"


def _sglang(config: Mapping[str, Any], names: list[str], geometry: Geometry) -> Iterator[str]:
    yield from _shared(config, names, geometry)
    others = sorted({_last(name) for name in names if _FACTOR.fullmatch(name)} - set(_LINEARS))
    if others:
        yield f"targets {', '.join(others)}: taken are {', '.join(_LINEARS)}"


def _sglang_options(config: Mapping[str, Any]) -> Iterator[str]:
    if _rank(config):
        yield f"--max-lora-rank {_rank(config)}"


def _shared(config: Mapping[str, Any], names: list[str], geometry: Geometry) -> Iterator[str]:
    """What both refuse."""
    if config.get("peft_type") != "LORA":
        yield f"peft_type {config.get('peft_type')!r}: only LORA is served"
        return
    if geometry.kind != "decoder":
        yield f"the host is an {geometry.kind}: LoRA is served on decoders"
    if config.get("modules_to_save"):
        yield f"modules_to_save {config['modules_to_save']}: whole modules are not taken"
    if config.get("bias", "none") != "none":
        yield f"bias {config['bias']!r}: trained biases are not taken"
    if config.get("use_dora"):
        yield "use_dora: weights are not decomposed"
    others = [name for name in names if not _FACTOR.fullmatch(name)]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield f"tensor {others[0]!r}{more}: only factors, lora_A and lora_B, are taken"


def _rank(config: Mapping[str, Any]) -> int:
    """The largest rank of any place."""
    ranks = [config.get("r"), *dict(config.get("rank_pattern") or {}).values()]
    return max((rank for rank in ranks if isinstance(rank, int)), default=0)


def _last(name: str) -> str:
    """ "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight" -> "up_proj"."""
    return re.sub(r"\.lora_(embedding_)?[AB](\.weight)?$", "", name).rpartition(".")[2]
