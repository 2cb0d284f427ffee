"""The options of a derivation: text from a task's YAML, turned into the fields of a frozen dataclass.

    derive_options: { residues: 50, fasta: genomes/yeast/r64.fa.gz, names: NC_001133.9=I NC_001134.8=II }

Lists are words between spaces, mappings are words KEY=VALUE, files are relative to the data folder. A field's annotation decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from llama_gene.errors import ConfigError, did_you_mean

Options = TypeVar("Options")


def parse_options(kind: type[Options], values: Mapping[str, str], where: str) -> Options:
    """Return an instance of a dataclass of options.

    Raises ConfigError that begins with `where` for an unknown option (naming the nearest), a missing one, or a value of another type.
    """
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known) or f"Known: {', '.join(known)}"
            raise ConfigError(f"{where}: option '{name}' is not known", "an option of this derivation", hint)
    for item in known.values():
        if item.default is MISSING and item.default_factory is MISSING and item.name not in values:
            raise ConfigError(f"{where} has no option '{item.name}'", str(item.type), f"Add '{item.name}: ...' to derive_options")
    try:
        return kind(**{name: _value(str(known[name].type), name, text) for name, text in values.items()})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.found}", error.expected, error.action) from error


def _value(type_name: str, name: str, text: str) -> Any:
    """Return the value that a text means."""
    try:
        if type_name == "int":
            return int(text.replace("_", ""))
        if type_name == "float":
            return float(text)
        if type_name == "bool":
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        if type_name.startswith("dict"):
            return dict(word.split("=", 1) for word in text.split())
    except (ValueError, KeyError) as error:
        raise ConfigError(f"option '{name}': '{text}'", type_name, "Change derive_options") from error
    if type_name.startswith("tuple"):
        return tuple(text.split())
    return Path(text) if type_name.startswith("Path") else text


def option_files(options: Any) -> list[str]:
    """Return the files that options name, relative to the data folder."""
    values = (getattr(options, item.name) for item in fields(options))
    return [value.as_posix() for value in values if isinstance(value, Path)]


def under(options: Options, data_dir: Path) -> Options:
    """Return the options with the data folder in front of each file."""
    values = {item.name: getattr(options, item.name) for item in fields(options)}  # type: ignore[arg-type]
    return replace(options, **{name: data_dir / value for name, value in values.items() if isinstance(value, Path)})  # type: ignore[type-var]


def at_least(number: float, least: float, name: str) -> None:
    """Raise ConfigError for an option below its least value."""
    if number < least:
        raise ConfigError(f"option '{name}': {number:g}", f"{least:g} or more", "Change derive_options")
