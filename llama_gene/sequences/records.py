"""Read what users have: FASTA and FASTQ records, English documents and tables, plain or compressed (.gz .bz2 .xz .zst).

dnaio parses, xopen decompresses. Letters are checked here, at the border, and nowhere after. A fault names the file and the line:
the line is looked up only when there is a fault, so that reading a genome costs one pass. Records may come from standard input ("-"),
which can be read only once: a fault there names the record.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import lzma
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from llama_gene.errors import InputError, MissingFileError, did_you_mean
from llama_gene.runtime import MANIFEST_NAME
from llama_gene.sequences.alphabet import Alphabet, check_letters, first_fault, get_alphabet

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DOCUMENT_CHARS = 4_000  # a .txt document closes at the first blank line after this many characters (about 1,000 tokens)
LONGEST_DOCUMENT_CHARS = 16_000  # and at any line end after this many: a book without blank lines still gives documents
MAX_RECORD_LENGTH = 1_000_000_000  # letters; the longest human chromosome has a quarter of that
STANDARD_INPUT = "-"
_WANTED = ("FASTA or FASTQ", "Check the path; compressed files end in .gz .bz2 .xz .zst")
_COMMENT = re.compile(rb"\n[ \t]*#")
_MAX_FIELD_CHARS = 1 << 30  # the csv module stops at 131,072 characters, less than one bacterial gene cluster


@dataclass(frozen=True)
class Record:
    """One sequence of a file: the first word of its header, the rest of the header, and its letters."""

    id: str
    description: str
    sequence: str


def read_records(
    path: Path | str,
    kind: str = "dna",
    uppercase: bool = True,
    *,
    counts: Counter[str] | None = None,
    unique_ids: bool = False,
    max_record_length: int = MAX_RECORD_LENGTH,
) -> Iterator[Record]:
    """Yield the records of a FASTA or FASTQ file, one at a time (a record is held whole: at most one chromosome).

    The path "-" is standard input, plain or compressed (told by its first bytes). `counts` receives "records", "empty_records" and
    "duplicate_ids" (a record whose id an earlier one had); with `unique_ids` a repeated id is refused instead. Only these two hold the
    ids in memory. Raises MissingFileError, and InputError for a file that is empty, is cut short, is neither FASTA nor FASTQ, holds a
    letter that is not in the alphabet of `kind` (with the line), or a record of more than `max_record_length` letters.
    """
    alphabet = get_alphabet(kind)
    limits = _Limits(counts, unique_ids, max_record_length)
    if str(path) == STANDARD_INPUT:
        with _open_stdin() as handle:
            yield from _parse_records(handle, "standard input", None, alphabet, uppercase, limits)
    else:
        with _open(Path(path)) as handle:
            yield from _parse_records(handle, str(path), Path(path), alphabet, uppercase, limits)


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


@dataclass
class _Limits:
    """What a file's records are held against, and what is counted."""

    counts: Counter[str] | None = None
    unique_ids: bool = False
    max_record_length: int = MAX_RECORD_LENGTH
    ids: set[str] = field(default_factory=set)

    def check(self, identifier: str, num_letters: int, where: str) -> None:
        """Count a record. Raises InputError when it is too long, or when its id came before and must not."""
        if num_letters > self.max_record_length:
            raise _too_long(where, identifier, f"{num_letters:,}", self.max_record_length)
        if self.counts is None and not self.unique_ids:
            return
        repeated = identifier in self.ids
        self.ids.add(identifier)
        if repeated and self.unique_ids:
            raise InputError(f"{where}: two records are named '{identifier}'", "an id of its own for each record", "Rename or remove one")
        if self.counts is not None:
            self.counts.update({"records": 1, "duplicate_ids": int(repeated), "empty_records": int(num_letters == 0)})


