"""A host's weights in its safetensors files, read one at a time: no whole model in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import opened
from peftport.hosts.fingerprint import read_header, weight_files
from peftport.hosts.quantised import require_plain
from peftport.hosts.towers import without_towers

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class Weights(Mapping[str, Tensor]):
    """Tensors by the names of the loaded model, which may lack the prefix that the files have.

    A base model's files say "h.0.attn..." where the loaded causal model says
    "transformer.h.0.attn...", and the other way round; those of a model of images and text say
    "language_model.model.layers.0..." where the loaded one says "model.language_model.layers.0...".
    Either name finds the tensor.
    """

    def __init__(self, folder: Path) -> None:
        require_plain(folder, str(folder))
        self.folder = folder
        self._places = {
            name: (file, start, entry)
            for file in weight_files(folder)
            for header, start in [read_header(file)]
            for name, entry in header.items()
        }
        self._within: dict[str, list[str]] = {}
        for name in self._places:
            self._within.setdefault(without_towers(name), []).append(name)

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor, in the type it is stored in; BadInput when the files lack it.

        It is read in one go, and not mapped: whoever reads ahead has it in memory then.
        """
        file, start, entry = self._place(name)
        begin, end = entry["data_offsets"]
        data = torch.empty(end - begin, dtype=torch.uint8)
        with opened(file) as stream:
            stream.seek(start + begin)
            stream.readinto(data.numpy().data)
        return data.view(_TYPES[entry["dtype"]]).view(entry["shape"])

    def mapped(self, name: str) -> Tensor:
        """One tensor, mapped into memory: of its rows only those that are read come from the disk.

        BadInput when the files lack it, or it is of a type that is not read.
        """
        file, start, entry = self._place(name)
        begin, end = entry["data_offsets"]
        data = np.memmap(file, np.uint8, mode="c", offset=start + begin, shape=(end - begin,))
        return torch.from_numpy(data).view(_TYPES[entry["dtype"]]).view(entry["shape"])

    def type(self, name: str) -> torch.dtype:
        """The type a tensor is stored in; BadInput when the files lack it."""
        return _TYPES[self._place(name)[2]["dtype"]]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; BadInput when the files lack it."""
        return tuple(self._place(name)[2]["shape"])

    def __iter__(self) -> Iterator[str]:
        """Names as they stand in the files."""
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def _place(self, name: str) -> tuple[Path, int, dict[str, Any]]:
        """File, where the file's data begin, and the tensor's entry in the header."""
        stored = self._stored(name)
        file, _, entry = self._places[stored]
        if entry["dtype"] not in _TYPES:
            raise BadInput(
                f"{file}: weight {stored!r} has type {entry['dtype']}; read are "
                f"{', '.join(_TYPES)}: save the host again in one of them."
            )
        return self._places[stored]

    def _stored(self, name: str) -> str:
        found = self._find(name)
        if found is None:
            raise BadInput(f"{self.folder} has no weight called {name!r}.")
        return found

    def _find(self, name: str) -> str | None:
        if name in self._places:
            return name
        tails = [stored for stored in self._places if stored.endswith(f".{name}")]
        _, _, short = name.partition(".")
        candidates = (
            tails
            or [stored for stored in (short,) if stored in self._places]
            or self._within.get(without_towers(name), [])
        )
        return candidates[0] if len(candidates) == 1 else None

    def stored_name(self, name: str) -> str:
        """What a tensor is called in the files; BadInput when they lack it."""
        return self._stored(name)
