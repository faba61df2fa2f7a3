"""A tokenizer that makes texts far longer is refused before it sees one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftport.errors import BadInput
from peftport.hosts.growth import require_bounded

LONGER = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 16}
SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
MODEL = {"type": "BPE", "vocab": {"normalizer": 0, "model": 1}, "merges": []}


def looked_at(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    require_bounded(path, 1 << 20)


def sequence(steps: list[Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": steps}


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": sequence([LONGER] * 4), "model": MODEL},
        {"normalizer": sequence([sequence([LONGER] * 2), sequence([LONGER] * 2)]), "model": MODEL},
        {"model": MODEL, "normalizer": sequence([LONGER] * 4)},
        {"normalizer": None, "model": MODEL, "decoder": {"decoders": [LONGER] * 4}},
        {"normalizer": {"pattern": {"Regex": ""}, "content": "a" * 10_000}, "model": MODEL},
        {"normalizer": {"type": "Prepend", "prepend": "a" * 20_000}, "model": MODEL},
        {"post_processor": {"single": [{"Sequence": {"id": "A"}}] * 20_000}, "model": MODEL},
    ],
    ids=["steps", "nested", "last", "decoder", "expression", "before", "pieces"],
)
def test_what_makes_texts_far_longer_is_refused(parts: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"more than 10,000 times as long"):
        looked_at(tmp_path / "tokenizer.json", json.dumps(parts))


def test_names_that_are_written_in_another_way_are_read_all_the_same(tmp_path: Path) -> None:
    parts = {"normalizer": None, "model": MODEL, "other": sequence([LONGER] * 4)}
    text = json.dumps(parts).replace('"other"', '"normali\\u007aer"')
    with pytest.raises(BadInput, match=r"more than 10,000 times as long"):
        looked_at(tmp_path / "tokenizer.json", text)


def test_what_tokenizers_do_is_let_through_without_a_look_at_their_words(tmp_path: Path) -> None:
    parts = {"normalizer": sequence([SPACE] * 30), "decoder": None, "model": MODEL}
    looked_at(tmp_path / "tokenizer.json", json.dumps(parts))
    cut_off = json.dumps(parts).removesuffix("}}")  # whoever reads the words finds no end
    looked_at(tmp_path / "tokenizer.json", cut_off)
