"""Answers of a folder that stock peft loads on the host that stock transformers loads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.quiet import quiet_transformers
from peftport.proof.answers import Answers

if TYPE_CHECKING:
    from peftport.hosts import Geometry

_AUTO = {
    "encoder-decoder": "AutoModelForSeq2SeqLM",
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModel",
}
_WITH_HEAD = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
_CLASSIFIERS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")


def library() -> str | None:
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
) -> Answers:
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
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadInput(f"peft cannot load it: {reason}") from error


def _answers(
    folder: Path,
    host: Path,
    geometry: Geometry,
    inputs: dict[str, Tensor],
    device: str,
    dtype: torch.dtype,
) -> Answers:
    import peft

    here = {name: tensor.to(device) for name, tensor in inputs.items()}
    task = peft.PeftConfig.from_pretrained(str(folder)).task_type
    model = _host(host, geometry, task, folder, dtype).to(device).eval()
    bare = _ask(model, geometry, task, here)
    model = peft.PeftModel.from_pretrained(model, str(folder)).to(device).eval()
    if task in _WITH_HEAD:
        bare = _without_body(model, geometry, task, here)
    unread, missing = _differences(model, folder)
    made = _ask(model, geometry, task, here)
    return Answers(bare, made, geometry.kind != "encoder" or task in _WITH_HEAD, unread, missing)


def _host(
    host: Path, geometry: Geometry, task: str | None, folder: Path, dtype: torch.dtype
) -> Any:
    import transformers

    name = _WITH_HEAD.get(str(task), _AUTO[geometry.kind])
    more: dict[str, Any] = {"dtype": dtype}  # not converted later: some models keep constants
    if task in _WITH_HEAD:
        more["num_labels"] = _classes(folder)
    elif geometry.kind == "encoder":
        more["add_pooling_layer"] = False
    return getattr(transformers, name).from_pretrained(host, **more)


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


def _ask(model: Any, geometry: Geometry, task: str | None, inputs: dict[str, Tensor]) -> Tensor:
    """An answer as `peftport.proof.answers` has it."""
    mask = inputs["attention_mask"]
    if geometry.kind == "encoder-decoder":
        start = mask.new_full((len(mask), 1), model.config.decoder_start_token_id)
        found = model(**inputs, decoder_input_ids=start).logits[:, -1]
    elif geometry.kind == "decoder":
        logits = model(**inputs).logits  # (texts, tokens, vocabulary)
        found = logits[torch.arange(len(mask), device=mask.device), mask.sum(1) - 1]
    elif task == "SEQ_CLS":
        found = model(**inputs).logits
    elif task == "TOKEN_CLS":
        logits, wide = model(**inputs).logits, mask[..., None]  # (texts, tokens, classes)
        found = (logits * wide).sum(1) / wide.sum(1)
    else:
        found = model(**inputs).last_hidden_state[mask.bool()]
    return found.float().cpu()


def _without_body(
    model: Any, geometry: Geometry, task: str | None, inputs: dict[str, Tensor]
) -> Tensor:
    """The answer with the module's head and without the rest of it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [part for part in model.modules() if isinstance(part, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    # What stands before the text is put there by peft's model, and not by the one inside.
    found = _ask(model if layers else model.get_base_model(), geometry, task, inputs)
    for layer in layers:
        layer.enable_adapters(True)
    return found


def _differences(model: Any, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tensors of the folder that were not loaded, and those that the folder lacks."""
    from peft import get_peft_model_state_dict

    stored, wanted = set(_stored(folder)), set(get_peft_model_state_dict(model))
    return tuple(sorted(stored - wanted - set(model.state_dict()))), tuple(sorted(wanted - stored))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings: what matters in them is looked at."""
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        yield
