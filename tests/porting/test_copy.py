"""Copy: between hosts of other depth layers go by their partners, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modules.formats.modules import made
from peftport.errors import BadInput
from peftport.hosts.host import Host
from peftport.modules import HostName, Module
from peftport.porting import PortedModule, port
from tiny_runs import host_in
from twins import write_twin

HERE = HostName(name="here", fingerprint="")
TEXT = "a plain film of two hours"


@pytest.fixture(scope="module")
def deeper(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The tiny Llama with an idle layer after each of its own."""
    return host_in(write_twin("deeper", "llama", tmp_path_factory.mktemp("deeper")))


def copied(module: Module, receiver: Host, **options: Any) -> PortedModule:
    return port(module, receiver.geometry, HERE, "copy", options=options)


def logits(host: Host, module: Module) -> torch.Tensor:
    from peftport.techniques import technique

    rows = host.tokenizer([TEXT], return_tensors="pt")
    lanes = {name: tensor[None] for name, tensor in module.tensors.items()}
    with torch.no_grad(), technique(module.technique).attach(host, module.config, lanes):
        return host.model(input_ids=rows["input_ids"]).logits


@pytest.mark.parametrize("case", ["houlsby", "compacter", "lora"])
def test_a_deeper_host_does_the_same_where_its_own_layers_are_served(
    case: str, tiny_host: Any, deeper: Host
) -> None:
    host = host_in(tiny_host("llama"))
    module = made(host, case)
    there = copied(module, deeper, layers="every")
    assert torch.allclose(logits(deeper, there.module), logits(host, module), atol=1e-5)
    entries = {entry.target: entry for entry in there.account.entries}
    idle = [entry for name, entry in entries.items() if name and name.startswith("decoder.1.")]
    moved = [entry for name, entry in entries.items() if name and name.startswith("decoder.2.")]
    assert idle and {entry.action for entry in idle} == {"initialised"}
    assert moved and all(e.source and e.source.startswith("decoder.1.") for e in moved)

    back = copied(there.module, host, layers="every")
    assert all(back.module.tensors[name].equal(module.tensors[name]) for name in module.tensors)
    assert {e.action for e in back.account.entries} == {"copied", "dropped"}


@pytest.mark.parametrize("how", ["proportional", "every"])
def test_with_any_pairing_hosts_of_one_depth_are_copied_bit_for_bit(
    how: str, tiny_host: Any
) -> None:
    host = host_in(tiny_host("t5"))
    module = made(host, "lora")
    found = copied(module, host, layers=how)
    assert all(found.module.tensors[n].equal(t) for n, t in module.tensors.items())


def test_without_a_pairing_a_host_of_other_depth_is_refused(tiny_host: Any, deeper: Host) -> None:
    module = made(host_in(tiny_host("llama")), "lora")
    with pytest.raises(
        BadInput, match="port by copy: the receiving host needs 8 tensors that the module has not"
    ):
        copied(module, deeper)


def test_a_pairing_does_not_excuse_other_widths(tiny_host: Any) -> None:
    module = made(host_in(tiny_host("llama")), "lora")
    with pytest.raises(BadInput, match="port by copy: "):
        copied(module, host_in(tiny_host("gpt2")), layers="proportional")


def test_a_prefix_is_refused_by_a_deeper_host_and_taken_by_a_shallower_one(
    tiny_host: Any, deeper: Host
) -> None:
    host = host_in(tiny_host("llama"))
    with pytest.raises(BadInput, match="copy: does not apply: the receiving host is deeper"):
        copied(made(host, "prefix"), deeper, layers="proportional")
    there = copied(made(deeper, "prefix"), host, layers="proportional")
    assert {entry.action for entry in there.account.entries} == {"copied", "dropped"}
