"""Tables of labelled rows from whatever holds them: CSV, TSV, JSON Lines, JSON, Parquet, or a folder of the `datasets` library.

The format is told by the name. Every cell becomes text, as a CSV file would hold it, so that one set of checks (labels, numbers, letters)
serves every format: a missing value is the empty text, a list (several labels) is joined by the task's `label_separator`, true and false
stay these words. A folder written by `Dataset.save_to_disk` is one table; of a `DatasetDict` name the folder of one split (FOLDER/train).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_gene.errors import InputError, MissingFileError, did_you_mean
from llama_gene.runtime import file_hash, fingerprint
from llama_gene.sequences.files import bare_name, one_line, open_text
from llama_gene.sequences.records import read_table

_DATASET_FILE, _DATASET_DICT_FILE = "dataset_info.json", "dataset_dict.json"


def read_rows(path: Path, columns: Sequence[str], separator: str = "") -> list[dict[str, str]]:
    """Return the rows of a table as column -> text: the columns asked for, and what else is text or a number.

    Raises MissingFileError, and InputError for a column that no row has (with the nearest name), a value that is no cell (an object, or a
    list where no separator is given), a file that cannot be read, or no row.
    """
    if path.is_dir():
        return _as_text(_dataset_rows(path), path, columns, separator)
    if not path.is_file():
        raise MissingFileError(path, "a table")
    suffix = bare_name(path).suffix.lower()
    if suffix == ".parquet":
        return _as_text(_parquet_rows(path), path, columns, separator)
    if suffix in (".jsonl", ".json"):
        return _as_text(_json_rows(path, suffix), path, columns, separator)
    return read_table(path, columns)


def table_files(path: Path) -> list[Path]:
    """Return the files of a table: itself, or those of a `datasets` folder."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def table_hash(path: Path) -> str:
    """Return a hash of the bytes of a table: of its file, or of the files of its folder and their names."""
    if not path.is_dir():
        return file_hash(path)
    return fingerprint([[file.relative_to(path).as_posix(), file_hash(file)] for file in table_files(path)])


def place_of(path: Path, number: int) -> str:
    """Return how a message names row `number` (from 1): by its line where the file has a header line, else by its number."""
    is_text = not path.is_dir() and bare_name(path).suffix.lower() not in (".parquet", ".json", ".jsonl")
    return f"{path}, line {number + 1}" if is_text else f"{path}, row {number}"


def _as_text(rows: Iterable[Mapping[str, Any]], path: Path, columns: Sequence[str], separator: str) -> list[dict[str, str]]:
    """Return rows of any values as rows of text, each with the columns that are asked for."""
    found = list(rows)
    if not found:
        raise InputError(f"{path} holds no row", "at least one row", "Check that the file is whole")
    names = dict.fromkeys(name for row in found for name in row)
    for column in columns:
        if column not in names:
            hint = did_you_mean(column, names) or "Name a column that the table has"
            raise InputError(f"{path} has no column '{column}'", f"one of {', '.join(names)}", hint)
    wanted = set(columns)
    # a value in a column that nobody asked for may be of any kind
    return [
        {
            name: _cell(row.get(name), separator, f"{path}, row {number}, column '{name}'")
            for name in names
            if name in wanted or isinstance(row.get(name), (str, int, float))
        }
        for number, row in enumerate(found, start=1)
    ]


def _cell(value: Any, separator: str, where: str) -> str:
    """Return one value as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        if not separator:
            raise InputError(f"{where} holds a list", "one value", "Set label_separator (and multi_label) if rows carry several labels")
        return separator.join(_cell(item, "", where) for item in value)
    if isinstance(value, (str, int, float)):
        return str(value)
    raise InputError(f"{where} holds a {type(value).__name__}", "text or a number", "Name another column")


def _json_rows(path: Path, suffix: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file, or of a JSON list."""
    rows: list[Any] = []
    number = 0
    with open_text(path) as handle:
        try:
            if suffix == ".json":
                rows = json.load(handle)
            else:
                for line in handle:
                    number += 1
                    if line.strip():
                        rows.append(json.loads(line))
        except (json.JSONDecodeError, RecursionError) as error:
            place = f"line {number if suffix == '.jsonl' else getattr(error, 'lineno', 1)}"
            fault = error.msg if isinstance(error, json.JSONDecodeError) else "values nested too deep"
            raise InputError(f"{path}, {place}: {fault}", "JSON", "The file may be cut short") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} holds something else than objects", "a list of objects, or one object a line", "Mend the file")
    return rows


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: {one_line(error)}", "a Parquet file", "The file may be cut short") from error
    return rows


def _dataset_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder that `Dataset.save_to_disk` wrote. A class label is its number, as it is stored."""
    if (path / _DATASET_DICT_FILE).is_file():
        splits = ", ".join(sorted(folder.name for folder in path.iterdir() if (folder / _DATASET_FILE).is_file()))
        raise InputError(f"{path} holds several splits", f"the folder of one of them: {splits}", f"Name {path.name}/SPLIT")
    if not (path / _DATASET_FILE).is_file():
        raise InputError(f"{path} is a folder without {_DATASET_FILE}", "a table, or a folder of Dataset.save_to_disk", "Name a file in it")
    import datasets

    try:
        rows: list[dict[str, Any]] = datasets.load_from_disk(str(path)).to_list()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: {one_line(error)}", "a folder of Dataset.save_to_disk", "The folder may be cut short") from error
    return rows
