"""A study's precision is left to the machine: settled once, written down, and kept."""

from __future__ import annotations

import pytest

from inline_executor import Inline
from peftport.errors import BadInput
from peftport.studies.run import run_study
from peftport.studies.store import read_store
from study_specs import tiny_spec


@pytest.fixture
def made(tiny_host, tiny_continuation, tiny_task):
    def spec(**training):
        return tiny_spec(
            {"a": tiny_host("t5"), "b": tiny_continuation("t5")},
            tiny_task,
            techniques={"lora": {}},
            pairs=[{"origin": "a", "receiver": "b", "relation": "continuation"}],
            conditions=["scratch", "host"],
            budgets=[2],
            seeds=1,
            limit_test=8,
            training={
                "batch_size": 8,
                "learning_rates": {"lora": 0.001},
                "precision": "auto",
                **training,
            },
        )

    return spec


def names(folder) -> set[str]:
    with read_store(folder) as store:
        return set(store.statuses())


def begun_in(folder) -> str:
    with read_store(folder) as store:
        return store.spec["training"]["precision"]


def test_narrow_hosts_are_in_single_precision_and_the_machine_is_not_asked(
    made, tmp_path, monkeypatch
):
    monkeypatch.setattr("peftport.hosts.precision.bf16_is_fast", lambda device: 1 / 0)
    assert run_study(made(), tmp_path / "auto", Inline()).failed == 0
    assert begun_in(tmp_path / "auto") == "fp32"
    run_study(made(precision="fp32"), tmp_path / "asked", Inline())
    assert names(tmp_path / "auto") == names(tmp_path / "asked")


def test_wide_hosts_are_as_the_machine_can_and_the_study_stays_so(
    made, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("peftport.hosts.precision.WIDE", 16)
    monkeypatch.setattr("peftport.hosts.precision.bf16_is_fast", lambda device: True)
    assert run_study(made(), tmp_path / "auto", Inline()).failed == 0
    assert begun_in(tmp_path / "auto") == "bf16"
    assert "faster on this machine" in caplog.text
    caplog.clear()
    run_study(made(precision="bf16"), tmp_path / "asked", Inline())
    assert names(tmp_path / "auto") == names(tmp_path / "asked")
    assert "bfloat16" not in caplog.text

    monkeypatch.setattr("peftport.hosts.precision.bf16_is_fast", lambda device: False)  # elsewhere
    assert run_study(made(), tmp_path / "auto", Inline()).ran == 0
    assert "single precision is several times as fast" in caplog.text
    with pytest.raises(BadInput, match="with another 'training'"):
        run_study(made(precision="fp32"), tmp_path / "auto", Inline())
    run_study(made(), tmp_path / "anew", Inline())
    assert begun_in(tmp_path / "anew") == "fp32"
    assert not names(tmp_path / "anew") & names(tmp_path / "auto")


def test_bfloat16_where_it_is_slow_is_done_as_asked_and_said(made, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("peftport.hosts.precision.bf16_is_fast", lambda device: False)
    assert run_study(made(precision="bf16"), tmp_path / "asked", Inline()).failed == 0
    assert begun_in(tmp_path / "asked") == "bf16"
    assert "single precision is several times as fast" in caplog.text
    assert "--set training.precision=fp32" in caplog.text
