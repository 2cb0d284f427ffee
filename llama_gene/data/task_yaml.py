"""One YAML file to one dataclass of plain values: keys checked by name, scalars kept as text until their field says what they are.

YAML would read a label `0`, `No` or `1.10` as a number or a truth value; here it stays the text that stands in the table. Every fault is
one line that names the file, the line of the key, and the nearest known key.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from llama_gene.errors import ConfigError, MissingFileError, did_you_mean

T = TypeVar("T")


def read_yaml(path: Path, kind: type[T], what: str) -> T:
    """Return the dataclass that a YAML file describes; `what` names it in messages ("a task").

    Raises MissingFileError, or ConfigError with file and line for an unknown key (naming the nearest), a missing key or a wrong type.
    """
    if not path.is_file():
        raise MissingFileError(path, f"{what}'s YAML file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", f"{what}'s YAML file", "Check the path") from error
    try:
        values = yaml.load(text, Loader=_StringKeyLoader)
        lines = _key_lines(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or 'not YAML'}", "YAML (key: value)") from error
    known: dict[str, Any] = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    required = [name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING]
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no keys", f"{what} ({', '.join(required)}, ...)")
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{path}, line {lines.get(key, 1)}: key '{key}' is not known",
                f"a key of {what}",
                did_you_mean(str(key), known) or f"Known: {', '.join(known)}",
            )
    for name in required:
        if name not in values:
            raise ConfigError(f"{path} has no key '{name}'", ", ".join(required), f"Add '{name}: ...'")
    try:
        return kind(**{key: _coerce(known[key].type, value) for key, value in values.items() if value is not None})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.found}", error.expected, error.action) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}", f"the types of {kind.__module__}.{kind.__qualname__}") from error


class _StringKeyLoader(yaml.SafeLoader):
    """YAML whose scalars stay text, so that a label `0`, `No` or `1.10` is not turned into a number or a boolean."""


_StringKeyLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:null") and first]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _key_lines(text: str) -> dict[str, int]:
    """Return the line of each top-level key."""
    node = yaml.compose(text, Loader=_StringKeyLoader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {str(key.value): int(key.start_mark.line) + 1 for key, _ in pairs}


def _coerce(type_name: Any, value: Any) -> Any:
    """Turn YAML text into the type of a field (annotations are strings here)."""
    name = str(type_name)
    if name.startswith("list["):
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in items):
            raise ValueError(f"{value!r} is not a list of texts")
        return [str(item) for item in items]
    if name.startswith("dict["):
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise ValueError(f"{value!r} is not a mapping of raw label to name")
        return {str(key): str(item) for key, item in value.items()}
    if isinstance(value, (list, dict)):
        raise ValueError(f"{value!r} is not one value")
    if name.startswith("int"):
        return int(str(value).replace("_", ""))
    if name.startswith("float"):
        return float(value)
    if name == "bool":
        if str(value).lower() not in ("true", "false", "yes", "no"):
            raise ValueError(f"{value!r} is not true or false")
        return str(value).lower() in ("true", "yes")
    return str(value)
