"""Rows of single tokens that peft trained (`trainable_token_indices`), as embeddings that a module
brings along: the host's own with these rows in their places.

Where a host scores tokens by the rows that it reads them by, peft has the new rows there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.configuration import host_config
from peftport.hosts.weights import Weights
from peftport.modules.formats.base import Folder
from peftport.modules.formats.places import Places
from peftport.modules.formats.rest import embedding_paths
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.embeddings import INPUT, OUTPUT

_KEY = "trainable_token_indices"
_ROWS = ".token_adapter.trainable_tokens_delta"


def is_of_token_rows(name: str) -> bool:
    """Whether a tensor of a file, by its name in the model, holds trained rows."""
    return name.endswith(_ROWS)


def read_token_rows(
    folder: Folder, path: Path, rows: Mapping[str, Tensor], read: Parameters
) -> tuple[Parameters, Shapes]:
    """The embeddings that trained rows make.

    Args:
        path: the file they are from. rows: by their names in the model. read: embeddings that the
            file has as a whole, in which these rows are to be.

    Returns:
        The embeddings, and the shapes of what cannot be carried, by name: rows of tokens that the
        host does not have, or all where its weights are not at hand.

    Raises:
        BadInput: the configuration does not say which tokens the rows are of, or it or the rows
            do not fit the host.
    """
    made, lost = dict(read), dict[str, tuple[int, ...]]()
    if not rows:
        return made, lost
    try:
        weights = Weights(folder.host_files())
    except BadInput as error:
        if not folder.partial:
            raise BadInput(
                f"{path}: the rows of `{_KEY}` stand in place of the host's own, which are not "
                f"at hand: {error} Name the host with --from-host; with `peftport port "
                "--allow-partial` the module is read without them, and the account says so."
            ) from error
        return made, {name: tuple(tensor.shape) for name, tensor in rows.items()}
    paths = embedding_paths(folder.geometry)
    places = Places(paths)
    for name, tensor in rows.items():
        side = places.find(name.removesuffix(_ROWS))
        if side is None:
            raise BadInput(f"{path}: tensor {name!r} belongs to no embedding of the host.")
        tokens = _tokens(folder, paths[side], side)
        own = made.get(f"{side}.weight", _own(weights, paths, side))
        if tuple(tensor.shape) != (len(tokens), own.shape[1]):
            raise BadInput(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, expected "
                f"{(len(tokens), own.shape[1])}: a row for each of `{_KEY}`, as wide as the host's."
            )
        known = [place for place, token in enumerate(tokens) if token < len(own)]
        if len(known) < len(tokens):
            lost[name] = (len(tokens) - len(known), own.shape[1])
        whole = own.to("meta" if tensor.is_meta else "cpu", torch.float32, copy=True)
        whole[[tokens[place] for place in known]] = tensor[known].to(whole.dtype)
        made[f"{side}.weight"] = whole
    one, other = f"{INPUT}.weight", f"{OUTPUT}.weight"
    if one in made and other not in made and OUTPUT in paths and _ties(folder):
        made[other] = made[one].clone()
    return made, lost


def _own(weights: Weights, paths: Mapping[str, str], side: str) -> Tensor:
    """The host's own rows, (tokens, width); of a tied host its files have one embedding."""
    names = [f"{paths[each]}.weight" for each in (side, INPUT)]
    return weights.mapped(next((name for name in names if name in weights), names[0]))


def _ties(folder: Folder) -> bool:
    """Whether the host scores tokens by the rows that it reads them by, as peft tells it."""
    config = host_config(folder.host_files(), folder.host_name)
    return bool(getattr(config, "tie_word_embeddings", False))


def _tokens(folder: Folder, path: str, side: str) -> list[int]:
    """The tokens whose rows were trained at a place of the host."""
    told = folder.config.get(_KEY)
    if isinstance(told, dict):
        named = [tokens for name, tokens in told.items() if f".{path}".endswith(f".{name}")]
        told = named[0] if len(named) == 1 else None
    elif side != INPUT:
        told = None
    if not isinstance(told, list) or not all(type(token) is int and token >= 0 for token in told):
        folder.refuse(_KEY, f"expected the numbers of the tokens whose rows {path} has")
    if len(set(told)) < len(told):
        folder.refuse(_KEY, "a token stands in it twice")
    return told
