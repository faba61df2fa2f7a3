"""What the package says of itself holds: its dependencies, its pins, its rooms."""

from __future__ import annotations

import ast
import os
import re
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "peftport"
FILES = sorted(SOURCE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imports(file: Path) -> set[str]:
    """Dotted names of all modules a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found.add(node.module)
    return found


def names(requirements: list[str]) -> set[str]:
    """Canonical names of the distributions in a list of requirements."""
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imported_distributions() -> set[str]:
    """The distributions whose modules the package imports."""
    providers = metadata.packages_distributions()
    tops = {name.partition(".")[0] for file in FILES for name in imports(file)}
    outside = tops - set(sys.stdlib_module_names) - {"peftport"}
    return {canonicalize_name(providers[top][0]) for top in outside}


def test_dependencies_are_what_the_package_imports():
    required = names(PROJECT["dependencies"])
    optional = names([r for extra in PROJECT["optional-dependencies"].values() for r in extra])
    used = imported_distributions()
    assert required <= used
    assert used <= required | optional


def test_what_only_an_extra_brings_is_never_imported_with_the_package():
    required = names(PROJECT["dependencies"])
    providers = metadata.packages_distributions()
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                top = module.partition(".")[0]
                if top != "peftport" and top not in sys.stdlib_module_names:
                    assert canonicalize_name(providers[top][0]) in required, f"{file}: {module}"


def pins(file: str = "constraints.txt") -> dict[str, Version]:
    """Canonical name and version of every line of a file of constraints."""
    lines = (ROOT / file).read_text().splitlines()
    split = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in split}


def test_every_pin_is_within_what_the_project_asks_for():
    extras = PROJECT["optional-dependencies"]
    tested = [r for extra in extras.values() for r in extra]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *tested]):
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_the_lowest_versions_that_are_tested_are_those_that_are_admitted():
    extras = PROJECT["optional-dependencies"]
    tested = [line for name in ("peft", "gguf", "hub", "completion") for line in extras[name]]
    asked = map(Requirement, [*PROJECT["dependencies"], *tested])
    lowest = {canonicalize_name(each.name): lower_bound(each) for each in asked}
    found = pins("constraints-lowest.txt")
    # Of torch no other version than that of all tests is at hand.
    assert found.pop("torch") == pins()["torch"] >= lowest.pop("torch")
    assert found == lowest


def lower_bound(requirement: Requirement) -> Version:
    """The lowest version that a requirement admits."""
    (found,) = (part.version for part in requirement.specifier if part.operator == ">=")
    return Version(found)


def test_all_that_dev_and_docs_bring_is_pinned_and_nothing_else():
    pinned, found = pins(), installed()
    if not all(found.get(name) == version for name, version in pinned.items()):
        reason = "this environment was not made from constraints.txt"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    extras = PROJECT["optional-dependencies"]
    waiting = [*PROJECT["dependencies"], *extras["dev"], *extras["docs"]]
    needed, followed = set(), set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        # What one asks for without extras another may ask for with them.
        asked = (name, frozenset(requirement.extras))
        # What a distribution names and this platform does not get is not installed.
        if name in found and asked not in followed:
            needed.add(name)
            followed.add(asked)
            waiting += wanted_by(requirement)
    assert needed == set(pinned)


def installed() -> dict[str, Version]:
    """Canonical names and public versions of all distributions in this environment; those that a
    library puts on the path when it is imported, as setuptools does with its own, do not count."""
    places = [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]
    return {
        canonicalize_name(found.name): Version(Version(found.version).public)
        for found in metadata.distributions(path=places)
    }


def wanted_by(requirement: Requirement) -> list[str]:
    """What a distribution requires here, with the extras that are asked for."""
    extras = [*requirement.extras, ""]
    listed = [Requirement(line) for line in metadata.requires(requirement.name) or ()]
    return [
        str(r)
        for r in listed
        if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)
    ]


def test_the_rooms_that_are_told_of_are_those_that_are_held_apart():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = config["contracts"]
    _, *rooms, _ = contract["layers"]
    table = re.findall(r"^\| `(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert table == rooms[::-1]


def decided_by(file: Path) -> set[str]:
    """Words that a file compares something with, or has a table of."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        asked: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            # A geometry's record has a "prefix" that is no technique.
            asked = [k for k in node.keys if k is not None and ast.unparse(k) != "'prefix'"]
        elif isinstance(node, ast.MatchValue):
            asked = [node.value]
        for each in asked:
            within = each.elts if isinstance(each, ast.Tuple | ast.Set | ast.List) else [each]
            found |= {str(part.value) for part in within if isinstance(part, ast.Constant)}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_what_a_technique_or_a_family_does_is_said_by_its_folder_or_its_data_file(file):
    from peftport.hosts import families
    from peftport.techniques import TECHNIQUES

    asked = decided_by(file)
    assert not asked & set(families())
    # How adapters calls the start of its LoRA's factors, and the method itself, is that file's.
    if file.parent != SOURCE / "techniques" and "techniques/lora" not in file.as_posix():
        assert not asked & set(TECHNIQUES)


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if SOURCE / "techniques" not in file.parents],
    ids=lambda file: str(file.relative_to(SOURCE)),
)
def test_no_other_room_names_a_technique_or_looks_into_its_folder(file):
    from peftport.techniques import TECHNIQUES

    own = set(TECHNIQUES)
    # Before the names of an encoder's layers, in a model with a head, there is a prefix, too.
    words = own - {"prefix"} if file.parent == SOURCE / "hosts" else own
    said = {n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant)}
    assert not said & words
    assert not {n for n in imports(file) if set(n.split(".")[2:3]) & own and ".techniques." in n}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_file_can_be_read_in_one_sitting(file):
    assert len(file.read_text().splitlines()) < 400


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_what_a_function_does_fits_a_screen(file):
    """Its signature and what is said of it stand above, and may be longer."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
            assert node.end_lineno - first.lineno < 50, node.name


def test_the_version_is_said_alike_everywhere():
    import peftport

    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == PROJECT["version"] == peftport.__version__


@pytest.mark.parametrize(
    "name", ["CITATION.cff", *(f".github/ISSUE_TEMPLATE/{n}.yml" for n in ("fault", "module"))]
)
def test_files_for_the_forge_are_yaml(name):
    import yaml

    assert yaml.safe_load((ROOT / name).read_text())


def public_names(file: Path) -> set[str]:
    """Classes and functions that a file defines for others, but for verbs of the command line,
    which share their names with the functions that do what they say."""
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [n for n in ast.parse(file.read_text()).body if isinstance(n, defined)]
    if file.parent.name == "cli":
        found = [node for node in found if not node.decorator_list and node.name not in file.name]
    return {node.name for node in found if node.name[0] != "_"}


# Modules that are one interface for several things have the same names: how a format keeps the
# modules of each technique, and how two libraries answer.
ONE_INTERFACE = {
    "read": ("techniques", "modules/formats/__init__.py"),
    "written": ("techniques", "modules/formats/adapterhub_head.py"),
    "holds": ("techniques",),
    "answers": ("proof",),
    "distribution": ("proof",),
    "main": ("proof/adapters_script.py",),
}


def test_one_name_is_one_thing():
    import peftport

    named: dict[str, list[str]] = {}
    for file in FILES:
        for name in public_names(file):
            named.setdefault(name, []).append(file.relative_to(SOURCE).as_posix())
    for name, files in named.items():
        others = [f for f in files if not f.startswith(ONE_INTERFACE.get(name, ("none",)))]
        if name in peftport.__all__:  # what users call, and the room's own that it stands on
            others = [f for f in others if not f.startswith("api/")]
        assert len(others) < 2, f"{name} is defined in {' and '.join(files)}"


def function_types(file: Path) -> list[tuple[str, str]]:
    """Types of functions that a file spells out, each with the name that it gives them there, if
    any."""
    tree = ast.parse(file.read_text())
    named = {id(n.value): ast.unparse(n.targets[0]) for n in tree.body if isinstance(n, ast.Assign)}
    return [
        (ast.unparse(node), named.get(id(node), ""))
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Callable"
    ]


def test_the_type_of_a_function_has_one_name():
    every = [found for file in FILES for found in function_types(file) if found[1]]
    assert len(every) == len({kind for kind, _ in every}) == len({name for _, name in every})


def test_who_is_told_of_progress_is_nowhere_spelled_out_again():
    here = SOURCE / "progress.py"
    told = {kind for kind, _ in function_types(here)}
    assert len(told) == 2
    for file in FILES:
        assert file == here or not told & {kind for kind, _ in function_types(file)}, file
