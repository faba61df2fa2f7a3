"""A Python that has imported already what takes it seconds, for tests that start it often.

It is a process which imports the modules once, and forks whenever the program at `ReadyPython.path`
is called: what runs then is a process of its own, called as one calls Python.

    python ready_python.py SOCKET MODULE...    is the process that forks
"""

from __future__ import annotations

import json
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

_CALL = """#!{python}
import json, os, socket, sys
asked = dict(arguments=sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ))
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    with server.makefile("rw") as file:
        file.write(json.dumps(asked) + "\\n")
        file.flush()
        told = json.loads(file.readline())
sys.stdout.write(told["out"])
sys.stderr.write(told["error"])
sys.exit(told["code"])
"""


class ReadyPython:
    """A context, within which `path` is a program to be called as Python.

    Args:
        real: the Python that it is.
        modules: what it has imported.
    """

    def __init__(self, real: str | Path, *modules: str) -> None:
        self._command = [real, __file__]
        self._modules = modules

    def __enter__(self) -> ReadyPython:
        # Sockets have paths of at most 107 letters, which pytest's folders can be too long for.
        self._folder = tempfile.TemporaryDirectory()
        place, self.path = (Path(self._folder.name) / name for name in ("socket", "python"))
        command = [*self._command, place, *self._modules]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, **pipes)
        assert self._process.stdout.readline() == "ready\n"
        self.path.write_text(_CALL.format(python=sys.executable, socket=str(place)))
        self.path.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._folder.cleanup()


def main(place: str, *modules: str) -> None:
    """Import the modules, and fork for everyone who calls, one after another, until the end of
    standard input."""
    for name in modules:
        import_module(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
            caller, _ = server.accept()
            with caller, caller.makefile("rw") as file:
                file.write(json.dumps(_run(**json.loads(file.readline()))) + "\n")


def _run(arguments: list[str], folder: str, environment: dict[str, str]) -> dict[str, object]:
    """What a process says and how it ends, called with a program or with `-c`."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(error.fileno(), 2)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            _become(arguments)
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        error.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return {"out": out.read(), "error": error.read(), "code": code}


def _become(arguments: list[str]) -> None:
    """Run the program, and end as Python does."""
    code: object = 1
    try:
        if arguments[0] == "-c":
            sys.path[0], sys.argv = "", ["-c", *arguments[2:]]
            exec(arguments[1], {"__name__": "__main__"})
        else:
            sys.path[0], sys.argv = str(Path(arguments[0]).parent), arguments
            runpy.run_path(arguments[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code
        if not isinstance(code, int):
            print(code or "", end="\n" if code else "", file=sys.stderr)
            code = int(code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # all that is left is to take apart what was imported, which takes seconds
