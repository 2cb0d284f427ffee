"""Read what users have: FASTA and FASTQ records, English documents and tables, plain or compressed, from files or standard input ("-").

A fault names the file and the line: the line is looked up only when there is a fault, so that reading a genome costs one pass.
Standard input can be read only once: a fault there names the record. A line may end in \\n, \\r\\n or \\r, mixed as they come.

`read_records` also checks the letters against an alphabet; sources.py reads any format under a policy for its letters.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from llama_gene.errors import InputError, did_you_mean
from llama_gene.sequences.alphabet import check_letters, first_fault, get_alphabet
from llama_gene.sequences.files import STANDARD_INPUT, as_text, bare_name, one_line, open_bytes, open_text, spoken_path

DOCUMENT_CHARS = 4_000  # a .txt document closes at the first blank line after this many characters (about 1,000 tokens)
LONGEST_DOCUMENT_CHARS = 16_000  # and at any line end after this many: a book without blank lines still gives documents
MAX_RECORD_LENGTH = 1_000_000_000  # letters; the longest human chromosome has a quarter of that
_FIRST_HEADER = re.compile(rb"(?:[ \t]*\n|#.*\n)*>")
_MAX_HEADER = 1 << 20  # bytes of a header, and of what stands before the first one
_CIRCULAR = re.compile(r"\[topology=circular\]|(?:^|\s)circular=true\b", re.IGNORECASE)
_MAX_FIELD_CHARS = 1 << 30  # the csv module stops at 131,072 characters, less than one bacterial gene cluster


@dataclass(frozen=True)
class Record:
    """One sequence of a file: the first word of its header, the rest of the header, its letters, and whether it is a circle.

    A FASTA header says so with "[topology=circular]" or "circular=true".
    """

    id: str
    description: str
    sequence: str
    circular: bool = False
    source_id: str = field(default="", compare=False)

    @property
    def origin(self) -> str:
        """The id of the file's record that this is, or is a piece of."""
        return self.source_id or self.id


def read_records(
    path: Path | str, kind: str = "dna", uppercase: bool = True, *, max_record_length: int = MAX_RECORD_LENGTH
) -> Iterator[Record]:
    """Yield the records of a FASTA or FASTQ file, one at a time (a record is held whole: at most one chromosome).

    The path "-" is standard input, plain or compressed (told by its first bytes).
    Raises MissingFileError, and InputError for a file that is empty, is cut short, is neither FASTA nor FASTQ, holds a
    letter that is not in the alphabet of `kind` (with the line), or a record of more than `max_record_length` letters.
    """
    alphabet = get_alphabet(kind)
    where = spoken_path(path)
    with open_bytes(path) as handle:
        for number, record in enumerate(parse_records(handle, where, max_record_length=max_record_length)):
            if first_fault(record.sequence, alphabet) is not None:
                place = fault_place(path, number, record.id, lambda line: first_fault(line, alphabet) is not None)
                # the whole sequence, whose first fault this is: one line of a protein may look like RNA, and the advice depends on it
                check_letters(record.sequence, alphabet, place)
            upper = record.sequence.upper() if uppercase else record.sequence
            yield Record(record.id, record.description, upper, record.circular)


def parse_records(handle: io.BufferedReader, where: str, *, max_record_length: int = MAX_RECORD_LENGTH) -> Iterator[Record]:
    """Yield the records of an open FASTA or FASTQ file with the letters that it holds, in their case, unchecked.

    In FASTA blanks among the letters are left out, and comments ("#") may stand before the first record.
    Raises InputError that begins with `where` for a file without a record, one that is neither FASTA nor FASTQ or is cut short, and a
    record of more than `max_record_length` letters.
    """
    first = handle.peek(1).lstrip()[:1]
    if first not in (b"", b">", b"#", b"@"):
        detail = ": its first character is neither '>' nor '@'" if handle.peek(1)[:64].isascii() else " is not text"
        raise InputError(f"{where}{detail}", "FASTA or FASTQ", "Check the path and the format; compressed files end in .gz .bz2 .xz .zst")
    num_records = 0
    for header, sequence in _parse_fastq(handle, where) if first == b"@" else _parse_fasta(handle, where, max_record_length):
        identifier, description = split_header(header)
        if len(sequence) > max_record_length:
            raise too_long(where, identifier, f"{len(sequence):,}", max_record_length)
        circular = "circular" in header.lower() and _CIRCULAR.search(description) is not None
        yield Record(identifier, description, sequence, circular)
        num_records += 1
    if num_records == 0:
        raise InputError(f"{where} holds no record", "at least one FASTA or FASTQ record", "Check that the file is whole")


