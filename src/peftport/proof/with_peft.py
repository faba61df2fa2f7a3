"""Answers of a folder that stock peft loads on the host that stock transformers loads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.loading import model_class_of
from peftport.hosts.quiet import quiet_transformers
from peftport.hosts.skeleton import auto_class
from peftport.proof.answers import Outputs

if TYPE_CHECKING:
    from peftport.hosts import Geometry

_WITH_HEAD = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
_CLASSIFIERS = (".classifier.weight", ".classifier.out_proj.weight", ".score.weight")


def distribution() -> str | None:
    """Name and version of peft, None where it is not installed."""
    try:
        return f"peft {version('peft')}"
    except ModuleNotFoundError:
        return None


@torch.no_grad()
def answers(
    folder: Path,
    host: Path,
    geometry: Geometry,
    inputs: dict[str, Tensor],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Outputs:
    """Load the host and the folder as a user would, and ask.

    Args:
        folder: in the format of peft. host: of the host's files. geometry: of the host.
        inputs: ids and mask, padded on the right, (texts, tokens) each.

    Raises:
        BadInput: peft cannot load the folder; the message has its reason.
    """
    with _quiet():
        try:
            return _answers(folder, host, geometry, inputs, device, dtype)
        except Exception as error:  # what a foreign library raises on a bad folder is open
            told = (str(error).strip() or type(error).__name__).splitlines()
            reason = " ".join(line.strip() for line in told[: 1 + told[0].endswith(":")])
            raise BadInput(f"peft cannot load it: {reason}") from error


def _answers(
    folder: Path,
    host: Path,
    geometry: Geometry,
    inputs: dict[str, Tensor],
    device: str,
    dtype: torch.dtype,
) -> Outputs:
    import peft

    here = {name: tensor.to(device) for name, tensor in inputs.items()}
    config = peft.PeftConfig.from_pretrained(str(folder))
    task = config.task_type
    made_for, usual = _class_for(config, host, geometry)
    more: dict[str, Any] = {"num_labels": _classes(folder)} if task in _WITH_HEAD else {}
    if task not in _WITH_HEAD and "add_pooling_layer" in signature(made_for.__init__).parameters:
        more["add_pooling_layer"] = False
    # The type is given now and not converted to later: some models keep constants.
    model = made_for.from_pretrained(host, dtype=dtype, **more).to(device).eval()
    padding = here["input_ids"][here["attention_mask"] == 0]
    if task in _WITH_HEAD and model.config.pad_token_id is None and len(padding):
        model.config.pad_token_id = int(padding[0])  # by which decoders' classifiers find the end
    bare, logits = _ask(model, geometry, task, here)
    model = peft.PeftModel.from_pretrained(model, str(folder)).to(device).eval()
    if task in _WITH_HEAD:
        bare = _without_body(model, geometry, task, here)
    unread, missing = _differences(model, folder)
    made, _ = _ask(model, geometry, task, here)
    return Outputs(bare, made, logits, unread, missing, None if usual else made_for.__name__)


def _class_for(config: Any, host: Path, geometry: Geometry) -> tuple[Any, bool]:
    """The class of model that a folder is for, as its configuration says, and whether it is the
    one that peftport runs such hosts as."""
    import transformers

    name = _WITH_HEAD.get(str(config.task_type))
    if name is not None:
        return getattr(transformers, name), True
    made_of = transformers.AutoConfig.from_pretrained(host)
    runs_as = auto_class(geometry.kind, geometry.in_larger)
    found = getattr(transformers, str((config.auto_mapping or {}).get("base_model_class")), None)
    if config.task_type == "FEATURE_EXTRACTION" or geometry.kind == "encoder":
        bare, _ = model_class_of("AutoModel", made_of)
        found = bare if config.task_type == "FEATURE_EXTRACTION" or found is None else found
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        return getattr(transformers, runs_as), True
    usual, _ = model_class_of(runs_as, made_of)
    return found, found is usual


def _classes(folder: Path) -> int:
    """Classes of the head in the folder; 2 where it has none."""
    return next(
        (int(shape[0]) for name, shape in _stored(folder).items() if name.endswith(_CLASSIFIERS)),
        2,
    )


def _stored(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the folder's tensors."""
    from peftport.modules.formats.peft import PICKLED, SAFE
    from peftport.modules.formats.weights import read_weights

    _, tensors = read_weights(folder, SAFE, PICKLED, pickles=True, data=False)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _ask(
    model: Any, geometry: Geometry, task: str | None, inputs: dict[str, Tensor]
) -> tuple[Tensor, bool]:
    """An answer as `peftport.proof.answers` has it, and whether it is one of logits."""
    mask = inputs["attention_mask"]
    here: dict[str, Any] = dict(inputs)
    encodes = geometry.kind == "encoder" or not getattr(model.config, "is_encoder_decoder", True)
    if geometry.kind == "encoder-decoder" and not encodes:
        start = model.config.decoder_start_token_id
        here["decoder_input_ids"] = mask.new_full((len(mask), 1), start)
    given = model(**here)
    name, states = next(iter(given.items()))  # of questions' answers "start_logits"
    if task == "SEQ_CLS":
        found = states
    elif task == "TOKEN_CLS":
        wide = mask[..., None]  # (texts, tokens, classes)
        found = (states * wide).sum(1) / wide.sum(1)
    elif geometry.kind == "decoder":
        found = states[torch.arange(len(mask), device=mask.device), mask.sum(1) - 1]
    else:
        found = states[mask.bool()] if encodes else states[:, -1]
    return found.float().cpu(), name == "logits"


def _without_body(
    model: Any, geometry: Geometry, task: str | None, inputs: dict[str, Tensor]
) -> Tensor:
    """The answer with the module's head and without the rest of it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [part for part in model.modules() if isinstance(part, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    # What stands before the text is put there by peft's model, and not by the one inside.
    found, _ = _ask(model if layers else model.get_base_model(), geometry, task, inputs)
    for layer in layers:
        layer.enable_adapters(True)
    return found


def _differences(model: Any, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tensors of the folder that were not loaded, and those that the folder lacks."""
    from peft import get_peft_model_state_dict

    # Embeddings that only have factors are the host's own: no file needs them.
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    stored = set(_stored(folder))
    return tuple(sorted(stored - wanted - set(model.state_dict()))), tuple(sorted(wanted - stored))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings: what matters in them is looked at."""
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        yield
