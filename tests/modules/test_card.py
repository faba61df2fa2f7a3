"""The card says where a module is from, what became of it and what was measured."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from modules.formats.modules import made
from peftport.errors import BadInput
from peftport.modules import HostName, formats, load_module
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


def test_a_port_of_what_was_ported_tells_both(folder, tiny_host, tiny_continuation, tmp_path):
    module = load_module(folder)
    there = HostName(name="third", fingerprint="a" * 64)
    receiver = host_in(tiny_continuation("t5")).geometry
    again = port(module, receiver, there, "copy", seed=4, allow_partial=True).module
    assert again.record.port["before"]["seed"] == 3
    formats.save(again, tmp_path / "again", "adapterhub")
    text = (tmp_path / "again" / "README.md").read_text()
    first, second = (text.index(f"by `copy`, seed {seed}") for seed in (4, 3))
    assert first < text.index("Before that it was ported:") < second


@pytest.mark.parametrize(
    "said", [{}, {"method": "copy"}, {"method": "copy", "from": "x"}, {"before": {"x": 1}}]
)
def test_a_record_whose_port_cannot_be_told_is_refused(said, tiny_host, tmp_path):
    module = made(host_in(tiny_host("t5")), "lora")
    formats.save(module, tmp_path / "m", "peftport")
    record = tmp_path / "m" / "module.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"port": said}))
    with pytest.raises(BadInput, match=r"module\.json"):
        load_module(tmp_path / "m")


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


ROW = "| a\\|b | 7 | 0.1 |"
AFTER = """
A word on the table.

## Licence

Apache-2.0. | not | a | table |

```
## Measured
```
"""


def test_what_follows_the_table_stays_as_it_was(folder):
    path = folder / "README.md"
    before = path.read_text()
    path.write_text(before + AFTER)
    add_figures(folder, FIGURES | {"accuracy": 0.75})
    add_figures(folder, FIGURES | {"accuracy": 0.25})
    text = path.read_text()
    assert text.startswith(before) and text.endswith(AFTER)
    rows = text[len(before) : -len(AFTER)].splitlines()
    assert [row.split(" | ")[3] for row in rows] == ["0.750", "0.250"]


def test_a_section_without_a_table_keeps_its_words(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("# Mine\n\n## Measured\n\nBy hand: good.\n\n## Licence\n\nMIT\n")
    add_figures(tmp_path, FIGURES)
    text = path.read_text()
    assert text.startswith("# Mine\n\n## Measured\n\n| condition |")
    assert "| 48 |\n\nBy hand: good.\n\n## Licence\n\nMIT\n" in text


def test_a_card_without_the_section_gets_it_at_its_end(tmp_path):
    (tmp_path / "README.md").write_text("# Mine\r\n\r\nWords.")
    add_figures(tmp_path, FIGURES)
    text = (tmp_path / "README.md").read_bytes().decode()
    assert text.startswith("# Mine\r\n\r\nWords.\r\n\r\n## Measured\r\n\r\n| condition |")
    assert text.count("\n") == text.count("\r\n")


def test_a_table_of_other_columns_keeps_them(tmp_path):
    old = ("## Measured", "", "| condition | bleu | accuracy |", "| --- | --- | --- |", ROW, "")
    (tmp_path / "README.md").write_text("\n".join(old))
    add_figures(tmp_path, FIGURES)
    head, line, first, second = (tmp_path / "README.md").read_text().splitlines()[2:]
    assert head.startswith("| condition | bleu | accuracy | host | task |")
    assert head.count("|") == line.count("|") == second.count("|") - 1 == first.count("|") - 1
    assert first.startswith("| a\\|b | 7 | 0.1 | - | - |")
    assert second.startswith("| ported | - | 0.512 | a\\|b | t |")


def test_no_row_is_lost_when_many_write_at_the_same_time(folder):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: add_figures(folder, FIGURES | {"n_test": i}), range(100, 140)))
    rows = [line for line in (folder / "README.md").read_text().splitlines() if " | 1" in line]
    assert sorted(int(row.split(" | ")[-1].rstrip(" |")) for row in rows) == list(range(100, 140))
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_card_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"README\.md is not UTF-8"):
        add_figures(tmp_path, FIGURES)