def split_header(header: str) -> tuple[str, str]:
    """Return the first word of a header and the rest.

    >>> split_header("chr1 first one")
    ('chr1', 'first one')
    """
    words = header.split(maxsplit=1)
    return (words[0], words[1].rstrip()) if len(words) == 2 else (words[0] if words else "", "")


def fault_place(path: Path | str, number: int, identifier: str, is_faulty: Callable[[str], bool]) -> str:
    """Return "FILE, line N" of the first faulty line of record `number` (from 0), "standard input, record 'ID'" where none can be read."""
    where = spoken_path(path)
    if str(path) != STANDARD_INPUT:
        record = -1
        with open_bytes(path) as handle:
            is_fastq = handle.peek(1)[:1] == b"@"
            for line_number, line in enumerate(io.TextIOWrapper(handle, "utf-8", errors="replace", newline=""), start=1):
                record += line_number % 4 == 1 if is_fastq else line.startswith(">")
                is_sequence = line_number % 4 == 2 if is_fastq else not line.startswith(">")
                if record == number and is_sequence and is_faulty(line.rstrip("\r\n").replace(" ", "").replace("\t", "")):
                    return f"{where}, line {line_number}"
    return f"{where}, record '{identifier}'"


def too_long(where: str, identifier: str, found: str, limit: int) -> InputError:
    """Return the error for a record over the limit."""
    return InputError(
        f"{where}, record '{identifier}' has {found} letters", f"at most {limit:,}", "Split the record, or raise max_record_length"
    )


def read_documents(path: Path | str) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of the English documents of a file; documents without text are skipped.

    .jsonl: an object a line; .json: a list of objects, or one object whose values are objects. The text is the field `text`, the
    id the field `id` (else the key, else FILE:NUMBER). Any other name is plain text: paragraphs are gathered until a document has
    4,000 characters and a blank line follows; a file without blank lines is cut at a line end after 16,000.
    Raises MissingFileError, and InputError (with the line) for JSON that cannot be read or has no `text`, or a file without text.
    """
    suffix = bare_name(path).suffix
    file_format = suffix.removeprefix(".") if suffix in (".jsonl", ".json") else "text"
    with open_bytes(path) as handle:
        yield from ((identifier, text) for identifier, text in parse_documents(handle, path, file_format) if text.strip())


def parse_documents(handle: BinaryIO, path: Path | str, file_format: str) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of the documents of an open jsonl, json or text file, those without text too; see `read_documents`."""
    where = spoken_path(path)
    stem = bare_name(path).stem if str(path) != STANDARD_INPUT else "stdin"
    parse = {"jsonl": _json_lines, "json": _json_objects, "text": _paragraph_groups}[file_format]
    num_texts = 0
    with as_text(handle, where) as lines:
        for number, (identifier, text) in enumerate(parse(lines, where), start=1):
            num_texts += bool(text.strip())
            yield identifier or f"{stem}:{number}", text
    if num_texts == 0:
        raise InputError(f"{where} holds no text", "at least one document", "Check that the file is whole")


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV or TSV file with a header line, as column -> value; every column of the file is kept.

    Tabs separate the columns if the header line holds one, commas otherwise.
    Raises MissingFileError, and InputError for a missing column (with the nearest name), a row of another width, or no row.
    """
    return [cells for _, cells in iterate_table(path, columns)]


def iterate_table(path: Path | str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (number of its last line, row) of what `read_table` returns, one row in memory at a time."""
    csv.field_size_limit(_MAX_FIELD_CHARS)
    where = spoken_path(path)
    num_rows = 0
    with open_text(path) as handle:
        first_line = handle.readline()
        reader = csv.reader(_chain(first_line, handle), delimiter="\t" if "\t" in first_line else ",")
        header = next(reader, [])
        if not header:
            raise InputError(f"{where} has no header", "a header line and at least one row", "Check that the file is whole")
        for column in columns:
            if column not in header:
                hint = did_you_mean(column, header) or "Name a column that the table has"
                raise InputError(f"{where} has no column '{column}'", f"one of {', '.join(header)}", hint)
        try:
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise InputError(
                        f"{where}, line {reader.line_num}: {len(fields)} columns", f"{len(header)} as in the header", "Mend the line"
                    )
                yield reader.line_num, dict(zip(header, fields, strict=True))
                num_rows += 1
        except csv.Error as error:
            raise InputError(f"{where}, line {reader.line_num}: {error}", "a CSV or TSV table", "Mend the line") from error
    if not num_rows:
        raise InputError(f"{where} holds no row", "a header line and at least one row", "Check that the file is whole")


