"""Ports in processes of their own, so that what each takes can be measured.

Memory is what the process's resident memory rose by at its highest, from before any host is loaded
until the module is made, and on a GPU what was allocated there too. The libraries, which are
imported before, do not count; hosts do. Time is that of the same stretch.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from safetensors.torch import load, save

from peftport.errors import PeftportError, RunFailed
from peftport.hosts.fingerprint import fingerprint
from peftport.memory import resident_peak
from peftport.modules import HostName, Module, Record
from peftport.porting import METHODS, port, port_method
from peftport.porting.means import Means, origin_side, side
from peftport.porting.port import needs_of
from peftport.progress import Portion
from peftport.studies.executors.local import die_with_parent
from peftport.studies.processes import ended, started
from peftport.training.clock import now

# What hosts and methods import when they are first used: it is neither to count as a port's nor to
# be imported by every process anew.
for _name in (
    *("transformers.generation.utils", "transformers.models.auto.tokenization_auto"),
    *("transformers.modeling_layers", "peftport.porting.map_based", "peftport.training.trajectory"),
):
    importlib.import_module(_name)


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PortJob:
    """One port, as a process of its own needs it.

    donor: the module. receiver: the receiving host's name. method, options, seed: as for `port`.
    texts, source: as in `Means`.
    """

    donor: Module
    receiver: str
    method: str
    options: Mapping[str, Any]
    seed: int
    texts: tuple[str, ...] = ()
    source: str = ""
    device: str = "cpu"


@dataclass(frozen=True)
class Taken:
    """A ported module, the seconds that the port took and its bytes of memory."""

    module: Module
    seconds: float
    memory: float


@dataclass(frozen=True)
class _Share:
    """On the way to an answer: the share of a port that is done, and what comes next."""

    done: float
    what: str


@dataclass(frozen=True)
class _Notice:
    """On the way to an answer: what the port has to say."""

    level: int
    text: str


class _Telling(logging.Handler):
    """Passes on what is said to the process that waits."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        self._pipe.send(_Notice(record.levelno, record.getMessage()))


def warm() -> None:
    """Begin to import what the processes need, while something else is done."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


def port_apart(job: PortJob, progress: Portion = lambda _share, _what: None) -> Taken:
    """Port in a process of its own.

    Args:
        progress: told, now and then, what share of the port is done and what comes next.

    Raises:
        BadInput: as `port` does.
        RunFailed: the process ended, for instance because it ran out of memory.
    """
    context, order = _context(), (_packed(job), METHODS.place(job.method), torch.get_num_threads())

    def begin() -> tuple[Any, Connection]:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, *order), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    process, ours = started(begin)
    try:
        while isinstance(answer := ours.recv(), _Share | _Notice):
            if isinstance(answer, _Notice):
                _log.log(answer.level, "%s", answer.text)
            else:
                progress(answer.done, answer.what)
    except EOFError:
        process.join()
        by_server = context.get_start_method() == "forkserver"
        raise RunFailed(f"port by {job.method}: {_ended(process.exitcode, by_server)}") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(answer, PeftportError):
        raise answer
    record, tensors, seconds, memory = answer
    return Taken(Module(Record.model_validate_json(record), load(tensors)), seconds, memory)


def _ended(code: int | None, by_server: bool) -> str:
    """Why a process that gave no answer ended, and what to change."""
    if code == -signal.SIGKILL:
        return (
            "the system killed its process (signal 9), as Linux does when memory runs out. Give it "
            "fewer --texts, fewer tokens (a method's `places`, as in procrustes:places=1024), or "
            "end what else is running."
        )
    return f"its process gave no module: {ended(code, by_server)}."


def _context() -> Any:
    """A fork server where there is one: torch is imported once."""
    known = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")
    if "forkserver" in known:
        context.set_forkserver_preload(["peftport.studies.executors.preload", __name__])
    return context


def _packed(job: PortJob) -> tuple[Any, ...]:
    """A job as plain bytes and words: torch would share tensors' memory between processes."""
    rest = (job.receiver, job.method, job.options, job.seed, job.texts, job.source, job.device)
    return (job.donor.record.model_dump_json(), save(job.donor.tensors), *rest)


def _work(pipe: Connection, packed: tuple[Any, ...], place: str, threads: int) -> None:
    """The life of a process: one port, and its answer or its error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever waits for it decides
    die_with_parent()
    logger = logging.getLogger("peftport")
    logger.setLevel(logging.ERROR)  # whoever waits has noticed what is to be said of the hosts
    logger.handlers[:], logger.propagate = [_Telling(pipe)], False
    torch.set_num_threads(threads)
    record, tensors, *rest = packed
    job = PortJob(Module(Record.model_validate_json(record), load(tensors)), *rest)
    METHODS.add(job.method, place)  # one that this process alone was told of
    try:
        pipe.send(_measured(job, lambda done, what: pipe.send(_Share(done, what))))
    except PeftportError as error:
        pipe.send(error)
    except Exception as error:
        pipe.send(RunFailed(f"port by {job.method}: {type(error).__name__}: {error}"))


def _measured(job: PortJob, progress: Portion) -> tuple[str, bytes, float, float]:
    method, receiver = port_method(job.method), side(job.receiver, job.device)
    shapes = {name: tuple(tensor.shape) for name, tensor in job.donor.tensors.items()}
    request = method.request(job.donor.record, shapes, receiver.geometry, job.options)
    means = None
    if needs_of(method, request):
        origin = origin_side(job.donor.record.host, job.device)
        means = Means(origin, receiver, job.texts, job.source, progress)
    name = HostName(name=job.receiver, fingerprint=fingerprint(receiver.folder))
    logging.getLogger("peftport").setLevel(logging.WARNING)  # of the port nobody else knows
    before, begun = _peak(), now(job.device)
    ported = port(
        job.donor,
        receiver.geometry,
        name,
        job.method,
        options=job.options,
        seed=job.seed,
        means=means,
    )
    seconds, memory = now(job.device) - begun, _peak() - before
    module = ported.module
    tensors = {n: tensor.cpu().contiguous() for n, tensor in module.tensors.items()}
    return module.record.model_dump_json(), save(tensors), seconds, memory


def _peak() -> float:
    """Bytes at their highest so far: resident memory, and what a GPU was asked for."""
    return resident_peak() + (
        torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    )
