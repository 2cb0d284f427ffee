"""Read what users have: FASTA and FASTQ records, English documents and tables, plain or compressed (.gz .bz2 .xz .zst).

dnaio parses, xopen decompresses. Letters are checked here, at the border, and nowhere after. A fault names the file and the line:
the line is looked up only when there is a fault, so that reading a genome costs one pass.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from llama_gene.errors import InputError, MissingFileError, did_you_mean
from llama_gene.runtime import MANIFEST_NAME
from llama_gene.sequences.alphabet import Alphabet, check_letters, first_fault, get_alphabet

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DOCUMENT_CHARS = 4_000  # a .txt document closes at the first blank line after this many characters (about 1,000 tokens)
LONGEST_DOCUMENT_CHARS = 16_000  # and at any line end after this many: a book without blank lines still gives documents
_MAX_FIELD_CHARS = 1 << 30  # the csv module stops at 131,072 characters, less than one bacterial gene cluster


@dataclass(frozen=True)
class Record:
    """One sequence of a file: the first word of its header, the rest of the header, and its letters."""

    id: str
    description: str
    sequence: str


def read_records(path: Path, kind: str = "dna", uppercase: bool = True) -> Iterator[Record]:
    """Yield the records of a FASTA or FASTQ file, one at a time (a record is held whole: at most one chromosome).

    Raises MissingFileError, and InputError for a file that is empty, is cut short, is neither FASTA nor FASTQ, or holds a letter that
    is not in the alphabet of `kind` (with the line).
    """
    import dnaio

    alphabet = get_alphabet(kind)
    num_records = 0
    with _open(path) as handle:
        try:
            with dnaio.open(handle) as reader:
                for number, found in enumerate(reader):
                    sequence = found.sequence
                    if first_fault(sequence, alphabet) is not None:
                        _raise_fault(path, number, sequence, found.name, alphabet)
                    identifier, _, description = found.name.partition(" ")
                    yield Record(identifier, description.strip(), sequence.upper() if uppercase else sequence)
                    num_records += 1
        except (dnaio.UnknownFileFormat, dnaio.FileFormatError) as error:
            detail = "its first character is neither '>' nor '@'" if isinstance(error, dnaio.UnknownFileFormat) else _one_line(error)
            raise InputError(f"{path}: {detail}", "FASTA or FASTQ", "Convert the file, or check that it is whole") from error
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is not text", "FASTA or FASTQ", "Check the path; compressed files end in .gz .bz2 .xz .zst"
            ) from error
    if num_records == 0:
        raise InputError(f"{path} holds no record", "at least one FASTA or FASTQ record", "Check that the file is whole")


def read_documents(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of the English documents of a file; documents without text are skipped.

    .jsonl: an object a line; .json: a list of objects, or one object whose values are objects. The text is the field `text`, the
    id the field `id` (else the key, else FILE:NUMBER). Any other name is plain text: paragraphs are gathered until a document has
    4,000 characters and a blank line follows; a file without blank lines is cut at a line end after 16,000.
    Raises MissingFileError, and InputError (with the line) for JSON that cannot be read or has no `text`, or a file without text.
    """
    name = _bare_name(path)
    if name.suffix == ".jsonl":
        documents = _json_lines(path)
    elif name.suffix == ".json":
        documents = _json_objects(path)
    else:
        documents = _paragraph_groups(path)
    num_documents = 0
    for number, (identifier, text) in enumerate(documents, start=1):
        if text.strip():
            num_documents += 1
            yield identifier or f"{name.stem}:{number}", text
    if num_documents == 0:
        raise InputError(f"{path} holds no text", "at least one document", "Check that the file is whole")


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV or TSV file with a header line, as column -> value; every column of the file is kept.

    Tabs separate the columns if the header line holds one, commas otherwise.
    Raises MissingFileError, and InputError for a missing column (with the nearest name), a row of another width, or no row.
    """
    csv.field_size_limit(_MAX_FIELD_CHARS)
    rows: list[dict[str, str]] = []
    with _open_text(path) as handle:
        first_line = handle.readline()
        reader = csv.reader(_chain(first_line, handle), delimiter="\t" if "\t" in first_line else ",")
        header = next(reader, [])
        for column in columns:
            if column not in header:
                hint = did_you_mean(column, header) or "Name a column that the table has"
                raise InputError(f"{path} has no column '{column}'", f"one of {', '.join(header)}", hint)
        try:
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(fields)} columns", f"{len(header)} as in the header", "Mend the line"
                    )
                rows.append(dict(zip(header, fields, strict=True)))
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}", "a CSV or TSV table", "Mend the line") from error
    if not rows:
        raise InputError(f"{path} holds no row", "a header line and at least one row", "Check that the file is whole")
    return rows


def expand_paths(patterns: Sequence[str | Path]) -> list[Path]:
    """Return the files that files, folders and globs name, sorted, each once.

    A folder stands for every file below it but hidden ones and our manifests. Raises MissingFileError for a pattern without a file,
    InputError for a folder without one.
    """
    found: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = [file for file in path.rglob("*") if file.is_file() and not _is_ours_or_hidden(file.relative_to(path))]
        else:
            files = [Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]
        if not files and path.is_dir():
            raise InputError(f"{pattern} holds no file", "a folder that holds files", "Check the path")
        if not files:
            raise MissingFileError(pattern, "a file, a folder that holds files, or a glob that matches some")
        found.update(files)
    return sorted(found)


def _is_ours_or_hidden(path: Path) -> bool:
    """Tell whether a file below a folder is no data: hidden, in a hidden folder, or a manifest."""
    return path.name == MANIFEST_NAME or any(part.startswith(".") for part in path.parts)


def _bare_name(path: Path) -> Path:
    """Return the file name without the suffix of its compression."""
    return Path(path.stem) if path.suffix in COMPRESSIONS else Path(path.name)


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; faults of the compression become InputError."""
    from xopen import xopen

    if path.is_dir():
        raise InputError(f"{path} is a folder", "a file", "Name the files in it, or use a glob")
    if not path.is_file():
        raise MissingFileError(path)
    # .zst needs the program `zstd` where Python has no zstandard module; threads=None starts it, threads=0 stays in this process
    threads = None if path.suffix == ".zst" else 0
    try:
        with xopen(path, "rb", threads=threads) as handle:
            yield handle
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, MissingFileError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise InputError(f"{path} cannot be decompressed: {_one_line(error)}", "a whole file", "Download or compress it again") from error


