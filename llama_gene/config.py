"""From a YAML file and command-line keys to a Config dataclass; what is wrong is said in one line, with the nearest known key.

jsonargparse reads and checks the values. The keys of a YAML file are compared with the dataclasses beforehand, node by node, because only
there is it known in which line, and in which item of which list, a key stands.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from llama_gene.errors import ConfigError, InputError, LlamaGeneError, MissingFileError, did_you_mean

ConfigType = TypeVar("ConfigType")


def parse(stage: str, config_class: type[ConfigType], arguments: Sequence[str], description: str = "") -> ConfigType:
    """Return an instance of `config_class` from `--config FILE` and `--key value`; later ones win. A list may be written `--key a b`.

    A `data_dir` that is not given is taken from LLAMA_GENE_DATA.
    Raises LlamaGeneError for an unknown key (naming the nearest one), a value of the wrong type, or a missing file.
    """
    import jsonargparse
    import yaml

    # The string under a field is its help.
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(prog=f"llama-gene {stage}", description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with the keys below; keys on the command line win")
    parser.add_class_arguments(config_class, fail_untyped=False)
    for path in _config_files(arguments):
        check_yaml(path, config_class)
    try:
        parsed = parser.parse_args(_join_lists(arguments, config_class))
        values = vars(parser.instantiate(parsed))
        config = config_class(**{key: value for key, value in values.items() if key != "config"})
    except (jsonargparse.ArgumentError, yaml.YAMLError, TypeError, ValueError) as error:
        if isinstance(error, LlamaGeneError):
            raise
        raise _readable(error, stage, list(field_names(config_class))) from error
    if getattr(config, "data_dir", "absent") is None and os.environ.get("LLAMA_GENE_DATA"):
        config.data_dir = Path(os.environ["LLAMA_GENE_DATA"])  # type: ignore[attr-defined]
    return config


def check_yaml(path: Path, config_class: Any) -> None:
    """Compare the keys of a YAML file with a dataclass and those inside it.

    Raises MissingFileError, InputError for what is not YAML, ConfigError (with the line) for a key that is unknown or given twice, and
    for a value where keys or a list should be.
    """
    import yaml

    if path.is_dir():
        raise InputError(f"{path} is a folder", "a YAML config", "Name the file in it")
    if not path.is_file():
        raise MissingFileError(path, "a YAML config")
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: {error.problem or error.context}", "YAML (key: value)", "Mend the line") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not text", "a YAML config in UTF-8", "Check the path") from error
    if node is None:
        raise InputError(f"{path} is empty", "a YAML config (key: value)", "Check that the file is whole")
    _check_node(node, config_class, "", path, list(field_names(config_class)))


def field_names(config_class: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of a dataclass's fields and of the dataclasses inside them (also in lists and optional ones)."""
    for name, hint in get_type_hints(config_class).items():
        yield prefix + name
        for inner in (hint, *get_args(hint)):
            if is_dataclass(inner):
                yield from field_names(inner, f"{prefix}{name}.")


def _join_lists(arguments: Sequence[str], config_class: Any) -> list[str]:
    """Write the values behind a key that takes a list of texts or paths as one: `--input a.fa b.fa` -> `--input=["a.fa", "b.fa"]`.

    A switch without a value is true: `--web` -> `--web=true`.
    """
    hints = get_type_hints(config_class)
    switches = {f"--{name}" for name, hint in hints.items() if hint is bool}
    lists = {f"--{name}" for name, hint in hints.items() if get_origin(hint) is list and get_args(hint)[0] in (str, Path)}
    joined: list[str] = []
    position = 0
    while position < len(arguments):
        key, position = arguments[position], position + 1
        if key in switches and (position == len(arguments) or arguments[position].startswith("--")):
            key += "=true"
        values: list[str] = []
        while key in lists and position < len(arguments) and not arguments[position].startswith("--"):
            values.append(arguments[position])
            position += 1
        if not values or values[0].startswith("["):  # nothing, or a list as YAML has it
            joined += [key, *values]
        else:
            joined.append(f"{key}={json.dumps(values)}")
    return joined


def _config_files(arguments: Sequence[str]) -> Iterator[Path]:
    """Yield the files that `--config FILE` and `--config=FILE` name."""
    for position, item in enumerate(arguments):
        if item.startswith("--config="):
            yield Path(item.partition("=")[2])
        elif item == "--config" and position + 1 < len(arguments):
            yield Path(arguments[position + 1])


