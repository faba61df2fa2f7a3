"""No option is lost between a command and the function of the Python interface that it calls."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import peftport as pp

READ_FIRST: dict[str, dict[str, Any]] = {
    "assess": {"modules": ["m"], "methods": "copy", "budgets": "0", "learning_rates": "0.1"},
    "check": {},
    "merge": {},
    "port": {"out": Path("out")},
    "test": {"against": "bare"},
    "train": {},
    "verify": {"module": "m"},
}
"""Verbs, and values of options that a command reads before it hands them on."""


class Asked(Exception):
    """The function was called."""


@pytest.mark.parametrize("verb", READ_FIRST)
def test_every_option_that_a_function_has_too_reaches_it(verb, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = getattr(import_module(f"peftport.cli.{verb}"), verb)
    takes, has = inspect.signature(getattr(pp, verb)), inspect.signature(command).parameters
    known = READ_FIRST[verb]
    told = {name: object() for name in has if name in takes.parameters and name not in known}
    needed = {n: object() for n, each in has.items() if each.default is each.empty}
    given: dict[str, Any] = {}

    def function(*arguments: Any, **named: Any) -> None:
        given.update(takes.bind(*arguments, **named).arguments)
        raise Asked

    monkeypatch.setattr(pp, verb, function)
    monkeypatch.setattr(pp, "load_module", lambda module, **_: module)
    with pytest.raises(Asked):
        command(**{**needed, **known, **told})
    assert len(told) > 2
    assert {name: given.get(name) for name in told} == told
    assert known.keys() <= given.keys()
