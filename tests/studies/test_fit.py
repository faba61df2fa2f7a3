"""A study that cannot fit into memory is refused beforehand, with what makes it fit."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from inline_executor import Inline
from peftport.errors import BadInput
from peftport.studies import fit
from peftport.studies.fit import require_memory
from peftport.studies.held import Held
from peftport.studies.identity import Identity
from peftport.studies.plan import Plan
from peftport.studies.resolve import resolve
from peftport.studies.run import run_study
from study_specs import tiny_spec

PAIR = {"origin": "a", "receiver": "b", "relation": "continuation"}
GB = 1e9


class Large:
    """As if every host took so many bytes, and every row of every lane so many."""

    host, row = GB, GB / 16

    def __init__(self, plan, facts, longest):
        self._rows = plan.spec.training.batch_size

    def of_pack(self, pack, steps):
        lanes = len(pack.lanes) if steps else 0
        own = frozenset({(pack.arm.host, "fp32")})
        return Held(self.host, lanes * self._rows * self.row, own, lanes)

    def of_host(self, key):
        return self.host


@pytest.fixture
def made(tiny_host, tiny_continuation, tiny_task, monkeypatch):
    """The study, and a function that asks whether it fits into so many gigabytes."""
    hosts = {"a": tiny_host("t5"), "b": tiny_continuation("t5")}
    changes = {"techniques": {"lora": {}}, "pairs": [PAIR], "seeds": 4}
    spec = tiny_spec(hosts, tiny_task, conditions=["ported", "native"], **changes)
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"batch_size": 16})})
    facts = resolve(spec, fetch=False)
    identity = Identity(Plan(spec), *facts.marks())
    monkeypatch.setattr(fit, "_on_gpu", lambda: False)

    def ask(free: float, workers: int = 1, study=spec) -> None:
        monkeypatch.setattr("peftport.porting.estimate.memory_at_hand", lambda: free * GB)
        require_memory(Plan(study), facts, identity, nowhere, workers, False)

    nowhere = tiny_task.parent / "nowhere"
    return SimpleNamespace(spec=spec, plan=Plan(spec), identity=identity, ask=ask)


@pytest.fixture
def large(made, monkeypatch):
    monkeypatch.setattr("peftport.studies.held.Holding", Large)
    return made


def refusal(made, *asked, **more) -> str:
    with pytest.raises(BadInput) as refused:
        made.ask(*asked, **more)
    return str(refused.value)


def test_what_fits_is_let_through_in_silence(large, caplog):
    large.ask(10)
    large.ask(20, 2)
    assert caplog.text == ""


def test_fewer_workers_are_named_where_they_fit(large, monkeypatch):
    monkeypatch.setattr(Large, "host", 4 * GB)
    monkeypatch.setattr(Large, "row", GB / 64)
    one = large.spec.model_copy(update={"conditions": ("native",), "donor_steps": None})
    twice = one.model_copy(update={"lanes": 2})
    said = refusal(large, 8.4, 2, twice)
    for part in ("study tiny needs 8.5 GB", "2 workers", "8.4 GB are free", "--workers 1 fits"):
        assert part in said
    assert "On b a worker holds 4.0 GB of the host and 0.5 GB for 2 lanes of 16 rows" in said
    assert "--ignore-memory" in said


def test_fewer_lanes_and_then_smaller_batches_are_named_where_one_worker_is_too_much(large):
    assert "free. On a a worker holds" in refusal(large, 5)
    assert ". --set lanes=1 fits." in refusal(large, 5)
    assert "--workers 1 with --set lanes=1 fits." in refusal(large, 5.9, 3)
    assert "--set lanes=1 --set training.batch_size=4 fits." in refusal(large, 3.9)
    assert "No option makes it fit" in refusal(large, 2)


def test_what_may_be_too_much_is_tried_with_a_notice(large, caplog):
    large.ask(11, 2)
    assert "notice: 2 workers may take 18.9 GB of memory, and 11.0 GB are free" in caplog.text
    assert "--workers 1 fits" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_what_workers_do_not_surely_hold_at_once_is_not_added_up(large):
    """Two hosts, and one of two trainings at its highest."""
    large.ask(6, 2)
    assert "needs 6.0 GB" in refusal(large, 5.9, 2)


def test_what_is_done_takes_no_memory(large, monkeypatch):
    done = {large.identity.run(run)[0]: "done" for run in large.plan.runs()}
    donors = {large.identity.donor(lane)[0]: "done" for lane in large.plan.donors()}
    store = SimpleNamespace(statuses=lambda: done, donor_statuses=lambda: donors)
    monkeypatch.setattr(fit, "is_study", lambda _: True)
    monkeypatch.setattr(fit, "read_store", lambda _: nullcontext(store))
    large.ask(0.1, 8)
    done.popitem()
    said = refusal(large, 0.1, 8)
    assert "--set" not in said  # a study that is begun has its lanes


def test_a_gpu_and_workers_elsewhere_are_not_looked_at(large, monkeypatch):
    large.ask(0.1, workers=0)
    monkeypatch.setattr(fit, "_on_gpu", lambda: True)
    large.ask(0.1)


def test_a_small_study_asks_for_little(made):
    made.ask(1.0, 2)
    assert "are free" in refusal(made, 1e-6)


class Workers(Inline):
    """Says that it works in this machine's memory."""

    workers = 1


def test_nothing_is_written_of_a_study_that_is_refused(made, monkeypatch, tmp_path):
    monkeypatch.setattr("peftport.porting.estimate.memory_at_hand", lambda: 1000.0)
    with pytest.raises(BadInput, match="--ignore-memory"):
        run_study(made.spec, tmp_path / "s", Workers())
    assert not (tmp_path / "s").exists()
    few = made.spec.model_copy(update={"seeds": (0,), "conditions": ("native",)})
    assert run_study(few, tmp_path / "s", Workers(), ignore_memory=True).failed == 0
    assert run_study(few, tmp_path / "t", Inline()).failed == 0