class _FastaGuard(io.RawIOBase):
    """Bytes of a FASTA file on their way to the parser: stop before a record fills the memory, and at a line that it would drop.

    The parser holds a record whole, and leaves out lines that begin with "#" wherever they stand. Letters are counted a block at a time;
    the exact check is made on the parsed record.
    """

    def __init__(self, inner: BinaryIO, where: str, max_record_length: int) -> None:
        self._inner, self._where, self._limit = inner, where, max_record_length
        self.starts_as_text = True
        self._is_fasta: bool | None = None  # known from the first block; in FASTQ a line of qualities may begin with ">"
        self._last, self._name, self._letters, self._in_records = b"\n", "", 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Raises InputError once a record is more than a megabyte over the limit, and for a comment after a header."""
        block = self._inner.read(len(buffer))
        buffer[: len(block)] = block
        if self._is_fasta is None:
            self._is_fasta = block[:1] in (b">", b"#")
            self.starts_as_text = block[:64].isascii()
        if self._is_fasta and block:
            self._count(self._last + block)
        return len(block)

    def _count(self, block: bytes) -> None:
        """Add the letters of a block, which begins with the last byte of the one before, to those of the record under way."""
        first = 0 if self._in_records else max(block.find(b"\n>"), 0)
        has_comment = b"#" in block and _COMMENT.search(block, first) is not None
        start = block.rfind(b"\n>")
        self._in_records = self._in_records or start >= 0
        if self._in_records and has_comment:
            found = f"{self._where}: a line that begins with '#' among the records"
            raise InputError(found, "headers and letters", "Remove the line: what it holds would be lost")
        if start >= 0:
            block = block[start + 1 :]
            self._name = block[1:200].split(maxsplit=1)[0].decode("ascii", "replace") if block[1:200].strip() else ""
            self._letters = 0
        self._letters += len(block) - 1 - block.count(b"\n")
        self._last = block[-1:]
        if self._letters > self._limit + (1 << 20):
            raise _too_long(self._where, self._name, f"more than {self._limit:,}", self._limit)


def _too_long(where: str, identifier: str, found: str, limit: int) -> InputError:
    """Return the error for a record over the limit."""
    return InputError(
        f"{where}, record '{identifier}' has {found} letters", f"at most {limit:,}", "Split the record, or raise max_record_length"
    )


def _parse_records(
    handle: BinaryIO, where: str, path: Path | None, alphabet: Alphabet, uppercase: bool, limits: _Limits
) -> Iterator[Record]:
    """Yield the records of an open file; without a `path` to read again, a fault names the record instead of the line."""
    import dnaio

    num_records = 0
    guard = _FastaGuard(handle, where, limits.max_record_length)
    try:
        with dnaio.open(io.BufferedReader(guard, 1 << 20)) as reader:
            for number, found in enumerate(reader):
                sequence = found.sequence
                identifier, _, description = found.name.partition(" ")
                limits.check(identifier, len(sequence), where)
                if first_fault(sequence, alphabet) is not None:
                    if path is not None:
                        _raise_fault(path, number, sequence, found.name, alphabet)
                    check_letters(sequence, alphabet, f"{where}, record '{identifier}'")
                yield Record(identifier, description.strip(), sequence.upper() if uppercase else sequence)
                num_records += 1
    except (dnaio.UnknownFileFormat, dnaio.FileFormatError) as error:
        if not guard.starts_as_text:
            raise InputError(f"{where} is not text", *_WANTED) from error
        detail = "its first character is neither '>' nor '@'" if isinstance(error, dnaio.UnknownFileFormat) else _one_line(error)
        raise InputError(f"{where}: {detail}", "FASTA or FASTQ", "Convert the file, or check that it is whole") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not text", *_WANTED) from error
    if num_records == 0:
        raise InputError(f"{where} holds no record", "at least one FASTA or FASTQ record", "Check that the file is whole")


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
    with _decompression_faults(str(path)):
        with xopen(path, "rb", threads=_decompression_threads(path.suffix == ".zst")) as handle:
            yield handle


@contextmanager
def _open_stdin() -> Iterator[BinaryIO]:
    """Open standard input for reading bytes, decompressed if its first bytes say so; it stays open afterwards."""
    from xopen import xopen

    with open(sys.stdin.fileno(), "rb", closefd=False) as raw, _decompression_faults("standard input"):
        is_zstd = raw.peek(4)[:4] == b"\x28\xb5\x2f\xfd"
        with xopen(raw, "rb", threads=_decompression_threads(is_zstd)) as handle:
            yield handle


def _decompression_threads(is_zstd: bool) -> int | None:
    """Return xopen's `threads`: .zst needs the program `zstd` where Python has no zstandard module, and None starts it; 0 stays here."""
    return None if is_zstd else 0


@contextmanager
def _decompression_faults(where: str) -> Iterator[None]:
    """Turn what a decompressor raises into InputError; faults of the machine (errno) stay as they are."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, MissingFileError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise InputError(f"{where} cannot be decompressed: {_one_line(error)}", "a whole file", "Download or compress it again") from error


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
