"""Where a module is: its folder, a hub name that is fetched, or what is there instead of one."""

from __future__ import annotations

import re
from pathlib import Path

from peftport.errors import BadInput
from peftport.files import exists, is_file, is_folder
from peftport.lookup import not_found

RECORD, FOREIGN_CONFIG = "module.json", "adapter_config.json"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_FILES = [
    *(RECORD, FOREIGN_CONFIG, "module.safetensors", "account.json", "peftport*"),
    *("adapter_model*", "adapter.safetensors", "pytorch_adapter.bin", "head_config.json"),
    *("model_head.safetensors", "pytorch_model_head.bin", "model.safetensors.index.json"),
]
_NAMED = "Name a module's folder, or a module on the hub (OWNER/NAME)."
_MOST = 12
_OTHERS = {
    "pytorch_lora_weights.safetensors": "a LoRA of diffusers, for hosts that make images",
    "adapters.safetensors": "an adapter of MLX, which peftport does not read",
    "*.gguf": "a folder of GGUF files: a module in one is not read, but what it was made of",
    "global_step*": "a checkpoint of DeepSpeed: write the module out with its zero_to_fp32.py",
    "study.sqlite": "a study's folder: `peftport study report` tells what is in it",
}
"""What else a folder can be, by a file in it."""


def find_module(name: str | Path) -> Path:
    """The folder of a module that is named by its folder or, fetched, by its name on the hub
    (`owner/name`, `owner/name@revision`).

    Raises:
        BadInput: there is no module; the message says what is there instead, and which folder to
            name.
    """
    folder = Path(name).expanduser()
    if not exists(folder) and _HUB_NAME.fullmatch(str(name)) and not str(name).startswith("."):
        folder = _fetched(str(name))
    if is_file(folder):
        raise BadInput(f"module {folder} is a file: name the folder that it lies in.")
    if not is_folder(folder):
        raise not_found("module", str(name), _NAMED)
    if is_file(folder / RECORD) or is_file(folder / FOREIGN_CONFIG):
        return folder
    raise BadInput(f"{folder} has no {RECORD}: it is not a module's folder. {_instead(folder)}")


def _fetched(name: str) -> Path:
    """A module from the hub, or from the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise not_found("module", name, _NAMED, error) from error


def _instead(folder: Path) -> str:
    """What a folder is that is no module's, and what to do."""
    held = _held(folder)
    names = ", ".join(str(each) for each in held[:_MOST]) + ", ..." * (len(held) > _MOST)
    if is_file(folder / "adapter_fusion_config.json"):
        return "It is a fusion of adapters, which peftport does not read; name one of its adapters."
    if held and any(each.name.startswith("checkpoint-") for each in held):
        return f"It is a run's folder: name one of its checkpoints: {names}."
    if held:
        return f"It holds {len(held)} modules: name one of its sub-folders: {names}."
    if is_file(folder / "config.json"):
        return (
            "It is a whole model: a module that was merged into it cannot be told from it any "
            "more; name the folder of the module from before."
        )
    if any(folder.glob("adapter_model*")) or any(folder.glob("*adapter*.bin")):
        return f"It has a module's tensors and no {FOREIGN_CONFIG}: copy that beside them."
    for pattern, what in _OTHERS.items():
        if any(folder.glob(pattern)):
            return f"It is {what}."
    return f"A module's folder has a {RECORD} or an {FOREIGN_CONFIG}."


def _held(folder: Path) -> list[Path]:
    """Sub-folders that are modules' folders, the newest checkpoint last; names within `folder`."""
    found = [
        path.parent.relative_to(folder)
        for pattern in (f"*/{FOREIGN_CONFIG}", f"*/{RECORD}", f"*/*/{FOREIGN_CONFIG}")
        for path in sorted(folder.glob(pattern))
    ]
    return sorted(dict.fromkeys(found), key=_step)


def _step(path: Path) -> tuple[int, str]:
    number = re.search(r"(\d+)$", path.name)
    return (int(number[1]) if number else 0, str(path))
