"""The process in which chat templates run: they are programs of whoever wrote them.

It is started by `peftport.limits` as a script, so that it loads nothing that a template does not
need, and answers each line of JSON with one. Its memory is limited where the system tells how much
there is (Linux).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/statm")
_LOOK = 1.0
"""Seconds from one look at whether who asks is still there to the next."""
_LONGEST = 1 << 24
"""Characters of a chat, of more than any host reads."""


def _limit_memory(more: int) -> None:
    if _STATUS.exists():
        import resource

        wanted = int(_STATUS.read_text().split()[0]) * resource.getpagesize() + more
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most == resource.RLIM_INFINITY or wanted < most:
            resource.setrlimit(resource.RLIMIT_AS, (wanted, most))


def _written(writer: Any, asked: dict[str, Any]) -> dict[str, str]:
    """The chat that was asked for, or why there is none."""
    try:
        found = writer.apply_chat_template(
            asked["turns"], chat_template=asked["template"], tokenize=False, **asked["options"]
        )
        if len(found) > _LONGEST:
            raise MemoryError
    except MemoryError:
        return {"error": "it takes too much memory"}
    except Exception as error:
        return {"error": str(error) or type(error).__name__}
    return {"text": found}


def _end_with(parent: int) -> None:
    """End with the process that asks, also in the middle of a template."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(0)


def _answer() -> None:
    """Answer until the process that asks is done, however it ends."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    from transformers import PreTrainedTokenizerBase

    writer = PreTrainedTokenizerBase()
    _limit_memory(int(sys.argv[1]))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_written(writer, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    _answer()
