from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from peftport.files import read_json
from peftport.hosts import load_host
from peftport.lab import NAMES, RECORD, recipes

SHORT = {
    name: replace(
        recipe,
        rows=8,
        stages=tuple(replace(stage, steps=6) for stage in recipe.stages),
    )
    for name, recipe in recipes.RECIPES.items()
}


@pytest.fixture
def short(monkeypatch):
    """The recipes with six steps a stage."""
    monkeypatch.setattr(recipes, "RECIPES", SHORT)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_host(str(folder)).model.state_dict())


def test_there_is_a_recipe_for_every_host_of_the_lab():
    assert set(recipes.RECIPES) == set(NAMES)


def test_a_recipe_makes_the_same_host_again(short, tmp_path):
    for out in ("one", "two"):
        recipes.make("small", tmp_path / out)
    one, two = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("one", "two"))
    assert one == two


def test_the_twin_shares_the_shape_and_neither_start_nor_text(short, tmp_path):
    for name in ("small", "small-twin"):
        recipes.make(name, tmp_path / name)
    small, twin = weights(tmp_path / "small"), weights(tmp_path / "small-twin")
    for name, tensor in small.items():
        assert tensor.shape == twin[name].shape
    a, b = small["shared.weight"].flatten(), twin["shared.weight"].flatten()
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.05
    texts = [
        next(recipes.text(recipe.stages[0], Random(1000 * recipe.seed)))
        for recipe in (recipes.RECIPES["small"], recipes.RECIPES["small-twin"])
    ]
    assert texts[0] != texts[1]


def test_a_continuation_starts_from_its_origin_and_names_it(short, tmp_path):
    recipes.make("small", tmp_path / "small")
    recipes.make("small-tuned", tmp_path / "tuned", origin=tmp_path / "small")
    start, end = weights(tmp_path / "small"), weights(tmp_path / "tuned")
    moved = sum(float((end[n] - start[n]).norm()) for n in start)
    assert 0 < moved < 0.2 * sum(float(t.norm()) for t in start.values())
    said = read_json(tmp_path / "tuned" / RECORD)["from"]
    assert said == {
        "name": "lab:small",
        "fingerprint": load_host(str(tmp_path / "small")).fingerprint,
    }


def test_tuning_uses_domains_without_a_task():
    for name in ("small-tuned", "large-tuned"):
        for stage in recipes.RECIPES[name].stages:
            assert not {*stage.domains} & {*recipes.words.TASK_DOMAINS}
            assert stage.questions > 0


def test_an_ending_is_the_last_sentence_and_the_rest_is_what_is_read():
    spans = recipes.SpanCorruption([90, 91], eos=1, pad=0)
    endings = recipes.Endings(spans, ends=[7, 8])
    read, written = endings.ending(np.array([5, 7, 6, 6, 8, 9, 7]))
    assert read.tolist() == [5, 7, 6, 6, 8, 1]
    assert written.tolist() == [9, 7, 1]
    read, written = endings.ending(np.array([5, 6, 7]))
    assert (read.tolist(), written.tolist()) == ([1], [5, 6, 7, 1])
