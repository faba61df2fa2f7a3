"""Signals between hosts: known for one host, for unrelated weights and for rotated streams."""

from __future__ import annotations

import shutil
from math import sqrt

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from modules.formats.modules import made
from peftport.forecast.signals import (
    compare_on_texts,
    compare_weights,
    layers_of,
    named_classes,
    read_both,
    subspace_overlap,
)
from peftport.porting import port_method
from peftport.porting.means import Means, side
from peftport.techniques.embeddings import without_embeddings
from porting.embedded import ROWS, loaded, trained
from tiny_hosts import write_host
from tiny_runs import few_rows_of, host_in
from tiny_words import LABEL_WORDS, opinions


def a_copy(host, case="lora", **task):
    module = made(host, case)
    record = module.record.model_copy(update={"task": {**module.record.task, **task}})
    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    return port_method("copy").request(record, shapes, host.geometry), module.tensors


def all_layers(host):
    return tuple(host.geometry.blocks)


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_a_host_is_at_no_distance_from_itself(family, tiny_host):
    here = side(str(tiny_host(family)))
    found = compare_weights(here, here, all_layers(here))
    assert found.distance == 0
    assert found.overlap == pytest.approx(1, abs=1e-5)


def test_distance_grows_as_a_host_moves_away_and_is_the_same_both_ways(tiny_host, tmp_path):
    origin = side(str(tiny_host("llama")))
    found = []
    for noise in (0.02, 0.1, 0.5):
        moved = side(str(write_host("llama", tmp_path / str(noise), noise=noise)))
        found.append(compare_weights(origin, moved, all_layers(origin)))
        back = compare_weights(moved, origin, all_layers(origin))
        assert back.distance == pytest.approx(found[-1].distance)
    assert [each.distance for each in found] == sorted(each.distance for each in found)
    assert [each.overlap for each in found] == sorted(
        (each.overlap for each in found), reverse=True
    )


def test_weights_that_were_drawn_apart_are_at_the_root_of_two(tiny_host, tmp_path):
    origin = side(str(tiny_host("llama")))
    other = side(str(write_host("llama", tmp_path / "other", seed=1)))
    found = compare_weights(origin, other, all_layers(origin))
    assert found.distance == pytest.approx(sqrt(2), rel=0.05)


def test_only_layers_in_which_a_module_stands_are_compared(tiny_host):
    geometry = host_in(tiny_host("t5")).geometry
    names = ["encoder.1.self.q.lora_A", "encoder.1.self.q.lora_B", "head.bias", "phm_rule"]
    assert layers_of(names, geometry) == ("encoder.1",)


def test_overlap_is_that_of_leading_directions():
    values = torch.tensor([5.0, 4.0, 0.3, 0.2, 0.1])
    left = torch.linalg.qr(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)))[0]
    right = torch.linalg.qr(torch.randn(7, 5, generator=torch.Generator().manual_seed(1)))[0]
    matrix = left * values @ right.mT
    assert subspace_overlap(matrix, 3 * matrix, rank=2) == pytest.approx(1, abs=1e-4)
    turned = left * values.flip(0) @ right.mT
    assert subspace_overlap(matrix, turned, rank=2) == pytest.approx(0, abs=1e-4)


def test_answers_that_are_all_of_one_class_agree_no_more_than_by_chance(tiny_host, monkeypatch):
    """Which is known, as it is not where the module does not know its label words."""
    here = side(str(tiny_host("t5")))
    request, donor = a_copy(host_in(tiny_host("t5")), label_words=LABEL_WORDS)
    means = Means(here, here, tuple(dict.fromkeys(opinions(64, 0)[0])))
    one = np.ones(8, dtype=np.int64)
    monkeypatch.setattr("peftport.forecast.signals.named_classes", lambda *_: one)
    assert compare_on_texts(request, donor, means).answers == 0


@pytest.mark.parametrize("family", ["t5", "bert", "llama"])
def test_on_texts_a_host_is_like_itself_and_less_like_one_that_moved(family, tiny_host, tmp_path):
    origin = side(str(tiny_host(family)))
    moved = side(str(write_host(family, tmp_path / "moved", noise=0.5)))
    request, donor = a_copy(host_in(tiny_host(family)), label_words=LABEL_WORDS)
    texts = tuple(dict.fromkeys(opinions(64, 0)[0]))
    same = compare_on_texts(request, donor, Means(origin, origin, texts))
    less = compare_on_texts(request, donor, Means(origin, moved, texts))
    assert same.cka == pytest.approx(1, abs=1e-4)
    assert less.cka < 0.99
    assert same.answers in (0, 1)  # 0 where the drawn module gives one answer to all
    assert less.answers is not None
    assert less.answers <= same.answers


def test_a_module_is_tried_with_the_embeddings_that_it_brings(tiny_host, tiny_task, tmp_path):
    """As on a host that has them by itself; all of its effect is in them."""
    task, folder = few_rows_of(tiny_task), tiny_host("llama")
    trained(folder, task, tmp_path / "theirs", **ROWS)
    donor, origin = loaded(tmp_path / "theirs", task), side(str(folder))
    shapes = {name: tuple(tensor.shape) for name, tensor in donor.tensors.items()}
    request = port_method("copy").request(donor.record, shapes, origin.geometry)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.get_input_embeddings().weight.data = donor.tensors["embedding.input.weight"].clone()
    shutil.copytree(folder, tmp_path / "other")
    model.save_pretrained(tmp_path / "other")
    texts = tuple(dict.fromkeys(opinions(64, 0)[0]))
    means = Means(origin, side(str(tmp_path / "other")), texts)
    rows, body = read_both(request, means)[0][0], without_embeddings(donor.tensors)
    found = named_classes(origin.load(), request, donor.tensors, rows)
    wanted = named_classes(means.receiver.load(), request, body, rows)
    without = named_classes(origin.load(), request, body, rows)
    assert found.tolist() == wanted.tolist() != without.tolist()
    assert compare_on_texts(request, donor.tensors, means).answers == 1


def test_a_threshold_that_moved_changes_no_answer(tiny_host):
    """What is forecast is a recovery after the correction, and so answers are compared after it."""
    origin, host = side(str(tiny_host("bert"))), host_in(tiny_host("bert"))
    request, donor = a_copy(host, label_words=LABEL_WORDS)
    texts = tuple(dict.fromkeys(opinions(64, 0)[0]))
    rows = read_both(request, Means(origin, origin, texts))[0][0]
    moved = {**donor, "head.bias": donor["head.bias"] + torch.tensor([5.0, 0.0])}
    here, there = (named_classes(host, request, each, rows) for each in (donor, moved))
    assert here is not None
    assert there is not None
    assert here.tolist() == there.tolist()
    assert 0.45 <= here.mean() <= 0.55, "each class is as frequent as the other"


def test_without_label_words_nothing_is_said_of_answers(tiny_host):
    origin = side(str(tiny_host("llama")))
    request, donor = a_copy(host_in(tiny_host("llama")))
    texts = tuple(dict.fromkeys(opinions(64, 0)[0]))
    assert compare_on_texts(request, donor, Means(origin, origin, texts)).answers is None
