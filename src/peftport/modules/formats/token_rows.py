"""Rows of single tokens that peft trained (`trainable_token_indices`), as embeddings that a module
brings along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.modules.formats.base import Folder
from peftport.modules.formats.places import Places
from peftport.modules.formats.rest import TOKEN_ROWS, embedding_paths
from peftport.modules.formats.stored import require_matrix
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.embeddings import INPUT, OUTPUT

TOKENS_KEY = "trainable_token_indices"


def is_of_token_rows(name: str) -> bool:
    """Whether a tensor of a file, by its name in the model, holds trained rows."""
    return name.endswith(TOKEN_ROWS)


def read_token_rows(
    folder: Folder, path: Path, rows: Mapping[str, Tensor], read: Parameters
) -> tuple[Parameters, Shapes]:
    """The embeddings of a file, with the rows that it has of single tokens.

    Args:
        path: the file they are from. rows: by their names in the model. read: embeddings that the
            file has as a whole, in which these rows are to be.

    Returns:
        The embeddings, and the shapes of rows of tokens that the host does not have, by name.

    Raises:
        BadInput: the configuration does not say which tokens the rows are of, or says so of rows
            that the file lacks.
    """
    if folder.config.get(TOKENS_KEY) and not rows:
        raise BadInput(f"{path} lacks the rows that `{TOKENS_KEY}` of {folder.config_path} names.")
    made, lost = dict(read), dict[str, tuple[int, ...]]()
    paths = embedding_paths(folder.geometry)
    places = Places(paths)
    sides = {name: places.find(name.removesuffix(TOKEN_ROWS)) for name in rows}
    for name, tensor in rows.items():
        side = sides[name]
        if side is None:
            raise BadInput(f"{path}: tensor {name!r} belongs to no embedding of the host.")
        if side == OUTPUT and not _named(folder, paths[side]):
            _require_same(path, name, tensor, [rows[n] for n in rows if sides[n] == INPUT])
            continue
        require_matrix(path, name, tensor)
        whole = made.get(f"{side}.weight")
        width = tensor.shape[-1] if whole is None else whole.shape[1]
        tokens = _tokens(folder, paths[side])
        if tuple(tensor.shape) != (len(tokens), width):
            raise BadInput(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, expected "
                f"{(len(tokens), width)}: a row for each of `{TOKENS_KEY}`."
            )
        size = folder.geometry.vocabulary if whole is None else len(whole)
        known = [place for place, token in enumerate(tokens) if token < size]
        if len(known) < len(tokens):
            lost[name] = (len(tokens) - len(known), width)
        numbers = torch.tensor([tokens[place] for place in known], dtype=torch.long)
        if whole is not None:
            device = tensor.device
            made[f"{side}.weight"] = whole.index_copy(0, numbers.to(device), tensor[known])
        elif known:
            made |= {f"{side}.rows": tensor[known], f"{side}.tokens": numbers}
    return made, lost


def _named(folder: Folder, path: str) -> list[Any]:
    """What the configuration says of the tokens of a place by its name."""
    told = folder.config.get(TOKENS_KEY)
    if not isinstance(told, dict):
        return []
    return [tokens for name, tokens in told.items() if f".{path}".endswith(f".{name}")]


def _require_same(path: Path, name: str, scored: Tensor, read: list[Tensor]) -> None:
    """Raise BadInput for rows of the scores that nothing is said of and that are not those that a
    tied host reads by, which peft saves twice where a vocabulary grew."""
    alike = [each for each in read if each.shape == scored.shape]
    if not any(each.is_meta or torch.equal(each, scored) for each in alike):
        raise BadInput(
            f"{path}: tensor {name!r}: `{TOKENS_KEY}` does not say which tokens it is of, and its "
            "rows are not those that the host reads by."
        )


def _tokens(folder: Folder, path: str) -> list[int]:
    """The tokens whose rows were trained at a place of the host."""
    told = folder.config.get(TOKENS_KEY)
    if isinstance(told, dict):
        named = _named(folder, path)
        told = named[0] if len(named) == 1 else None
    if not isinstance(told, list) or not all(type(token) is int and token >= 0 for token in told):
        folder.refuse(TOKENS_KEY, f"expected the numbers of the tokens whose rows {path} has")
    if len(set(told)) < len(told):
        folder.refuse(TOKENS_KEY, "a token stands in it twice")
    return told
