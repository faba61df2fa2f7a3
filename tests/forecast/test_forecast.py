"""Forecasts of copies: near 1 for one host, near 0 for unrelated ones, refused where none holds."""

from __future__ import annotations

import pytest

from modules.formats.modules import made
from peftport.errors import BadInput
from peftport.forecast import forecast
from peftport.porting import port_method
from peftport.porting.means import Means, side
from tiny_hosts import write_host
from tiny_runs import ONE_OF_EACH_TECHNIQUE, host_in
from tiny_words import opinions


def forecast_on(origin, receiver, case="lora", texts=(), stated=None):
    module = made(host_in(origin), case)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    sides = side(str(origin)), side(str(receiver))
    request = port_method("copy").request(module.record, shapes, sides[1].geometry)
    return forecast(request, module.tensors, Means(*sides, tuple(texts)), stated)


@pytest.fixture(scope="session")
def unrelated(tmp_path_factory):
    return write_host("t5", tmp_path_factory.mktemp("hosts") / "unrelated", seed=1)


@pytest.mark.parametrize("case", ONE_OF_EACH_TECHNIQUE)
def test_a_copy_to_the_same_host_keeps_nearly_all_and_to_an_unrelated_one_nearly_nothing(
    case, tiny_host, unrelated
):
    same = forecast_on(tiny_host("t5"), tiny_host("t5"), case)
    assert same.recovery > 0.9
    assert same.genealogy == "same"
    other = forecast_on(tiny_host("t5"), unrelated, case)
    assert other.recovery < 0.15
    for found in (same, other):
        assert found.low <= found.recovery <= found.high


def test_the_farther_the_host_the_less_is_kept(tiny_host, tmp_path):
    found = [
        forecast_on(tiny_host("t5"), write_host("t5", tmp_path / str(n), noise=n)).recovery
        for n in (0.02, 0.3, 1.2)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] > 0.3


def test_with_texts_the_copy_is_tried(tiny_host, tiny_continuation):
    texts = dict.fromkeys(opinions(64, 0)[0])
    origin, receiver = tiny_host("bert"), tiny_continuation("bert")
    found = forecast_on(origin, receiver, texts=texts)
    assert found.texts == len(texts)
    assert found.on_texts is not None
    assert found.on_texts.answers is not None
    assert found.recovery != forecast_on(origin, receiver).recovery
    assert forecast_on(origin, receiver).on_texts is None


def test_a_module_that_does_not_know_its_label_words_is_forecast_from_weights(
    tiny_host, tiny_continuation
):
    texts = dict.fromkeys(opinions(64, 0)[0])
    found = forecast_on(tiny_host("t5"), tiny_continuation("t5"), texts=texts)
    assert found.on_texts is not None
    assert found.on_texts.answers is None
    assert found.recovery == forecast_on(tiny_host("t5"), tiny_continuation("t5")).recovery


def test_a_stated_genealogy_is_told_and_doubted_where_the_weights_contradict_it(
    tiny_host, tiny_continuation, unrelated
):
    origin, near = tiny_host("t5"), tiny_continuation("t5")
    assert forecast_on(origin, near).genealogy == "continuation"
    assert forecast_on(origin, unrelated).genealogy is None
    fine = forecast_on(origin, near, stated="continuation")
    assert (fine.genealogy, fine.notes) == ("continuation", ())
    assert "as near as" in forecast_on(origin, near, stated="independent").notes[0]
    assert "as far apart as" in forecast_on(origin, unrelated, stated="continuation").notes[0]


def test_between_continuations_and_independent_hosts_the_interval_is_wide_and_says_so(
    tiny_host, tmp_path
):
    found = forecast_on(tiny_host("t5"), write_host("t5", tmp_path / "far", noise=1.6))
    assert 0.9 < found.weights.distance < 1.25
    assert found.low <= 0
    assert found.high >= 1
    assert "no pair of hosts at such a distance" in found.notes[0]


def test_hosts_of_other_shapes_have_no_forecast(tiny_host):
    module = made(host_in(tiny_host("llama")), "lora")
    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    sides = side(str(tiny_host("llama"))), side(str(tiny_host("gpt2")))
    request = port_method("copy").request(module.record, shapes, sides[1].geometry)
    with pytest.raises(BadInput, match="differ in shape"):
        forecast(request, module.tensors, Means(*sides))
