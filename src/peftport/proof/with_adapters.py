"""Answers of a folder that the adapters library loads, in an environment of its own: it wants
another transformers than peftport."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import read_json
from peftport.modules.formats.adapterhub_layout import layout_of
from peftport.modules.module import FOREIGN_CONFIG
from peftport.proof.answers import Outputs

if TYPE_CHECKING:
    from peftport.hosts import Geometry

VARIABLE = "PEFTPORT_ADAPTERS_PYTHON"
_USUAL = Path(".venv-adapters") / "bin" / "python"
_SCRIPT = Path(__file__).with_name("adapters_script.py")


def python() -> Path | None:
    """The Python of an environment with adapters, None where there is none at hand: what
    `$PEFTPORT_ADAPTERS_PYTHON` names, or `.venv-adapters` in the current folder."""
    named = os.environ.get(VARIABLE)
    found = Path(named) if named else _USUAL
    return found if found.is_file() else None


def distribution(found: Path) -> str:
    """Name and version of the library in an environment."""
    ask = "from importlib.metadata import version; print(version('adapters'))"
    done = subprocess.run([found, "-c", ask], capture_output=True, text=True)
    return f"adapters {done.stdout.strip() or 'of unknown version'}"


def answers(
    found: Path, folder: Path, host: Path, geometry: Geometry, inputs: dict[str, Tensor], head: bool
) -> Outputs:
    """Load the host and the folder as a user of adapters would, and ask.

    Args:
        found: the Python of the environment. head: whether the module has a head.

    Raises:
        BadInput: adapters cannot load the folder; the message has its reason.
    """
    config = read_json(folder / FOREIGN_CONFIG)
    prefix = config["config"].get("architecture") == "prefix_tuning"
    job = {
        "host": str(host),
        "folder": str(folder),
        "kind": geometry.kind,
        "model_class": layout_of(geometry)["model_class"],
        "eager": prefix and geometry.kind == "decoder",  # under SDPA adapters ignores prefixes
        **{name: tensor.tolist() for name, tensor in inputs.items()},
    }
    with tempfile.TemporaryDirectory() as place:
        asked, out = Path(place) / "job.json", Path(place) / "answers.safetensors"
        asked.write_text(json.dumps(job))
        done = subprocess.run(
            [found, _SCRIPT, asked, out],
            capture_output=True,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise BadInput(f"adapters cannot load it: {reason}")
        # Copied: the tensors of `load_file` are views of the file.
        read = {name: tensor.clone() for name, tensor in load_file(out).items()}
    return Outputs(read["bare"], read["module"], geometry.kind != "encoder" or head)
