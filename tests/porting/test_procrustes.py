"""Procrustes, held against twins whose map is known and hosts that differ in size."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peftport.hosts.host import Host
from peftport.modules import HostName, Module
from peftport.porting import port
from peftport.porting.means import Means, side
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import readout_of, scores
from peftport.training.module import as_module, initial_module
from tiny_hosts import drawn_like
from tiny_runs import CASES, encoded, host_in, task_in
from tiny_words import WORDS, opinions
from twins import write_twin

TECHNIQUES = ("houlsby", "pfeiffer", "compacter", "lora", "rslora", "prefix")
TWINS = [
    *(("permuted", family) for family in ("bert", "t5", "gpt2", "llama", "gemma3_text")),
    *(("rotated", family) for family in ("t5", "llama")),
]


def module_of(case: str, host: Host, task: Any) -> Module:
    """A module with tensors drawn at random, large enough to change what the host says."""
    name, options = CASES[case]
    made = technique(name)
    config = made.configure(options)
    start = initial_module(made, config, host, 2, 0)
    tensors = {n: t + 0.5 * drawn_like(t, n) for n, t in start.items()}
    return as_module(made, config, host, tensors, task.record(), 0, {})


def answers(host: Host, module: Module | None, task: Any) -> torch.Tensor:
    """Class scores of the training texts, (rows, classes); without a module the bare host's."""
    split, readout = encoded(host, task, "train"), readout_of(host, task)
    if module is None:
        return scores(host, None, None, {}, split, readout)[0]
    lanes = stack_lanes([module.tensors])
    return scores(host, technique(module.technique), module.config, lanes, split, readout)[0]


def calibration() -> tuple[str, ...]:
    """Texts that no task shows, with every word in many contexts."""
    rng = random.Random(5)
    salad = [" ".join(rng.choices(WORDS, k=rng.randint(4, 14))) for _ in range(120)]
    return (*salad, *opinions(80, seed=9)[0])


def ported(
    module: Module, origin: Host, receiver: Host, method: str = "procrustes", **options: Any
) -> Module:
    """The module on the receiving host."""
    name = HostName(name=receiver.name, fingerprint=receiver.fingerprint)
    means = Means(side(origin.name), side(receiver.name), calibration())
    options = {"prefix_steps": 20, "places": 2048, **options}
    return port(module, receiver.geometry, name, method, options=options, means=means).module


def missed(found: torch.Tensor, wanted: torch.Tensor, bare: torch.Tensor) -> float:
    """How far scores are from those wanted, in units of what the module changes."""
    return float((found - wanted).norm() / (bare - wanted).norm())


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    made: dict[tuple[str, str], Path] = {}

    def of(how: str, family: str) -> Path:
        if (how, family) not in made:
            made[how, family] = write_twin(how, family, tmp_path_factory.mktemp(how) / family)
        return made[how, family]

    return of


@pytest.mark.parametrize("case", TECHNIQUES)
@pytest.mark.parametrize(("how", "family"), TWINS)
def test_a_twin_of_known_map_answers_as_the_originating_host_does(
    how: str, family: str, case: str, tiny_host: Any, twin: Any, tiny_task: Path
) -> None:
    host, other = host_in(tiny_host(family)), host_in(twin(how, family))
    task = task_in(tiny_task)
    module = module_of(case, host, task)
    wanted = answers(host, module, task)
    bare = answers(host, None, task) if host.geometry.kind != "encoder" else wanted * 0
    found = answers(other, ported(module, host, other), task)
    assert missed(found, wanted, bare) < 0.01


@pytest.mark.parametrize("case", ["houlsby", "lora", "prefix"])
def test_a_copy_to_such_a_twin_is_no_better_than_nothing(
    case: str, tiny_host: Any, twin: Any, tiny_task: Path
) -> None:
    host, other = host_in(tiny_host("t5")), host_in(twin("permuted", "t5"))
    task = task_in(tiny_task)
    module = module_of(case, host, task)
    copied = answers(other, module, task)
    assert missed(copied, answers(host, module, task), answers(host, None, task)) > 0.5


@pytest.mark.parametrize("case", ["houlsby", "lora", "prefix"])
def test_layers_that_do_nothing_are_passed_over(
    case: str, tiny_host: Any, twin: Any, tiny_task: Path
) -> None:
    host, other = host_in(tiny_host("llama")), host_in(twin("deeper", "llama"))
    task = task_in(tiny_task)
    module = module_of(case, host, task)
    made = ported(module, host, other, layers="cka")
    wanted, bare = answers(host, module, task), answers(host, None, task)
    assert missed(answers(other, made, task), wanted, bare) < 0.01
    if case == "prefix":
        return
    back = ported(made, other, host, layers="cka")
    assert missed(answers(host, back, task), wanted, bare) < 0.01


@pytest.mark.parametrize("layers", ["proportional", "cka"])
@pytest.mark.parametrize("family", ["t5", "bert", "llama"])
def test_on_the_same_host_a_module_stays_bit_for_bit(
    family: str, layers: str, tiny_host: Any, tiny_task: Path
) -> None:
    host = host_in(tiny_host(family))
    module = module_of("houlsby", host, task_in(tiny_task))
    made = ported(module, host, host, layers=layers)
    assert all(torch.equal(made.tensors[n], t) for n, t in module.tensors.items())