def _parse_fasta(handle: io.BufferedReader, where: str, max_record_length: int) -> Iterator[tuple[str, str]]:
    """Yield (header, letters) of the records of an open FASTA file.

    The file comes in blocks, and a record is the stretch between two "\\n>", so nothing loops over lines. dnaio's parser leaves out lines
    that begin with "#" wherever they stand (their letters would be lost unseen) and wants headers in ASCII. For records of 1 Mb this one
    reads 594 MB/s where dnaio reads 367, for proteins 151 where dnaio reads 306 (one core of a busy machine); a record of 246 Mb takes
    0.75 GB of memory, through dnaio 1.0 GB.
    """
    header: bytes | None = None  # of the record under way
    parts: list[bytes] = []
    num_letters = 0
    pending = b""  # the end of a block that cannot be understood without the next one
    for block in _blocks_of_fasta(handle, where):
        data, position = pending + block, 0
        while True:
            if header is None:  # at ">"
                end = data.find(b"\n", position)
                if end < 0:
                    pending = data[position:]
                    break
                header, position = data[position + 1 : end], end
            end = data.find(b"\n>", position)
            is_last = end < 0
            if is_last:
                end = len(data) - data.endswith(b"\n")
            part = data[position:end].replace(b"\n", b"")
            for blank in (b" ", b"\t"):
                if blank in part:
                    part = part.replace(blank, b"")
            num_letters += len(part)
            parts.append(part)
            if is_last:
                pending = data[end:]
                break
            yield _decoded(header), _decoded(b"".join(parts))
            header, parts, num_letters, position = None, [], 0, end + 1
        if header is None and len(pending) > _MAX_HEADER:
            raise InputError(f"{where} has a header of more than {_MAX_HEADER:,} bytes", "FASTA or FASTQ", "Check the format")
        if header is not None and num_letters > max_record_length + (1 << 20):  # the exact check is made on the whole record
            raise too_long(where, split_header(_decoded(header))[0], f"more than {max_record_length:,}", max_record_length)
    if header is not None:
        yield _decoded(header), _decoded(b"".join(parts))


def _blocks_of_fasta(handle: io.BufferedReader, where: str) -> Iterator[bytes]:
    """Yield a FASTA file from its first header on, every line end made \\n, with one more at its end. Raises InputError for other text."""
    blocks = _blocks(handle)
    beginning = b""
    for block in blocks:
        beginning += block
        if start := _FIRST_HEADER.match(beginning):
            yield beginning[start.end() - 1 :]
            yield from blocks
            yield b"\n"
            return
        if len(beginning) > _MAX_HEADER:
            break
    for number, line in enumerate(beginning.split(b"\n"), start=1):
        if line.strip() and not line.startswith(b"#"):
            found = f"{where}, line {number}: {_decoded(line[:40])!r}"
            raise InputError(found, "a FASTA header, which begins with '>'", "Convert the file, or check that it is whole")


