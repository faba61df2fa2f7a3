"""Specifications by name or file, with parameters and overrides given on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import exists, parse_yaml, read_yaml
from peftport.registry import did_you_mean
from peftport.studies.spec import Spec, parse_spec

PRESETS = Path(__file__).parent / "presets"
_REFERENCE = re.compile(r"\$\{([^}]*)\}")


def preset_names() -> list[str]:
    """The names of the specifications that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_spec(name: str, settings: Iterable[str] = ()) -> Spec:
    """Read a preset by name, or a specification from a YAML file.

    Args:
        name: a preset's name, or the path of a `.yaml` or `.yml` file.
        settings: `key=value` each: a parameter that the file declares under `parameters` (name:
            what it means, or `{about, default}`), or a key path such as `training.batch_size` or
            `pairs.0.receiver`; values are YAML.

    Raises:
        BadInput: no such preset or file, a parameter without a value, an unknown key.
    """
    path = _find(name)
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise BadInput(f"{path}: a specification is a mapping of keys to values.")
    return read_spec(data, settings, str(path) if path.parent != PRESETS else f"preset {name}")


def read_spec(
    content: Mapping[str, Any], settings: Iterable[str] = (), name: str = "the specification"
) -> Spec:
    """A specification from the content of a YAML file; settings and errors as for `load_spec`.

    Args:
        name: what messages call it.
    """
    data = dict(content)
    declared, parameters = _parameters(name, data.pop("parameters", {}))
    given = _split(settings)
    parameters |= {key: given.pop(key) for key in list(given) if key in declared}
    data = _fill(data, parameters, declared, name)
    for key, value in given.items():
        _override(data, key, _parse_value(key, value))
    return _located(parse_spec(data, name))


def _parameters(path: str, declared: Any) -> tuple[dict[str, str], dict[str, str]]:
    """What each parameter means, and the values of those that have a default."""
    whats, defaults = {}, {}
    if not isinstance(declared, dict):
        raise BadInput(f"{path}: 'parameters' is a mapping of names to what they mean.")
    for key, found in declared.items():
        if isinstance(found, dict):
            if set(found) != {"about", "default"}:
                raise BadInput(f"{path}: parameters.{key} has other keys than about and default.")
            defaults[key], found = str(found["default"]), found["about"]
        whats[key] = str(found)
    return whats, defaults


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1 or exists(path):
        if not exists(path):
            raise BadInput(f"specification {name} is not a file.")
        return path
    presets = preset_names()
    if name not in presets:
        raise BadInput(
            f"no specification {name!r}.{did_you_mean(name, presets)} "
            f"Presets: {', '.join(presets)}; or give the path of a .yaml file."
        )
    return PRESETS / f"{name}.yaml"


def _split(settings: Iterable[str]) -> dict[str, str]:
    given = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise BadInput(f"--set {setting}: expected key=value.")
        given[key] = value
    return given


def _parse_value(key: str, text: str) -> Any:
    return parse_yaml(text, f"--set {key}={text}: the value")


def _fill(value: Any, given: Mapping[str, str], declared: Mapping[str, Any], name: str) -> Any:
    """Replace every ${parameter} in the strings of `value`."""

    def one(match: re.Match[str]) -> str:
        key = match[1]
        if key not in declared:
            raise BadInput(
                f"specification {name} uses ${{{key}}} and declares no such parameter."
                f"{did_you_mean(key, declared)}"
            )
        if key not in given:
            raise BadInput(f"specification {name} needs --set {key}=VALUE, {declared[key]}")
        return given[key]

    if isinstance(value, str):
        return _REFERENCE.sub(one, value)
    if isinstance(value, dict):
        return {key: _fill(inner, given, declared, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, given, declared, name) for inner in value]
    return value


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    """Set the value at a key path; what cannot be reached is refused, what is new is checked
    with the whole."""
    place: Any = data
    *way, last = key.split(".")
    for part in way:
        if isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            if not isinstance(place.get(part), dict | list):
                place[part] = {}
            place = place[part]
        else:
            raise BadInput(f"--set {key}: there is nothing at {part!r}.")
    if isinstance(place, list):
        if not last.isdigit() or int(last) >= len(place):
            raise BadInput(f"--set {key}: {last!r} is not a position among {len(place)}.")
        place[int(last)] = value
    else:
        place[last] = value


def _located(spec: Spec) -> Spec:
    """Give every host and task of the study, and its texts, their place, and make paths
    independent of the current folder, so that a study can be continued from anywhere. What is said
    of hosts that stand in no pair is left out."""
    hosts, tasks = spec.hosts_used(), spec.tasks_used()
    own = {host: found for host, found in spec.training.learning_rates_on.items() if host in hosts}
    return spec.model_copy(
        update={
            "hosts": {label: _place(location) for label, location in hosts.items()},
            "tasks": {label: _place(location) for label, location in tasks.items()},
            "texts": _place(spec.texts) if spec.texts else None,
            "training": spec.training.model_copy(update={"learning_rates_on": own}),
        }
    )


def _place(location: str) -> str:
    path = Path(location).expanduser()
    return str(path.resolve()) if exists(path) else location
