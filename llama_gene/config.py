"""From a YAML file and command-line keys to a Config dataclass; what is wrong is said in one line, with the nearest known key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from llama_gene.errors import ConfigError, LlamaGeneError, MissingFileError, did_you_mean

ConfigType = TypeVar("ConfigType")


def parse(stage: str, config_class: type[ConfigType], arguments: Sequence[str], description: str = "") -> ConfigType:
    """Return an instance of `config_class` from `--config FILE` and `--key value`; later ones win.

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
    for position, item in enumerate(arguments):
        value = item.partition("=")[2] if item.startswith("--config=") else ""
        if item == "--config" and position + 1 < len(arguments):
            value = arguments[position + 1]
        if value and not Path(value).is_file():
            raise MissingFileError(value, "a YAML config")
    try:
        parsed = parser.parse_args(list(arguments))
        values = vars(parser.instantiate(parsed))
        config = config_class(**{key: value for key, value in values.items() if key != "config"})
    except (jsonargparse.ArgumentError, yaml.YAMLError, TypeError, ValueError) as error:
        if isinstance(error, LlamaGeneError):
            raise
        raise _readable(error, stage, list(field_names(config_class))) from error
    if getattr(config, "data_dir", "absent") is None and os.environ.get("LLAMA_GENE_DATA"):
        config.data_dir = Path(os.environ["LLAMA_GENE_DATA"])  # type: ignore[attr-defined]
    return config


def field_names(config_class: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of a dataclass's fields and of the dataclasses inside them (also in lists and optional ones)."""
    for name, hint in get_type_hints(config_class).items():
        yield prefix + name
        for inner in (hint, *get_args(hint)):
            if is_dataclass(inner):
                yield from field_names(inner, f"{prefix}{name}.")


def _readable(error: Exception, stage: str, keys: list[str]) -> ConfigError:
    """Turn a parser's message into one line; for an unknown key, name the nearest known one."""
    text = " ".join(str(error).split())
    patterns = (
        r"[Kk]ey ['\"]?([\w.]+)['\"]? is not expected",
        r"[Uu]nrecognized arguments: --([\w.-]+)",
        r"does not accept (?:nested key|option) ['\"]?([\w.]+)",
        r"Option '([\w.]+)' is not accepted",
        r"unexpected keyword argument '(\w+)'",
    )
    for pattern in patterns:
        unknown = re.search(pattern, text)
        if unknown:
            word = unknown.group(1)
            return ConfigError(f"unknown key '{word}'", f"a key of {stage}", did_you_mean(word, keys) or f"See llama-gene {stage} --help")
    return ConfigError(text[:400], "values of the documented types", f"See llama-gene {stage} --help")
