"""Sequences that a model is asked about: any file that a corpus is made from, and tables beside, one record in memory at a time.

    read_queries(paths, kind, ...) -> records in the order of the files, letters checked and counted as `read_source` does

A table (.csv, .tsv, plain or compressed) holds a sequence a row. Its id is that of `id_column`, else of a column named `id`, else
TABLE:NUMBER, rows counted from 1; its description is "COLUMN: value" of each of `text_columns`. Every other file is read by `read_source`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from llama_gene.errors import InputError
from llama_gene.sequences.files import STANDARD_INPUT, bare_name, spoken_path
from llama_gene.sequences.formats import FileFormat
from llama_gene.sequences.letters import LetterCounts, LetterPolicy, apply, check
from llama_gene.sequences.records import Record, iterate_table
from llama_gene.sequences.sources import Content, read_source

TABLE_SUFFIXES = (".csv", ".tsv")


def read_queries(
    paths: Sequence[Path | str],
    kind: str,
    *,
    policy: LetterPolicy,
    counts: LetterCounts,
    file_format: FileFormat = "auto",
    content: Content = "sequence",
    column: str = "sequence",
    id_column: str = "",
    text_columns: Sequence[str] = (),
) -> Iterator[Record]:
    """Yield the records of files ("-": standard input) and tables, as the policy leaves them; `counts` accounts for every letter.

    Raises what `read_source` and `iterate_table` raise, and InputError (with file and line) for a letter that the alphabet lacks.
    """
    for path in paths:
        if is_table(path):
            yield from _read_rows(path, kind, policy, counts, column, id_column, text_columns)
        else:
            yield from read_source(path, kind, file_format=file_format, content=content, policy=policy, counts=counts)


def is_table(path: Path | str) -> bool:
    """Return whether a file's name says that it is a table.

    >>> is_table("rows.csv.gz"), is_table("genome.fa")
    (True, False)
    """
    return str(path) != STANDARD_INPUT and bare_name(path).suffix.lower() in TABLE_SUFFIXES


def _read_rows(
    path: Path | str, kind: str, policy: LetterPolicy, counts: LetterCounts, column: str, id_column: str, text_columns: Sequence[str]
) -> Iterator[Record]:
    """Yield the sequences of a table."""
    stem = bare_name(path).stem
    wanted = [column, *([id_column] if id_column else []), *text_columns]
    for number, (line, cells) in enumerate(iterate_table(path, wanted), start=1):
        identifier = cells[id_column] if id_column else cells.get("id", "")
        text = "; ".join(f"{name}: {cells[name].strip()}" for name in text_columns if cells[name].strip())
        record = Record(identifier.strip() or f"{stem}:{number}", text, "".join(cells[column].split()))
        check(record, kind, policy, f"{spoken_path(path)}, line {line}")
        yield from apply(record, kind, policy, counts)


def nothing_left(paths: Sequence[Path | str], counts: LetterCounts) -> InputError:
    """Return the error for inputs of which no sequence is left."""
    names = ", ".join(spoken_path(path) for path in paths[:3]) + (" ..." if len(paths) > 3 else "")
    reasons = ", ".join(f"{reason}: {number:,}" for reason, number in counts.records_rejected.items())
    found = f"{names}: none of {counts.records_read:,} records is left" + (f" ({reasons})" if reasons else "")
    return InputError(found, "at least one sequence", "Check the files and the policy for letters")
