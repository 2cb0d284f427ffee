"""The sequences of existing splits, row by row, from whatever holds them: tables, FASTA, instructions, or the YAML of a task.

Rows are those of the files, before any cleaning of ours (`tasks` drops repeats): an audit must see what is there. A pair has two members
a row. Rows without a sequence and rows with a letter that the alphabet lacks are left out and counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gene.data.tables import read_rows, table_files
from llama_gene.data.tasks import SPLITS, Task, read_task
from llama_gene.errors import InputError, MissingFileError
from llama_gene.sequences.alphabet import first_fault, get_alphabet
from llama_gene.sequences.files import bare_name, expand_paths, open_bytes, open_text
from llama_gene.sequences.formats import RECORD_SUFFIXES
from llama_gene.sequences.records import parse_records, read_table

TABLES = (".csv", ".tsv", ".txt", ".tab")
_YAML = (".yaml", ".yml")
_EMPTY, _FOREIGN, _UNNAMED = "empty sequence", "letters outside the alphabet", "identifier without a sequence"


@dataclass
class SplitRows:
    """The rows of one split of one task: the sequences of each (two for a pair), upper case, and where each row stands."""

    task: str
    split: str
    kinds: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)
    """File name and number of the row in it, from 1 (the header does not count)."""
    rejected: dict[str, int] = field(default_factory=Counter)
    """Reason -> rows."""

    @property
    def name(self) -> str:
        """The task and the split in one word."""
        return f"{self.task} {self.split}" if self.task else self.split

    def add(self, sequences: Sequence[str], place: tuple[str, int]) -> None:
        """Take a row, or count why not."""
        row = tuple(sequence.strip().upper() for sequence in sequences)
        if len(row) != len(self.kinds):
            raise InputError(
                f"{place[0]}, row {place[1]} has {len(row)} sequences",
                f"{len(self.kinds)}, one for each of kinds",
                "Set columns and kinds alike",
            )
        if not all(row):
            self._reject(_EMPTY)
        elif any(first_fault(sequence, get_alphabet(kind)) is not None for kind, sequence in zip(self.kinds, row, strict=True)):
            self._reject(_FOREIGN)
        else:
            self.rows.append(row)
            self.places.append(place)

    def _reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def members(self, kind: str) -> Iterator[tuple[int, str]]:
        """Yield (row, sequence) for each member of a kind."""
        wanted = [number for number, own in enumerate(self.kinds) if own == kind]
        for row, sequences in enumerate(self.rows):
            for number in wanted:
                yield row, sequences[number]


def read_split(files: Sequence[Path | str], split: str, kinds: Sequence[str], columns: Sequence[str], task: str = "") -> list[SplitRows]:
    """Return the rows of a split's files: one item, or one a task where files of `instruct` hold several.

    By the file's name: .csv .tsv .txt are tables with the named columns, one for each kind; FASTA and FASTQ hold one sequence a row; .jsonl
    holds the `sequences` and `kinds` of our instructions, or the columns as keys. A folder of `instruct` stands for its file of this split.
    Raises MissingFileError, and InputError for a missing column, or when no row is left.
    """
    return [_some_rows(rows) for rows in _read(files, split, kinds, columns, task)]


def _read(files: Sequence[Path | str], split: str, kinds: Sequence[str], columns: Sequence[str], task: str) -> list[SplitRows]:
    """Return what `read_split` does, also where no row is left."""
    found: dict[str, SplitRows] = {}
    own = SplitRows(task, split, tuple(kinds))
    for path in _split_files(files, split):
        name = bare_name(path)
        if name.suffix == ".jsonl":
            for number, row in _json_rows(path):
                if isinstance(row.get("sequences"), list) and isinstance(row.get("kinds"), list):
                    if not all(isinstance(value, str) for value in [*row["sequences"], *row["kinds"]]):
                        raise InputError(f"{path}, line {number}: sequences or kinds that are no text", "lists of text", "Mend the line")
                    key = str(row.get("task") or task)
                    asked = found.setdefault(key, SplitRows(key, split, tuple(row["kinds"])))
                    if row["kinds"]:
                        asked.add(row["sequences"], (path.name, number))
                else:
                    own.add(_cells(row, columns, f"{path}, line {number}"), (path.name, number))
        elif name.suffix in RECORD_SUFFIXES:
            with open_bytes(path) as handle:
                for number, record in enumerate(parse_records(handle, str(path)), start=1):
                    own.add([record.sequence], (path.name, number))
        elif name.suffix in TABLES:
            for number, cells in enumerate(read_table(path, columns), start=1):
                own.add([cells[column] for column in columns], (path.name, number))
        else:
            raise InputError(
                f"{path} is neither a table nor FASTA by its name", ", ".join((*TABLES, ".jsonl", *RECORD_SUFFIXES)), "Rename it"
            )
    if own.rows or own.rejected:
        found[task] = own
    return [rows for rows in found.values() if rows.kinds]


def read_task_splits(task: Task, data_dir: Path) -> list[SplitRows]:
    """Return the rows of a task's train, dev and test files as they are; those of `files`, which have no split yet, as split "files".

    Raises MissingFileError, and InputError for a missing column, or when no row of a split is left.
    """
    named = _named_sequences(data_dir / task.sequences_table) if task.sequences_table else None
    found = []
    for split in (*SPLITS, "files"):
        names = getattr(task, split)
        if not names:
            continue
        rows = SplitRows(task.name, split, tuple(task.kinds))
        for name in names:
            for number, cells in enumerate(task.read_cells(data_dir / name, task.columns, data_dir), start=1):
                sequences = [cells[column].strip() for column in task.columns]
                if named is not None and not all(sequence in named for sequence in sequences):
                    rows.rejected[_UNNAMED] = rows.rejected.get(_UNNAMED, 0) + 1
                    continue
                rows.add([named[sequence] for sequence in sequences] if named is not None else sequences, (Path(name).name, number))
        found.append(_some_rows(rows))
    return found


def read_tasks(paths: Sequence[Path | str], data_dir: Path | None) -> list[tuple[Task, Path]]:
    """Return the tasks of YAML files, folders and globs, each with the folder that its tables are relative to."""
    tasks = [(read_task(path), data_dir or path.parent) for path in expand_paths(paths) if path.suffix in _YAML]
    if not tasks:
        raise MissingFileError(", ".join(map(str, paths)), "YAML files of tasks")
    return tasks


def evaluation_sequences(
    paths: Sequence[Path | str], kind: str, data_dir: Path | None = None, columns: Sequence[str] = ("sequence",)
) -> dict[str, list[str]]:
    """Return the evaluation sequences of one kind, each once, by the file that holds them: what `shared_runs.Screen` takes.

    A YAML file is a task: the sequences of its dev and test files (without a split: of all). Any other file is taken whole, as `read_split`
    does; of a folder of `instruct` both dev.jsonl and test.jsonl. Files without a row of this kind are left out: a list may serve several
    kinds. Raises what `read_split` and `read_task` raise.
    """
    found: dict[str, list[str]] = {}
    short = [Path(path).name for path in paths]
    for path in map(Path, paths):
        name = path.name if short.count(path.name) == 1 else str(path)
        if path.suffix in _YAML or (path.is_dir() and any(path.glob("*.y*ml"))):
            splits = [rows for task, folder in read_tasks([path], data_dir) for rows in _evaluation(task, folder, kind)]
        else:
            ours = [part for part in SPLITS if (path / f"{part}.jsonl").is_file()]  # a folder of `instruct`
            parts = [part for part in ours if part != "train"] if ours else ["test"]
            splits = [rows for split in parts for rows in _read([path], split, [kind] * len(columns), columns, name)]
        for rows in splits:
            if rows.rows and rows.rejected:  # all rejected: the file is of another kind
                reasons = ", ".join(f"{number:,} with {reason}" for reason, number in rows.rejected.items())
                raise InputError(f"{path}: {reasons}, which cannot be looked for", f"{kind} sequences only", "Mend or remove these rows")
            sequences = found.setdefault(name if rows.task == name else rows.name, [])
            sequences += dict.fromkeys(sequence for _, sequence in rows.members(kind))
    return {name: sequences for name, sequences in found.items() if sequences}


def evaluation_files(paths: Sequence[Path | str], data_dir: Path | None = None, with_train: bool = False) -> list[Path]:
    """Return the files whose bytes decide what `evaluation_sequences` returns: for the key of an artefact.

    They are the files themselves and the tables that a task names, those of its train rows only if asked for.
    """
    found: set[Path] = set()
    for path in expand_paths(paths):
        found.add(path)
        if path.suffix in _YAML:
            for task, folder in read_tasks([path], data_dir):
                names = [name for name in task.table_names() if with_train or name not in task.train]
                found.update(file for name in names for file in table_files(folder / name))
    return sorted(found)


def _evaluation(task: Task, folder: Path, kind: str) -> Iterable[SplitRows]:
    """Return the dev and test rows of a task that has members of a kind."""
    if kind not in task.kinds:
        return []
    return [rows for rows in read_task_splits(task, folder) if rows.split != "train"]


def _split_files(files: Sequence[Path | str], split: str) -> list[Path]:
    """Return the files of a split; a folder with a file of the split's name stands for that."""
    named = [Path(file) / f"{split}.jsonl" if (Path(file) / f"{split}.jsonl").is_file() else Path(file) for file in files]
    return expand_paths(named)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, object) of a JSON Lines file."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                fault = error.msg if isinstance(error, json.JSONDecodeError) else "values nested too deep"
                raise InputError(f"{path}, line {number}: {fault}", "one JSON object a line", "The file may be cut short") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number} holds a {type(row).__name__}", "one JSON object a line", "Mend the line")
            yield number, row


def _cells(row: dict[str, Any], columns: Sequence[str], where: str) -> list[str]:
    """Return the named values of an object."""
    for column in columns:
        if not isinstance(row.get(column), str):
            raise InputError(f"{where} has no text under '{column}'", f"one of {', '.join(row)}", "Name the keys in columns")
    return [row[column] for column in columns]


def _named_sequences(path: Path) -> dict[str, str]:
    """Return identifier -> sequence of a task's sequences_table; the identifiers are the first column that is not `sequence`."""
    table = read_rows(path, ["sequence"])
    key = next((column for column in table[0] if column != "sequence"), None)
    if key is None:
        raise InputError(f"{path} has one column", "identifiers beside `sequence`")
    return {row[key]: row["sequence"] for row in table}


def _some_rows(rows: SplitRows) -> SplitRows:
    """Return the rows. Raises InputError when none is left: the kind is wrong, most likely."""
    if not rows.rows:
        wanted = " and ".join(rows.kinds)
        raise InputError(f"{rows.name}: no row is left ({dict(rows.rejected)})", f"{wanted} sequences", "Check kinds and columns")
    return rows