@contextmanager
def _open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a file for reading UTF-8 (a byte-order mark is skipped); other encodings become InputError."""
    with _open(path) as handle:
        try:
            yield io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8: {error.reason}", "UTF-8 text", "Convert the file with iconv") from error


def _chain(first_line: str, rest: Iterator[str]) -> Iterator[str]:
    """Yield a line that was read ahead, then the others."""
    if first_line:
        yield first_line
    yield from rest


def _json_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the documents of a .jsonl file."""
    with _open_text(path) as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                try:
                    value = json.loads(line)
                except json.JSONDecodeError as error:
                    raise InputError(f"{path}, line {number}: {error.msg}", "a JSON object", "Mend the line") from error
                yield _document(value, f"{path}, line {number}")


def _json_objects(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the documents of a .json file: a list of objects, or an object of objects."""
    with _open_text(path) as handle:
        try:
            value = json.load(handle)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {error.lineno}: {error.msg}", "JSON", "Check that the file is whole") from error
    if isinstance(value, dict) and "text" in value:
        yield _document(value, str(path))
    elif isinstance(value, dict):
        for key, item in value.items():
            identifier, text = _document(item, f"{path}, key '{key}'")
            yield identifier or key, text
    elif isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield _document(item, f"{path}, item {number}")
    else:
        raise InputError(f"{path} holds {type(value).__name__}", "a list of objects with a field `text`", "Convert the file")


def _document(value: Any, where: str) -> tuple[str, str]:
    """Return (id or "", text) of one JSON object."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        fields = ", ".join(value) if isinstance(value, dict) else type(value).__name__
        raise InputError(f"{where}: no field `text` (found {fields})", "an object with a field `text`", "Rename the field")
    return str(value.get("id", "")), value["text"]


def _paragraph_groups(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the documents of plain text; see `read_documents`."""
    lines: list[str] = []
    num_chars = 0
    with _open_text(path) as handle:
        for line in handle:
            lines.append(line.rstrip("\r\n"))
            num_chars += len(line)
            if num_chars >= (LONGEST_DOCUMENT_CHARS if line.strip() else DOCUMENT_CHARS):
                yield "", "\n".join(lines).strip()
                lines, num_chars = [], 0
    yield "", "\n".join(lines).strip()


def _raise_fault(path: Path, number: int, sequence: str, name: str, alphabet: Alphabet) -> None:
    """Raise the error for record `number` (from 0) whose letters are not all of the alphabet: find the line, then complain."""
    record = -1
    with _open_text(path) as handle:
        is_fastq = handle.readline().startswith("@")
    with _open_text(path) as handle:
        for line_number, line in enumerate(handle, start=1):
            if is_fastq:
                is_sequence = line_number == 4 * number + 2
            else:
                record += line.startswith(">")
                is_sequence = record == number and not line.startswith(">")
            if is_sequence and first_fault(line.rstrip("\r\n"), alphabet) is not None:
                # the whole sequence, whose first fault this is: one line of a protein may look like RNA, and the advice depends on it
                check_letters(sequence, alphabet, f"{path}, line {line_number}")
    check_letters(sequence, alphabet, f"{path}, record '{name}'")


def _one_line(error: BaseException) -> str:
    """Return an exception's text on one line."""
    return " ".join(str(error).split()).rstrip(".")
