"""Options of techniques and of port methods: names with types and defaults, read from what a user
gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from peftport.errors import BadInput
from peftport.files import parse_yaml
from peftport.registry import did_you_mean


class Options(BaseModel):
    """Named options; unknown names are errors.

    A field is an option: its type and bounds say what it may be, its default what it is when
    nothing is given, and `Field(description=...)` what it does.

    also: names that other libraries have for an option -> the option. They are understood wherever
    options are given, and never written.
    later: options that came after studies had been run without them. At their defaults they change
        nothing, and a run's name does not tell of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    also: ClassVar[Mapping[str, str]] = {}
    later: ClassVar[frozenset[str]] = frozenset()

    def computed(self) -> dict[str, Any]:
        """What a run's name says of them, JSON-ready."""
        found = self.model_dump(mode="json")
        usual = {name: type(self).model_fields[name].default for name in self.later}
        return {n: v for n, v in found.items() if n not in usual or v != usual[n]}


Kind = TypeVar("Kind", bound=Options)


def build_options(kind: type[Kind], given: Mapping[str, Any], of: str) -> Kind:
    """Build options from names and values.

    Args:
        of: whose options they are, for messages: "technique lora".

    Raises:
        BadInput: names the option that is unknown or wrong, or that is given by two names.
    """
    try:
        return kind(**_by_own_names(kind, given, of))
    except ValidationError as error:
        first = error.errors()[0]
        option, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        if not option:  # what is wrong is said of several
            raise BadInput(f"{of}: {said}.") from error
        known = [*kind.model_fields, *kind.also]
        if first["type"] != "extra_forbidden":
            raise BadInput(f"{of}: option {option!r}: {said}.") from error
        listed = f"Known: {', '.join(kind.model_fields)}." if known else "It takes none."
        raise BadInput(
            f"{of}: option {option!r}: no such option.{did_you_mean(option, known)} {listed}"
        ) from error


def _by_own_names(kind: type[Options], given: Mapping[str, Any], of: str) -> dict[str, Any]:
    """Options under their own names, where some are called as in other libraries."""
    own: dict[str, Any] = {}
    for name, value in given.items():
        called = kind.also.get(name, name)
        if called in own:
            raise BadInput(f"{of}: option {called!r} is given twice: {name} is the same.")
        own[called] = value
    return own


def parsed(pairs: Iterable[str], where: str) -> dict[str, Any]:
    """Read options that are written as KEY=VALUE, values as in YAML.

    Args:
        where: they stand, for messages: "--set".

    Raises:
        BadInput: names one that is not of this form.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"{where} {pair!r}: expected KEY=VALUE, such as rank=16.")
        options[key] = parse_yaml(value, f"{where} {pair!r}")
    return options


def described(kind: type[Options]) -> list[dict[str, Any]]:
    """Every option's name, type, default and description, JSON-ready."""
    schema = kind.model_json_schema(mode="serialization")["properties"] if kind.model_fields else {}
    return [
        {
            "name": name,
            "type": _type(schema[name]),
            "default": None if field.is_required() else field.default,
            "about": field.description or "",
            **_also(kind, name),
        }
        for name, field in kind.model_fields.items()
    ]


def _also(kind: type[Options], option: str) -> dict[str, list[str]]:
    """The other names of an option, where it has any."""
    names = [name for name, own in kind.also.items() if own == option]
    return {"also": names} if names else {}


def _type(schema: Mapping[str, Any]) -> str:
    """A type in words: "integer", "number or null", "one of proportional, every, cka"."""
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    return str(schema.get("type", "anything"))
