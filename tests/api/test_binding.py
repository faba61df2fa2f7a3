"""Whether a module is made for a host, found out without fetching anything for it."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from modules.formats.modules import made
from peftport.api.binding import made_for
from peftport.modules import HostName
from tiny_runs import host_in


@pytest.mark.parametrize(("cached", "expected"), [("llama", True), ("gpt2", False), (None, None)])
def test_a_host_that_files_name_counts_as_far_as_it_is_on_this_machine(
    cached, expected, tiny_host, monkeypatch
):
    def snapshot(name, revision=None, local_files_only=False):
        assert local_files_only, "a whole host is not fetched to be compared"
        if cached is None:
            raise LocalEntryNotFoundError("it is not in the cache")
        return str(tiny_host(cached))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    host = host_in(tiny_host("llama"))
    theirs = HostName(name="some/host", fingerprint="")
    record = made(host, "lora").record.model_copy(update={"host": theirs})
    assert made_for(record, host.fingerprint) is expected
