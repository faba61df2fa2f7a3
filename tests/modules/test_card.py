"""The card says where a module is from, what became of it and what was measured."""

from __future__ import annotations

import pytest
import yaml

from modules.formats.modules import made
from peftport.modules import HostName, formats
from peftport.modules.card import add_figures
from peftport.porting import port
from tiny_runs import host_in

FIGURES = {"condition": "ported", "host": "a|b", "task": "t", "accuracy": 0.51234, "n_test": 48}


@pytest.fixture
def folder(tiny_host, tiny_continuation, tmp_path):
    """A ported module of which one tensor was missing, with names that could be markup."""
    donor = made(host_in(tiny_host("t5")), "lora")
    receiver = host_in(tiny_continuation("t5")).geometry
    name = HostName(name="other/`host`: x", fingerprint="f" * 64)
    record = donor.record.model_copy(update={"task": {**donor.record.task, "name": "<b>sst</b>"}})
    donor = type(donor)(record, dict(list(donor.tensors.items())[1:]))
    ported = port(donor, receiver, name, "copy", seed=3, allow_partial=True)
    account = ported.account.record()
    formats.save(ported.module, tmp_path / "module", "peft", account, [FIGURES])
    return tmp_path / "module"


def test_it_states_origin_method_account_and_figures(folder, tiny_host):
    text = (folder / "README.md").read_text()
    host = host_in(tiny_host("t5"))
    assert "- made for: `other/'host': x` (weights `ffffffffffffffff`)" in text
    assert f"- trained on: `{host.folder}` (weights `{host.fingerprint[:16]}`)" in text
    origin = f"From `{host.folder}` (weights `{host.fingerprint[:16]}`), trained for"
    assert f"{origin} `<b>sst</b>`, by `copy`, seed 3.\n" in text
    assert "initialised; each one is in `account.json`" in text
    assert "`encoder.0.self.q.lora_A` initialised: the module has no such tensor" in text
    assert "- training: steps 5, learning_rate 0.01\n" in text
    assert "PeftModel.from_pretrained(host, FOLDER)" in text
    assert text.endswith("| ported | a\\|b | t | 0.512 | - | - | - | - | 48 |\n")


def test_its_header_is_what_hubs_read_whatever_the_names_are(folder):
    _, header, body = (folder / "README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(header)
    assert found["base_model"] == "other/`host`: x"
    assert found["library_name"] == "peft"
    assert body.strip().startswith("# lora for `<b>sst</b>` on `other/'host': x`")


def test_figures_are_added_row_by_row_and_nothing_else_changes(folder):
    before = (folder / "README.md").read_text()
    add_figures(folder, FIGURES | {"accuracy": 0.75})
    add_figures(folder, FIGURES | {"auroc": None})
    after = (folder / "README.md").read_text()
    assert after.startswith(before)
    assert [line.split(" | ")[3] for line in after.splitlines()[-3:]] == ["0.512", "0.750", "0.512"]


def test_a_folder_without_a_card_gets_one(tmp_path):
    add_figures(tmp_path, FIGURES)
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert lines[0] == "## Measured"
    assert lines[-1].startswith("| ported | a\\|b | t | 0.512 |")


def test_what_was_never_measured_says_how(tiny_host, tmp_path):
    formats.save(made(host_in(tiny_host("bert")), "houlsby"), tmp_path / "module", "adapterhub")
    text = (tmp_path / "module" / "README.md").read_text()
    assert text.endswith("Nothing yet: `peftport test FOLDER ... --to-card`.\n")
    assert "## Port" not in text
    assert "from adapters import BertAdapterModel" in text
    add_figures(tmp_path / "module", FIGURES)
    assert "Nothing yet" not in (tmp_path / "module" / "README.md").read_text()