def _check_node(node: Any, hint: Any, key: str, path: Path, known: Sequence[str]) -> None:
    """Check one value of the YAML tree against its type, as far as it holds keys; `key` is its dotted name."""
    where = f"{path}, line {node.start_mark.line + 1}"
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if NoneType in options and node.tag == "tag:yaml.org,2002:null":
        return
    config_class = next((option for option in options if is_dataclass(option)), None)
    if config_class is None and node.tag == "tag:yaml.org,2002:null":
        raise ConfigError(f"{where}: {key} has no value", "one", "Delete the line to get the default")
    if config_class is not None:
        if node.id != "mapping":
            raise ConfigError(f"{where}: {key or 'the file'} is {_shape(node)}", "keys and values", "Write one `key: value` a line")
        _check_mapping(node, config_class, key, path, known)
        return
    items = [get_args(option)[0] for option in options if get_origin(option) is list]
    if items and is_dataclass(items[0]):
        if node.id != "sequence":
            raise ConfigError(f"{where}: {key} is {_shape(node)}", "a list", "Begin each item with `- `")
        for number, item in enumerate(node.value):
            if item.id == "mapping" and not item.value:
                raise ConfigError(f"{path}, line {item.start_mark.line + 1}: {key}[{number}] is empty", "keys and values", "Delete it")
            _check_node(item, items[0], f"{key}[{number}]", path, known)


def _check_mapping(node: Any, config_class: Any, prefix: str, path: Path, known: Sequence[str]) -> None:
    """Check the keys of one mapping, and what they hold."""
    hints = get_type_hints(config_class)
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`
            _check_mapping(value_node, config_class, prefix, path, known)
            continue
        name, _, rest = str(key_node.value).partition(".")
        key = f"{prefix}.{name}" if prefix else name
        if name not in hints:
            hint = did_you_mean(name, hints) or did_you_mean(name, known) or f"Keys here: {', '.join(hints)}"
            raise ConfigError(f"{path}, line {line}: unknown key '{key}'", f"a key of {prefix or 'the config'}", hint)
        if key_node.value in seen:
            raise ConfigError(f"{path}, line {line}: '{key}' stands in line {seen[key_node.value]}, too", "each key once", "Delete one")
        seen[key_node.value] = line
        if not rest:  # `cut.min_fragment: 300` is checked by jsonargparse
            _check_node(value_node, hints[name], key, path, known)


def _shape(node: Any) -> str:
    """Say what a YAML value is."""
    if node.tag == "tag:yaml.org,2002:null":
        return "empty"
    return {"sequence": "a list", "mapping": "a mapping"}.get(node.id, f"'{str(node.value)[:60]}'")


_SPOKEN = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "Path": "a path",
    "list": "a list",
    "dict": "keys and values",
    "NoneType": "nothing",
}


def _readable(error: Exception, stage: str, known: Sequence[str]) -> ConfigError:
    """Turn jsonargparse's message into one line: which key, what it was given, what was expected."""
    text = " ".join(str(error).split())
    see = f"See llama-gene {stage} --help"
    parents = re.findall(r"(?:[Pp]arser key \"|Group ')([\w.]+)", text)
    unknown = re.search(r"[Uu]nrecognized arguments: (\S+)", text)
    if unknown and not unknown.group(1).startswith("--"):
        return ConfigError(f"'{unknown.group(1)}' belongs to no key", "--key value", see)
    unknown = unknown or re.search(r"(?:[Oo]ption|nested key) ['\"]([\w.]+)", text)
    if unknown:
        key = ".".join([*parents, unknown.group(1).lstrip("-").partition("=")[0]])
        return ConfigError(f"unknown key '{key}'", f"a key of {stage}", did_you_mean(key, known) or see)
    if no_value := re.search(r"argument --?([\w.]+).*: expected one argument", text):
        return ConfigError(f"--{no_value.group(1)} has no value", "--key value", see)
    value = re.search(r"(?:Got value|Given value): (.*)$", text)
    types = re.search(r"Subtypes: \[(.*?)\] Errors", text) or re.search(r"Expected an? (.*?)\.? Got value", text)
    if parents and value and types:
        return ConfigError(f"{'.'.join(parents)} is {value.group(1)[:100]!r}", _spoken_type(types.group(1)), see)
    return ConfigError(text[:400], "values of the documented types", see)


def _spoken_type(text: str) -> str:
    """Return a type as a sentence has it.

    >>> _spoken_type("typing.Literal['train', 'valid']"), _spoken_type("<class 'int'>, <class 'NoneType'>")
    ('one of train, valid', 'a whole number or nothing')
    """
    if literal := re.search(r"Literal\[(.*?)\]", text):
        return "one of " + ", ".join(name.strip(" '\"") for name in literal.group(1).split(","))
    names = [name.rsplit(".", 1)[-1] for name in re.findall(r"<class '([\w.]+)'>", text)]
    return " or ".join(_SPOKEN.get(name, name) for name in names) or text
