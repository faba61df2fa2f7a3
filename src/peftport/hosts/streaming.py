"""Hosts of which one layer's weights are in memory at a time.

A layer's weights are read from the host's files when the layer runs, and let go after it; of the
embeddings only the rows are read whose tokens occur. What is left is small and stays: norms and
biases.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peftport.files import by_library
from peftport.hosts import attention
from peftport.hosts.configuration import host_config
from peftport.hosts.discovery import family_of
from peftport.hosts.fingerprint import fingerprint, weight_files
from peftport.hosts.fused import fuse
from peftport.hosts.geometry import Geometry
from peftport.hosts.loading import model_class_of, notice_adapter
from peftport.hosts.lowered import lower_products
from peftport.hosts.precision import Precision, bf16_is_fast
from peftport.hosts.quiet import quiet_transformers
from peftport.hosts.skeleton import require_points
from peftport.hosts.source import (
    find_host,
    geometry_in,
    require_readable,
    require_weights_for,
)
from peftport.hosts.vocabulary import hold_together
from peftport.hosts.weights import Weights
from peftport.memory import give_freed_memory_back, let_go_of_pages

if TYPE_CHECKING:
    from pathlib import Path

    from peftport.hosts.host import Host

_SLOT = "_peftport_streamed"
LOADED_WHOLE = 64 << 20
"""Hosts whose files are no larger are loaded whole."""


def stream_host(name: str, device: str = "cpu", precision: Precision | None = None) -> Host:
    """A host that runs as one from `load_host` does, with one layer's weights in memory at a time.

    Small hosts, those on a GPU, encoders and encoder-decoders, those of unknown families or within
    another model, and those whose files name weights otherwise than the model does, are loaded
    whole.

    Args:
        precision: of the products with its weights. If not given they are in bfloat16 where the
            weights are streamed, stored in it, and this CPU multiplies it itself; else in single
            precision.

    Raises:
        BadInput: as `load_host` does.
    """
    from peftport.hosts.host import Host, load_host, load_tokenizer

    folder = find_host(name).files()
    geometry, files = geometry_in(folder, name), weight_files(folder)
    large = sum(file.stat().st_size for file in files) > LOADED_WHOLE
    usual = geometry.kind == "decoder" and geometry.known and not geometry.trait("own_attention")
    if device != "cpu" or not usual or not large or family_of(host_config(folder, name))[1]:
        return load_host(name, device, precision or "fp32")
    require_readable(folder, name)
    require_weights_for(geometry, files, name)
    notice_adapter(folder, name)
    model, weights = _skeleton(folder, name), Weights(folder)
    if not all(
        key in weights and weights.shape(key) == tuple(parameter.shape)
        for key, parameter in model.named_parameters()
    ):
        return load_host(name, device, precision or "fp32")
    if precision is None:
        lower = bf16_is_fast() and _stored_low(weights, geometry)
        precision = "bf16" if lower else "fp32"
    require_points(model, geometry, name)
    tokenizer = load_tokenizer(folder, name)
    hold_together(tokenizer, model, name)
    give_freed_memory_back()  # reading a large vocabulary takes much for a moment
    _read_small(model, weights)
    host = Host(name, folder, model, tokenizer, geometry, fingerprint(folder), precision)
    for path in layer_paths(host).values():
        _defer(host.part(path), path, weights)
    fuse(model)
    if precision == "bf16":
        lower_products(model, geometry)
    return host


def _stored_low(weights: Weights, geometry: Geometry) -> bool:
    """Whether a host's linear layers are stored in bfloat16."""
    paths = {linear.path for linear in geometry.linears.values()}
    return all(weights.type(f"{path}.weight") == torch.bfloat16 for path in paths)


def layer_paths(host: Host) -> dict[str, str]:
    """Module path of each layer ("decoder.0"), in the order of the stacks.

    It is the smallest module that holds all of a layer's linear layers and is run as a whole.
    """
    within: dict[str, list[list[str]]] = {}
    for point, linear in host.geometry.linears.items():
        layer = ".".join(point.split(".", 2)[:2])
        within.setdefault(layer, []).append(linear.path.split(".")[:-1])
    found = {}
    for layer, paths in within.items():
        shared = paths[0][: _shared(paths)]
        while isinstance(host.part(".".join(shared)), nn.ModuleList):
            shared = shared[:-1]
        found[layer] = ".".join(shared)
    return found


