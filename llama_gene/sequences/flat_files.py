"""Flat files (GenBank, UniProt): a file is cut into records here, and each is parsed by itself.

Biopython parses; but it skips what precedes a record, only warns where a sequence is shorter than the record says, and raises anything from
KeyError to AssertionError on a damaged one. So the letters of the text are counted against those of the result: a fault is one InputError
with file and line, and no base is lost unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from llama_gene.errors import InputError
from llama_gene.sequences.files import as_text

FLAT_FILE_HINT = "Check the format, and that the file is whole"
# What Biopython raises on damaged records (found by mutating good ones), all of which are faults of the file
PARSER_FAULTS = (ValueError, AssertionError, LookupError, AttributeError, TypeError, NameError, RuntimeError, StopIteration)


def entries(handle: BinaryIO, where: str, opening: str) -> Iterator[tuple[str, str]]:
    """Yield ("FILE, line N", text) of each record of an open flat file: from a line that begins with `opening` to a line "//".

    Raises InputError for text between records, a record without its end, and a file without a record. The preamble of a GenBank release
    is skipped.
    """
    lines: list[str] = []
    first = num_entries = 0
    in_preamble = False
    with as_text(handle, where) as text:
        for number, line in enumerate(text, start=1):
            line = line.rstrip("\r\n")
            if line.startswith(opening):
                if lines:
                    found = f"{where}, line {number}: a record begins before that of line {first} ends"
                    raise InputError(found, "a line // between them", FLAT_FILE_HINT)
                first, in_preamble = number, False
            elif not lines:
                in_preamble = in_preamble or (number == 1 and "Genetic Sequence Data Bank" in line)
                if line.strip() and not in_preamble:
                    expected = f"a record, which begins with {opening.strip()}"
                    raise InputError(f"{where}, line {number}: {line[:40]!r}", expected, FLAT_FILE_HINT)
                continue
            lines.append(line)
            if line.rstrip() == "//":
                num_entries += 1
                yield f"{where}, line {first}", "\n".join(lines) + "\n"
                lines = []
    if lines:
        raise InputError(f"{where} ends inside the record of line {first}", "a line // after each record", "Check that the file is whole")
    if num_entries == 0:
        raise InputError(f"{where} holds no record", f"one that begins with {opening.strip()}", FLAT_FILE_HINT)


def check_length(where: str, stated: str, num_letters: int, sequence: str) -> None:
    """Raise InputError unless the length a record states, the letters its text holds, and the parsed sequence agree."""
    if not int(stated) == num_letters == len(sequence):
        found = f"{where}: a sequence of {len(sequence):,} letters ({num_letters:,} in the text)"
        raise InputError(found, f"{int(stated):,} as the record says", "Check that the file is whole")
