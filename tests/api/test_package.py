"""The package as it is imported: at once, typed, and with nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import peftport as pp

HEAVY = ("torch", "transformers", "pandas", "numpy", "pydantic", "typer")


def test_it_is_imported_at_once_and_imports_nothing_heavy():
    code = (
        "import sys, time\nbegun = time.process_time()\nimport peftport\n"
        f"print(time.process_time() - begun, [n for n in {HEAVY!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.split(" ", 1)
    assert float(seconds) < 0.1
    assert heavy.strip() == "[]"


def test_every_public_name_is_there_and_told_to_type_checkers():
    assert sorted(pp.__all__) == pp.__all__
    source = Path(pp.__file__).read_text()
    typed = source[source.index("if TYPE_CHECKING:") : source.index("__version__")]
    for name in pp.__all__:
        assert getattr(pp, name) is not None
        assert name in typed
    assert set(pp.__all__) <= set(dir(pp))
    assert Path(pp.__file__).with_name("py.typed").is_file()


def test_a_name_that_does_not_exist_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'prot'"):
        pp.prot  # noqa: B018