def _shared(paths: list[list[str]]) -> int:
    """How many parts all paths begin with."""
    alike = [len(set(parts)) == 1 for parts in zip(*paths, strict=False)]
    return [*alike, False].index(False)


@contextmanager
def holding(module: nn.Module) -> Iterator[None]:
    """Keep a layer's weights in memory, from one run to the next, if they are streamed."""
    streamed: _Streamed | None = getattr(module, _SLOT, None)
    if streamed is None:
        yield
        return
    streamed.take()
    try:
        yield
    finally:
        streamed.give_back()


@dataclass
class _Streamed:
    """A layer's weights: read when first taken, let go when given back as often as taken.

    places: where each belongs, and its name in the files.
    """

    weights: Weights
    places: list[tuple[nn.Module, str, str]]
    _taken: int = 0
    _empty: list[nn.Parameter] = field(default_factory=list)

    def take(self) -> None:
        """Put the weights in their places."""
        self._taken += 1
        if self._taken > 1:
            return
        for module, name, key in self.places:
            empty: Any = module._parameters[name]
            self._empty.append(empty)
            module._parameters[name] = _frozen(self.weights[key].to(empty.dtype))

    def give_back(self) -> None:
        """Let go of them, unless somebody else still holds them."""
        self._taken -= 1
        if self._taken:
            return
        for (module, name, _), empty in zip(self.places, self._empty, strict=True):
            module._parameters[name] = empty
        self._empty.clear()


def _defer(layer: nn.Module, path: str, weights: Weights) -> None:
    """Have a layer read its large weights whenever it runs."""
    places = [
        (layer.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], f"{path}.{name}")
        for name, parameter in layer.named_parameters()
        if parameter.is_meta
    ]
    streamed = _Streamed(weights, places)
    object.__setattr__(layer, _SLOT, streamed)
    layer.register_forward_pre_hook(lambda *_: streamed.take())
    layer.register_forward_hook(lambda *_: streamed.give_back(), always_call=True)


def _read_small(model: Any, weights: Weights) -> None:
    """Read what is no matrix of a layer; embeddings row by row, when they are looked up."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    of_layers = {id(each) for module in lists for each in module.parameters()}
    of_tokens = {id(embedding.weight), id(head.weight)}
    read: dict[int, nn.Parameter] = {}
    for key, parameter in model.named_parameters():  # of a tied pair the first
        if id(parameter) in of_tokens:
            read[id(parameter)] = _frozen(weights.mapped(key))
        elif parameter.ndim < 2 or id(parameter) not in of_layers:
            read[id(parameter)] = _frozen(weights[key].float())
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = read.get(id(parameter), parameter)
    _by_rows(embedding)


def _by_rows(embedding: nn.Embedding) -> None:
    """Have an embedding look tokens up in a table of those that occur, in single precision."""
    whole: list[nn.Parameter | None] = []
    mapped = embedding.weight
    embedding.padding_idx = None  # it says which row is not trained

    def narrow(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tokens, places = given[0].unique(return_inverse=True)
        # A module can have put rows of its own in place of the host's.
        rows: Any = embedding._parameters["weight"]
        whole.append(rows)
        embedding._parameters["weight"] = _frozen(rows[tokens].float())  # (tokens, width)
        if rows is mapped:  # around each row the system maps many more
            let_go_of_pages(rows.data_ptr(), rows.nbytes)
        return (places,)

    def widen(*_: Any) -> None:
        if whole:
            embedding._parameters["weight"] = whole.pop()

    embedding.register_forward_pre_hook(narrow)
    embedding.register_forward_hook(widen, always_call=True)


def _skeleton(folder: Path, name: str) -> Any:
    """The model of a folder with parameters on the meta device, and buffers as they should be."""
    register = nn.Module.register_parameter

    def register_empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        # What is tied is registered again, and must stay the same parameter.
        if parameter is not None and not parameter.is_meta:
            parameter = _frozen(parameter.to("meta"))
        register(module, name, parameter)

    with quiet_transformers(), by_library(f"host {name} cannot be loaded from {folder}"):
        made_of, config = model_class_of("AutoModelForCausalLM", host_config(folder))
        nn.Module.register_parameter = register_empty  # type: ignore[method-assign,assignment]
        try:
            options = {"dtype": torch.float32, "attn_implementation": attention.NAME}
            model = made_of._from_config(config, **options)
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]
    return model.eval()


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
