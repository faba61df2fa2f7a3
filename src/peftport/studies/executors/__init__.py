"""Executors: where packs are worked on. Found by name; each is made `from_options`."""

from __future__ import annotations

from dataclasses import dataclass

from peftport.registry import Registry

EXECUTORS = Registry(
    "executor",
    {
        "local": "peftport.studies.executors.local:LocalExecutor",
        "ray": "peftport.studies.executors.ray:RayExecutor",
    },
    group="peftport.executors",
    kind="builtins:object",
)


@dataclass(frozen=True)
class ExecutorOptions:
    """What a user says of where packs are worked on; None leaves it to the executor.

    Attributes:
        workers: packs worked on at the same time.
        threads: threads of each.
        address: of a cluster.
        gpus: GPUs of each pack, fractions allowed.
    """

    workers: int | None = None
    threads: int | None = None
    address: str | None = None
    gpus: float | None = None
