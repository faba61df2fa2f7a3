"""Make a host from text: from scratch, continued from another host, or taught by one.

An encoder without a head that names tokens (a sentence encoder, say) gets a new one for the
training, tied to its embeddings, and is saved without it, as the encoder that it was.
"""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftport.errors import BadInput
from peftport.files import new_folder, write_json
from peftport.hosts.fingerprint import fingerprint, read_header, weight_files
from peftport.hosts.genealogy import RECORD
from peftport.hosts.geometry import Geometry, geometry_of
from peftport.hosts.host import load_tokenizer
from peftport.hosts.loading import load_model
from peftport.hosts.precision import Precision, remark_on
from peftport.hosts.quantised import require_plain
from peftport.hosts.quiet import quiet_transformers
from peftport.hosts.source import find_host, geometry_in
from peftport.places import require_new
from peftport.pretraining.objectives import (
    MaskedTokens,
    NextToken,
    Objective,
    SpanCorruption,
    Taught,
    TeacherStates,
)
from peftport.pretraining.rows import token_rows
from peftport.pretraining.scratch import Sizes, family_entry, new_model, new_tokenizer
from peftport.pretraining.trainer import train_model
from peftport.progress import Losses
from peftport.texts import read_texts

_log = logging.getLogger(__name__)

FROM_SCRATCH, CONTINUED = 1e-3, 1e-4
"""Learning rates that are taken when none is given."""

_SPECIAL = 2
_WINDOWS = 20


@dataclass(frozen=True)
class Settings:
    """How a host is trained.

    learning_rate: None takes `FROM_SCRATCH` or `CONTINUED`.
    length: the most tokens of text in a row, without special tokens.
    tokens_per_batch: tokens of a step, padding included.
    precision: of the products; what is saved is in single precision.
    """

    steps: int
    seed: int = 0
    learning_rate: float | None = None
    length: int = 128
    tokens_per_batch: int = 4096
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name in ("steps", "length", "tokens_per_batch"):
            if getattr(self, name) < 1:
                what = name.replace("_", " ")
                raise BadInput(f"{what} is {getattr(self, name)}; it must be at least 1.")
        if self.seed < 0:
            raise BadInput(f"seed is {self.seed}; it must be 0 or more.")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise BadInput(f"learning rate is {self.learning_rate}; it must be above 0.")


@dataclass
class Start:
    """What is trained: `model` is what the loss needs, `saved` what becomes the host.

    parent: name and fingerprint of the host that is continued; None from scratch.
    teacher: name and fingerprint of the host whose states are learnt, if any.
    """

    model: Any
    saved: Any
    tokenizer: Any
    geometry: Geometry
    parent: dict[str, str] | None = None
    teacher: dict[str, str] | None = None


@dataclass(frozen=True)
class Pretrained:
    """A host that was made: its folder, its record, and every step's loss."""

    folder: Path
    record: dict[str, Any]
    losses: list[float]


def pretrain(
    out: Path,
    text: Path,
    settings: Settings,
    *,
    family: str | None = None,
    origin: str | None = None,
    teacher: str | None = None,
    sizes: Sizes | None = None,
    cased: bool = False,
    text_column: str | None = None,
    device: str = "cpu",
    progress: Losses = lambda step, loss: None,
) -> Pretrained:
    """Pretrain a host and save it in the new folder `out`.

    Args:
        text: a `.txt`, Parquet, CSV, TSV, JSONL or JSON file, or a folder of them.
        family: of a new host; or else
        origin: the host that is continued, with its own tokenizer.
        teacher: an encoder whose hidden states a new encoder learns, with its tokenizer.
        sizes: of a new host.
        cased: a new host's tokenizer keeps upper case letters.
        text_column: in files with columns.
        progress: called after each step with its number and its loss.

    Raises:
        BadInput: both or neither of family and origin, an unknown one, sizes for a host that has
            its own, a teacher that cannot teach, no text or less than a batch, or `out` exists.
        RunFailed: the loss was not finite.
    """
    require_new(out)
    _require_possible(family, origin, teacher, sizes, cased)
    files = read_texts(text, text_column)
    texts = [each for file in files for each in file.texts]
    if remark := remark_on(settings.precision, settings.precision, device):
        _log.warning(
            "notice: products are in bfloat16, %s; --precision fp32 has them in single precision",
            remark,
        )
    if family is None:
        start = continued(str(origin), settings.seed)
    elif teacher is not None:
        start = taught(family, teacher, sizes or Sizes(), settings.seed)
    else:
        start = from_scratch(family, texts, sizes or Sizes(), cased, settings.seed)
    require_positions(start, settings.length)
    rate = settings.learning_rate or (CONTINUED if start.parent else FROM_SCRATCH)
    objective = objective_for(start)
    rows = token_rows(texts, start.tokenizer, settings.length)
    losses = train_model(
        start.model.to(device),
        rows,
        objective,
        steps=settings.steps,
        learning_rate=rate,
        seed=settings.seed,
        tokens_per_batch=settings.tokens_per_batch,
        precision=settings.precision,
        progress=progress,
    )
    record = {
        "from": start.parent,
        **({"teacher": start.teacher} if start.teacher else {}),
        "objective": objective.name,
        "text": [file.record() for file in files],
        "tokens": sum(len(row) for row in rows),
        **vars(settings),
        "learning_rate": rate,
        "losses": windows(losses),
        "versions": _versions(),
    }
    save_host(out, start, record)
    return Pretrained(out, record, losses)


