"""What docs/studies.md says of specifications, presets and commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from peftport.studies.load import preset_names
from peftport.studies.schema import COLUMNS
from peftport.studies.spec import Spec, parse_spec

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "studies.md").read_text()


def test_the_specification_in_it_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    spec = parse_spec(yaml.safe_load(block), "docs/studies.md")
    assert spec.learning_rate("adapter", "ported", spec.pairs[0].receiver) == 0.001


def test_every_key_of_a_specification_is_told() -> None:
    keys = TEXT[TEXT.index("## Write a specification") : TEXT.index("An unknown key")]
    told = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^(`.*`)$", keys, re.MULTILINE))))
    assert told == {*Spec.model_fields, "parameters"} - {"name", "about"}


def test_every_preset_is_told() -> None:
    table = TEXT[TEXT.index("| preset |") : TEXT.index("`peftport study plan NAME`")]
    assert set(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE)) == set(preset_names())


def test_the_columns_of_an_export_are_told_in_order() -> None:
    told = re.findall(r"`(\w+)`", TEXT[TEXT.index("An export has a row") :])
    assert tuple(told[: len(COLUMNS)]) == COLUMNS


@pytest.mark.parametrize("verb", ["plan", "tune", "run", "status", "report", "export"])
def test_every_option_is_told(verb: str) -> None:
    from typer.main import get_command

    from peftport.cli.study import app

    options = {
        option
        for parameter in get_command(app).commands[verb].params
        for option in [*parameter.opts, *parameter.secondary_opts]
        if option.startswith("--") and option not in ("--help", "--measure")
    }
    usage = re.search(
        rf"^peftport study {verb} .*?(?=^peftport|^```)", TEXT, re.DOTALL | re.MULTILINE
    )
    assert usage is not None
    assert set(re.findall(r"--[\w-]+", usage[0])) == options
