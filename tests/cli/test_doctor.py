"""`peftport doctor` says what is here, and what is missing for what."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import peftport.api.doctor as subject


def test_versions_devices_and_caches_are_told(call, tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTPORT_CACHE", str(tmp_path))
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "some").write_bytes(b"12345")
    code, text, error = call("doctor", "--json")
    assert code == 0, error
    found = json.loads(text)
    assert found["versions"]["torch"]
    assert found["devices"][0]["memory"] > 0
    tokens = {"what": "tokens", "folder": str(tmp_path / "tokens"), "bytes": 5}
    assert tokens in found["caches"]


def without(monkeypatch, *packages: str) -> None:
    """As on a machine where these are not installed."""
    known = subject.version

    def version(name: str) -> str:
        if name in packages:
            raise PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(subject, "version", version)


def test_what_is_missing_is_told_with_what_to_do(call, monkeypatch):
    without(monkeypatch, "ray")
    code, text, _ = call("doctor")
    assert code == 0
    assert "no   study run --executor ray: pip install 'peftport[ray]'" in text
    assert "yes  verify folders of peft" in text
    assert "  ray              -" in text


def test_whatever_an_extra_brings_is_told_when_it_is_missing(call, monkeypatch):
    content = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    extras = tomllib.loads(content)["project"]["optional-dependencies"]
    brought = {
        canonicalize_name(Requirement(line).name): extra
        for extra, lines in extras.items()
        if extra not in ("dev", "docs")
        for line in lines
    }
    without(monkeypatch, *brought)
    found = json.loads(call("doctor", "--json")[1])
    assert brought.keys() <= found["versions"].keys()
    told = [each["do"] for each in found["commands"] if not each["ready"]]
    assert {f"pip install 'peftport[{extra}]'" for extra in brought.values()} <= set(told)
