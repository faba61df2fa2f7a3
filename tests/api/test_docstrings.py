"""Every public name has a docstring that says its arguments, errors and a running example."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
from pathlib import Path
from types import FunctionType

import pytest

import peftport as pp
from peftport.api.result import Result

pytestmark = pytest.mark.long

FUNCTIONS = [name for name in pp.__all__ if isinstance(getattr(pp, name), FunctionType)]
CLASSES = [name for name in pp.__all__ if inspect.isclass(getattr(pp, name))]
RESULTS = [name for name in CLASSES if issubclass(getattr(pp, name), Result)]


def parts(name: str) -> list[doctest.DocTest]:
    """The examples of a public name; of a class, those of its own methods too."""
    found = doctest.DocTestFinder().find(getattr(pp, name), f"peftport.{name}", globs={"pp": pp})
    return [each for each in found if each.examples]


@pytest.fixture
def place(lab_module, tmp_path, monkeypatch):
    """A current folder with `modules/films` and `texts.txt` in it, in which the examples run."""
    shutil.copytree(lab_module, tmp_path / "modules" / "films")
    (tmp_path / "texts.txt").write_text("\n\n".join(f"film {n} was fine" for n in range(99)))
    monkeypatch.chdir(tmp_path)


def run(found: doctest.DocTest) -> None:
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(found, out=told.append).failed == 0, "".join(told)


def test_the_example_of_the_package_runs(place):
    for found in doctest.DocTestFinder(recurse=False).find(pp, "peftport"):
        assert len(found.examples) > 5
        run(found)


def test_the_example_of_the_readme_runs(place):
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    run(doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0))


@pytest.mark.parametrize("name", [*FUNCTIONS, "Study"])
def test_the_examples_of_a_name_run(name, place):
    found = parts(name)
    assert found, f"{name} has no example"
    for each in found:
        run(each)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_its_arguments_and_errors(name):
    text = inspect.getdoc(getattr(pp, name)) or ""
    given = [p for p in inspect.signature(getattr(pp, name)).parameters]
    if given and given != ["host"]:
        assert "Raises:" in text
        missing = [each for each in given if each not in text]
        assert not missing


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_and_its_members_say_what_they_are(name):
    kind = getattr(pp, name)
    assert inspect.getdoc(kind)
    for member, value in vars(kind).items():
        if not member.startswith("_") and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_told_in_words_in_json_and_in_notebooks(name):
    kind = getattr(pp, name)
    assert callable(kind.to_dict)
    assert callable(kind._repr_html_)
    assert kind.__str__ is not object.__str__
