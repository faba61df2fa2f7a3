"""`peftport doctor` says what is here, and what is missing for what."""

from __future__ import annotations

import json

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


def test_what_is_missing_is_told_with_what_to_do(call, monkeypatch):
    known = subject._version
    monkeypatch.setattr(subject, "_version", lambda name: None if name == "ray" else known(name))
    code, text, _ = call("doctor")
    assert code == 0
    assert "no   study run --executor ray: pip install 'peftport[ray]'" in text
    assert "yes  verify folders of peft" in text
    assert "  ray              -" in text
