"""What is not found: one message that says what was looked for, where, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import constants, errors

import peftport as pp
from peftport.lookup import hub_said


def answered(kind: type[Exception]) -> Exception:
    """An error of the hub's client, without the answer that it comes from."""
    return kind.__new__(kind, "as the hub says it")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (answered(errors.RepositoryNotFoundError), "the hub has nothing of that"),
        (answered(errors.GatedRepoError), "ask for access on its page"),
        (answered(errors.RevisionNotFoundError), "no such revision"),
        (errors.HFValidationError("x"), "it is no name on the hub (OWNER/NAME)"),
        (
            errors.LocalEntryNotFoundError("Got: ConnectError\nmore"),
            "could not be reached, and its",
        ),
        (ConnectionError("Couldn't reach 'x' on the Hub (Some)"), "could not be reached, and its"),
        (OSError("disk full.\nmore"), "the hub gave nothing (disk full)"),
    ],
)
def test_every_answer_of_the_hub_is_said_in_words(error, told, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert told in hub_said(error)
    around = RuntimeError("in words of another library")
    around.__cause__ = error
    if isinstance(error, errors.HfHubHTTPError):
        assert hub_said(around) == hub_said(error)


FIND = {
    "host": lambda name: pp.load_host(name),
    "module": lambda name: pp.load_module(name),
    "task": lambda name: pp.train("lab:small", name, "lora", steps=1),
}


@pytest.mark.parametrize("name", ["nobody/nothing", "./nothing", "/no/where/nothing"])
@pytest.mark.parametrize("what", FIND)
def test_hosts_modules_and_tasks_are_missed_in_one_form(what, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pp.BadInput) as raised:
        FIND[what](name)
    message, path = str(raised.value), Path(name).absolute()
    assert message.startswith(f"{what} {name!r} was not found: {path} does not exist")
    assert re.search(r"\. Name a (module's )?folder", message)
    asked = "; the hub was not asked (HF_HUB_OFFLINE is set), and its cache" in message
    assert asked == (name == "nobody/nothing")
    assert "Error" not in message