def _blocks(handle: io.BufferedReader) -> Iterator[bytes]:
    """Yield a file by the megabyte, with \\n for \\r\\n and for \\r, also where the two halves of a line end are in two blocks."""
    after_return = False
    while block := handle.read(1 << 20):
        if after_return:
            block = block.removeprefix(b"\n")
        after_return = block.endswith(b"\r")
        yield block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block


def _decoded(text: bytes) -> str:
    """Return bytes as text; what is no UTF-8 becomes signs that are no letters of any alphabet."""
    return text.decode("utf-8", "replace")


def _parse_fastq(handle: io.BufferedReader, where: str) -> Iterator[tuple[str, str]]:
    """Yield (header, letters) of the records of an open FASTQ file."""
    import dnaio

    try:
        with dnaio.open(io.BufferedReader(_PlainLineEnds(_blocks(handle))), fileformat="fastq") as reader:
            yield from ((found.name, found.sequence) for found in reader)
    except dnaio.FileFormatError as error:
        raise InputError(f"{where}: {one_line(error)}", "FASTA or FASTQ", "Convert the file, or check that it is whole") from error


class _PlainLineEnds(io.RawIOBase):
    """A file of blocks, for a parser that wants a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what is left of a block."""
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _chain(first_line: str, rest: Iterator[str]) -> Iterator[str]:
    """Yield a line that was read ahead, then the others."""
    if first_line:
        yield first_line
    yield from rest


def _json_lines(lines: io.TextIOWrapper, where: str) -> Iterator[tuple[str, str]]:
    """Yield the documents of a .jsonl file."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise InputError(f"{where}, line {number}: {_json_fault(error)}", "a JSON object", "Mend the line") from error
            yield _document(value, f"{where}, line {number}")


def _json_objects(lines: io.TextIOWrapper, where: str) -> Iterator[tuple[str, str]]:
    """Yield the documents of a .json file: a list of objects, or an object of objects."""
    try:
        value = json.load(lines)
    except (json.JSONDecodeError, RecursionError) as error:
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{where}{place}: {_json_fault(error)}", "JSON", "Check that the file is whole") from error
    if isinstance(value, dict) and "text" in value:
        yield _document(value, where)
    elif isinstance(value, dict):
        for key, item in value.items():
            identifier, text = _document(item, f"{where}, key '{key}'")
            yield identifier or key, text
    elif isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield _document(item, f"{where}, item {number}")
    else:
        raise InputError(f"{where} holds {type(value).__name__}", "a list of objects with a field `text`", "Convert the file")


def _json_fault(error: json.JSONDecodeError | RecursionError) -> str:
    """Return what is wrong with JSON text."""
    return error.msg if isinstance(error, json.JSONDecodeError) else "values nested too deep"


def _check_unicode(text: str, where: str) -> None:
    """Raise InputError for half of a surrogate pair, which JSON can spell and UTF-8 cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: {text[error.start]!a} is half of a character", "whole characters", "Mend or remove the line") from error


def _document(value: Any, where: str) -> tuple[str, str]:
    """Return (id or "", text) of one JSON object."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        fields = ", ".join(value) if isinstance(value, dict) else type(value).__name__
        raise InputError(f"{where}: no field `text` (found {fields})", "an object with a field `text`", "Rename the field")
    if not (value["text"] + str(value.get("id", ""))).isprintable():  # most texts have line ends: a quick test for the rare rest
        _check_unicode(value["text"] + str(value.get("id", "")), where)
    return str(value.get("id", "")), value["text"]


def _paragraph_groups(lines: io.TextIOWrapper, where: str) -> Iterator[tuple[str, str]]:
    """Yield the documents of plain text; see `read_documents`."""
    paragraphs: list[str] = []
    num_chars = 0
    for line in lines:
        paragraphs.append(line.rstrip("\r\n"))
        num_chars += len(line)
        if num_chars >= (LONGEST_DOCUMENT_CHARS if line.strip() else DOCUMENT_CHARS):
            yield "", "\n".join(paragraphs).strip()
            paragraphs, num_chars = [], 0
    if paragraphs:
        yield "", "\n".join(paragraphs).strip()