def _require_possible(
    family: str | None, origin: str | None, teacher: str | None, sizes: Sizes | None, cased: bool
) -> None:
    """Raise BadInput, before any text is read, unless these say what host is made."""
    if (family is None) == (origin is None):
        raise BadInput("give either a family, for a new host, or a host to continue from.")
    if origin is not None and (sizes is not None or cased):
        raise BadInput(f"{origin} has its sizes and its tokenizer; give them with a family only.")
    if teacher is not None:
        _require_teachable(family, teacher, sizes, cased)
    if family is not None:
        family_entry(family)
    else:
        geometry_in(find_host(str(origin)).files(weights=False), str(origin))


def from_scratch(family: str, texts: list[str], sizes: Sizes, cased: bool, seed: int) -> Start:
    """A new host of a family with random weights, and a tokenizer trained on the texts."""
    tokenizer = new_tokenizer(family, texts, sizes.vocabulary, cased)
    model = new_model(family, sizes, tokenizer, seed)
    geometry = geometry_of(model.config.to_dict(), f"of family {family}")
    return Start(model, model, tokenizer, geometry)


def taught(family: str, teacher: str, sizes: Sizes, seed: int) -> Start:
    """A new encoder with random weights beside its teacher, whose tokenizer it takes.

    Raises:
        BadInput: the teacher is no encoder.
    """
    folder = find_host(teacher).files()
    tokenizer = load_tokenizer(folder, teacher)
    encoder = new_model(family, sizes, tokenizer, seed).base_model
    geometry = geometry_of(encoder.config.to_dict(), f"of family {family}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Taught(encoder, load_model("AutoModel", folder, teacher, add_pooling_layer=False))
    mark = {"name": teacher, "fingerprint": fingerprint(folder)}
    return Start(model, encoder, tokenizer, geometry, teacher=mark)


def _require_teachable(family: str | None, teacher: str, sizes: Sizes | None, cased: bool) -> None:
    """Raise BadInput unless an encoder teaches a new one, which has no tokenizer of its own."""
    kind = geometry_in(find_host(teacher).files(weights=False), teacher).kind
    if family is None or family_entry(family)["kind"] != "encoder" or kind != "encoder":
        raise BadInput(
            f"a teacher is an encoder that teaches a new encoder: {teacher} is of kind {kind}, and "
            f"the new host is {f'of family {family}' if family else 'none'}."
        )
    if cased or (sizes is not None and sizes.vocabulary != Sizes().vocabulary):
        raise BadInput("a host with a teacher takes its tokenizer: give no vocabulary or --cased.")


_MASKED_HEADS = (
    *("cls.predictions.", "lm_head.", "lm_predictions.", "predictions.", "generator_predictions."),
    *("vocab_transform.", "decoder."),
)
"""How the heads that name hidden tokens are called in encoders' files."""


def continued(origin: str, seed: int) -> Start:
    """A host's own weights, in float32 and free to change, with its own tokenizer.

    Args:
        seed: of the head that an encoder without one gets.

    Raises:
        BadInput: the host cannot be found, is no language model, or is not whole.
    """
    folder = find_host(origin).files()
    geometry = geometry_in(folder, origin)
    require_plain(folder, origin)
    names = {name for file in weight_files(folder) for name in read_header(file)[0]}
    tokenizer = load_tokenizer(folder, origin)
    parent = {"name": origin, "fingerprint": fingerprint(folder)}
    if geometry.kind != "encoder":
        auto = "AutoModelForCausalLM" if geometry.kind == "decoder" else "AutoModelForSeq2SeqLM"
        model = saved = load_model(auto, folder, origin)
    elif any(name.startswith(_MASKED_HEADS) for name in names):
        model = saved = load_model("AutoModelForMaskedLM", folder, origin)
    else:
        pooler = any("pooler." in name for name in names)
        saved = load_model("AutoModel", folder, origin, add_pooling_layer=pooler)
        model = _with_head(saved, seed)
    return Start(model, saved, tokenizer, geometry, parent)


def objective_for(start: Start) -> Objective:
    """What a host of this kind is pretrained on, with its tokenizer's special tokens.

    Raises:
        BadInput: the tokenizer lacks a token that the objective needs.
    """
    tokenizer, geometry = start.tokenizer, start.geometry
    if start.teacher is not None:
        around = (_id(tokenizer, "cls", "bos"), _id(tokenizer, "sep", "eos"))
        return TeacherStates(_id(tokenizer, "pad"), *around)
    if geometry.kind == "encoder-decoder":
        return SpanCorruption(
            sentinels(tokenizer), _id(tokenizer, "eos"), _id(tokenizer, "pad", "eos")
        )
    if geometry.kind == "decoder":
        end = _id(tokenizer, "eos")
        begins = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        first = tokenizer.bos_token_id if begins else None
        return NextToken(end, _id(tokenizer, "pad", "eos"), first)
    size = min(len(tokenizer), geometry.vocabulary)
    return MaskedTokens(
        _id(tokenizer, "mask"),
        _id(tokenizer, "pad"),
        sorted(set(range(size)) - set(tokenizer.all_special_ids)),
        _id(tokenizer, "cls", "bos"),
        _id(tokenizer, "sep", "eos"),
    )


def sentinels(tokenizer: Any) -> list[int]:
    """The ids of `<extra_id_0>`, `<extra_id_1>`, ...; BadInput when there are less than two."""
    known = tokenizer.get_vocab()
    found: list[int] = []
    while (name := f"<extra_id_{len(found)}>") in known:
        found.append(known[name])
    if len(found) < 2:
        raise BadInput(
            "the host's tokenizer has no sentinels (<extra_id_0>, <extra_id_1>, ...), which span "
            "corruption puts in place of what it cuts out: the host cannot be continued."
        )
    return found


def require_positions(start: Start, length: int) -> None:
    """Raise BadInput when rows of `length` tokens, with special ones, pass the host's positions."""
    limit = getattr(start.saved.config, "max_position_embeddings", None)
    if start.geometry.positions == "after-padding" and limit is not None:
        limit -= start.saved.config.pad_token_id + 1
    if limit is not None and length + _SPECIAL > limit:
        raise BadInput(
            f"rows of {length} tokens and {_SPECIAL} special ones do not fit into the host's "
            f"{limit} positions; give a length of {limit - _SPECIAL} or less."
        )


def save_host(out: Path, start: Start, record: dict[str, Any]) -> None:
    """Write a host into the new folder `out`: weights, tokenizer, record; all of it or nothing."""
    with new_folder(out) as folder, quiet_transformers():
        start.saved.to("cpu").save_pretrained(folder)
        start.tokenizer.save_pretrained(folder)
        write_json(folder / RECORD, record)


def windows(losses: list[float]) -> list[list[float]]:
    """About twenty pairs of a step and the mean loss of the steps up to it since the last one."""
    every = max(1, len(losses) // _WINDOWS)
    ends = [*range(every, len(losses), every), len(losses)]
    return [
        [end, round(float(np.mean(losses[begin:end])), 4)]
        for begin, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


def _with_head(encoder: Any, seed: int) -> Any:
    """The encoder in a model with a new head that names tokens, tied to its embeddings."""
    from transformers import AutoModelForMaskedLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_config(encoder.config)
    setattr(model, model.base_model_prefix, encoder)
    model.tie_weights()
    return model.eval()


def _id(tokenizer: Any, *names: str) -> int:
    """The id of the first of these special tokens that the tokenizer has."""
    for name in names:
        found: int | None = getattr(tokenizer, f"{name}_token_id")
        if found is not None:
            return found
    raise BadInput(f"the host's tokenizer has no {names[0]} token, which pretraining needs.")


def _versions() -> dict[str, str]:
    packages = ("peftport", "torch", "transformers", "tokenizers")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
