"""Uploads by huggingface_hub's own client, to a local server that answers as the hub does."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from modules.formats.modules import made
from peftport.modules import formats
from tiny_runs import host_in


class Hub(BaseHTTPRequestHandler):
    """Repositories that can be made and committed to; everything is kept in `files`."""

    files: ClassVar[dict[str, bytes]] = {}
    made: ClassVar[list[dict[str, Any]]] = []
    refuse: ClassVar[bool] = False

    def do_POST(self) -> None:
        """Make a repository, say how files are to be sent, and take a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if type(self).refuse or self.headers.get("Authorization") != "Bearer hf_of_the_test":
            self.answer({"error": "no"}, 403)
        elif self.path.endswith("/api/repos/create"):
            self.made.append(json.loads(body))
            self.answer({"url": f"{self.base}/me/bot", "name": "me/bot"})
        elif self.path.endswith("/api/validate-yaml"):
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            told = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in asked
            ]
            self.answer({"files": told})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                each = json.loads(line)
                if each["key"] == "file":
                    content = base64.b64decode(each["value"]["content"])
                    self.files[each["value"]["path"]] = content
            commit = {"commitUrl": f"{self.base}/me/bot/commit/abc", "commitOid": "abc"}
            self.answer({**commit, "success": True})
        else:
            self.answer({"error": f"nothing at {self.path}"}, 404)

    def do_GET(self) -> None:
        """Say of a repository what is in it."""
        self.answer({"id": "me/bot", "sha": "abc", "siblings": [], "private": False, "tags": []})

    def answer(self, content: Any, code: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[dict[str, str]]:
    """The environment in which the server is the hub."""
    Hub.files.clear()
    Hub.made.clear()
    Hub.refuse = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_TOKEN": "hf_of_the_test",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    server.shutdown()
    server.server_close()
    thread.join()


def peftport(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "peftport", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def asked(tiny_host, tiny_continuation, tmp_path) -> list[object]:
    formats.save(made(host_in(tiny_host("llama")), "lora"), tmp_path / "m", "peft")
    out = ("--out", tmp_path / "out", "--no-verify")
    return ["port", tmp_path / "m", "--host", tiny_continuation("llama"), *out]


def test_a_ported_module_is_uploaded_with_its_card(hub, asked, tmp_path):
    done = peftport(hub, *asked, "--push-to-hub", "me/bot", "--private")
    assert done.returncode == 0, done.stderr
    assert "uploaded: http://127.0.0.1:" in done.stderr
    assert Hub.made[0]["name"] == "bot"
    assert Hub.made[0]["organization"] == "me"
    assert Hub.made[0]["visibility"] == "private"
    sent = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert Hub.files == sent
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= sent.keys()


def test_a_refusal_is_told_and_the_folder_stays(hub, asked, tmp_path):
    Hub.refuse = True
    done = peftport(hub, *asked, "--push-to-hub", "me/bot")
    assert done.returncode == 1
    assert "error: --push-to-hub me/bot: " in done.stderr
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_a_name_that_is_none_is_bad_input(call, asked):
    code, _, error = call(*asked, "--push-to-hub", "me/bot/twice")
    assert code == 2
    assert "error: --push-to-hub 'me/bot/twice'" in error
