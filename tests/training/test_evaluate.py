"""Testing gives every row its scores, every lane its own figures, and changes nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from families import ONE_OF_EACH_KIND
from peftport.errors import RunFailed
from peftport.tasks.batches import TEST_TOKENS
from peftport.techniques.base import stack_lanes, take_lane
from peftport.techniques.head import initial_head
from peftport.training import class_logits, evaluate, evaluate_one, measure, readout_of, scores
from peftport.training.evaluate import tokens_that_fit
from tiny_runs import encoded, host_in, start_of, task_in

CASE = "prefix"


@pytest.fixture(params=ONE_OF_EACH_KIND)
def here(request, tiny_host, tiny_task):
    """Host, technique, configuration, two lanes' modules, test split, readout."""
    host, task = host_in(tiny_host(request.param)), task_in(tiny_task)
    made, config, lanes = start_of(CASE, host, [1, 2])
    return host, made, config, lanes, encoded(host, task, "test"), readout_of(host, task)


def one_by_one(host, made, config, lanes, split, readout) -> torch.Tensor:
    """Scores of every row in its own pass, in the order of the data: (lanes, rows, classes)."""
    rows = []
    with torch.no_grad(), made.attach(host, config, lanes):
        for row in range(len(split)):
            batch = split.batch(np.array([row, row]))
            rows.append(class_logits(host, batch, lanes, readout))
    return torch.stack(rows, dim=1)


def test_scores_are_in_the_order_of_the_data_whatever_the_batches(here):
    found = scores(*here)
    assert found.shape == (2, 48, 2)
    torch.testing.assert_close(found, one_by_one(*here), atol=1e-5, rtol=1e-5)
    lengths = here[4].lengths
    assert list(lengths) != sorted(lengths, reverse=True)


def test_every_lane_is_measured_by_its_own_scores(here):
    host, made, config, lanes, split, readout = here
    found = evaluate(*here)
    for lane, evaluation in enumerate(found):
        expected = measure(scores(*here)[lane].numpy(), split.labels)
        assert evaluation.figures == expected.figures
        assert evaluation.predictions.tolist() == expected.predictions.tolist()
        alone = evaluate_one(host, made, config, take_lane(lanes, lane), split, readout)
        assert alone.figures["log_loss"] == pytest.approx(evaluation.figures["log_loss"], rel=1e-5)
    assert found[0].figures["log_loss"] != pytest.approx(found[1].figures["log_loss"], rel=1e-3)


def test_a_bare_host_is_tested_with_an_encoder_s_head_or_with_nothing(here):
    host, _, _, _lanes, split, readout = here
    head = initial_head(host.geometry, 2, torch.Generator().manual_seed(4))
    (bare,) = evaluate(host, None, None, stack_lanes([head]), split, readout)
    with_module = evaluate(*here)[0]
    assert bare.figures["n_test"] == 48
    assert abs(bare.figures["log_loss"] - with_module.figures["log_loss"]) > 1e-4
    assert bool(head) == (host.geometry.kind == "encoder")


def test_a_lane_whose_scores_are_not_finite_has_no_figures_and_the_other_has(here):
    host, made, config, lanes, split, readout = here
    healthy = evaluate(*here)[1]
    broken = {name: tensor.clone() for name, tensor in lanes.items()}
    next(iter(broken.values()))[0] = torch.nan
    first, second = evaluate(host, made, config, broken, split, readout)
    assert first is None
    assert second.figures == healthy.figures
    with pytest.raises(RunFailed, match=f"host {host.name}: under the module its scores are not"):
        evaluate_one(host, made, config, take_lane(broken, 0), split, readout)


def test_testing_builds_no_graph_and_changes_no_parameter(here):
    host, made, config, lanes, split, readout = here
    kept = {name: tensor.clone() for name, tensor in lanes.items()}
    wanting = {name: tensor.clone().requires_grad_() for name, tensor in lanes.items()}
    assert not scores(host, made, config, wanting, split, readout).requires_grad
    assert all(torch.equal(wanting[name], tensor) for name, tensor in kept.items())
    assert host.position_shift == 0


def test_test_batches_on_a_gpu_are_as_large_as_its_memory_holds():
    t5_base = SimpleNamespace(width=768, ffn=2048)
    assert tokens_that_fit(80 * 10**9, t5_base) == 65_536  # more would gain nothing
    assert tokens_that_fit(4 * 10**9, t5_base) == pytest.approx(
        tokens_that_fit(2 * 10**9, t5_base) * 2, abs=1
    )
    assert tokens_that_fit(4 * 10**9, t5_base) * 4 * (16 * 768 + 4 * 2048) <= 10**9
    assert tokens_that_fit(0, t5_base) == TEST_TOKENS
