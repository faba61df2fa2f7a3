"""What workers do in tests of executors: no torch, and faults on demand.

Each entry reads its orders from the technique's options of the work.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.studies.work import Answers, LaneResult, PackReading, Work


def work(number: int = 0, **orders: Any) -> Work:
    """A pack of one lane and the budgets 0 and 5, with orders for `obey`."""
    return Work(
        number=number,
        host=orders.pop("host", "a"),
        host_name="a",
        host_mark="",
        tokenizer="",
        task="films",
        task_name="films",
        task_mark="",
        technique="lora",
        options=orders,
        training={},
        limit_train=None,
        split="test",
        limit_test=None,
        texts=None,
        budgets=(0, 5),
        starts=(),
        tests={0: (0,), 5: (0,)},
        keeps={},
    )


def obey(given: Work, threads: int) -> Iterator[PackReading]:
    """Do what the options say, between the first reading and the second."""
    facts = {
        "pid": os.getpid(),
        "threads": threads,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }
    yield PackReading(given.number, 0, (LaneResult(0, facts),))
    match given.options.get("order"):
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "die once":
            mark = Path(given.options["mark"])
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "bad input":
            raise BadInput("the host is gone")
        case "error":
            raise ZeroDivisionError("some reason")
        case "no memory":
            raise MemoryError("3 GB wanted")
        case "sleep":
            time.sleep(given.options["seconds"])
        case "send much":
            yield PackReading(given.number, 1, (LaneResult(0, answers=Answers(bytes(10**7))),))
    yield PackReading(given.number, 5, (LaneResult(0, facts),))
