"""Executors: where packs are worked on. Found by name."""

from __future__ import annotations

from peftport.registry import Registry

EXECUTORS = Registry("executor", {"local": "peftport.studies.executors.local:LocalExecutor"})
