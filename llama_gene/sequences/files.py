"""Find the files that users name, and open them: plain, compressed (.gz .bz2 .xz .zst), or standard input ("-").

Every reader of this package opens its files here, so a damaged archive, a folder in place of a file and a text that is not UTF-8 are told
in the same words everywhere. xopen decompresses. A byte-order mark is skipped: editors on Windows put
one before the first ">" of a FASTA file.
"""

from __future__ import annotations

import codecs
import glob
import io
import lzma
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from llama_gene.errors import InputError, MissingFileError
from llama_gene.runtime import MANIFEST_NAME

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
STANDARD_INPUT = "-"
HEAD_BYTES = 1 << 20
"""So many bytes of a file are held: `peek` of an opened file returns them, or the whole of a shorter file."""


def expand_paths(patterns: Sequence[str | Path]) -> list[Path]:
    """Return the files that files, folders and globs name, sorted, each once.

    A folder stands for every file below it but hidden ones and our manifests. Raises MissingFileError for a pattern without a file,
    InputError for a folder without one, and for a pipe or a device.
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
        if not files and path.exists() and not path.is_dir():
            raise InputError(
                f"{pattern} is a pipe or a device", "a file, or standard input", f"Give {STANDARD_INPUT} and pipe into the command"
            )
        if not files and path.is_dir():
            raise InputError(f"{pattern} holds no file", "a folder that holds files", "Check the path")
        if not files:
            raise MissingFileError(pattern, "a file, a folder that holds files, or a glob that matches some")
        found.update(files)
    return sorted(found)


def bare_name(path: Path | str) -> Path:
    """Return the name of a file without its folder and without the suffix of its compression.

    >>> bare_name("genomes/yeast.fna.gz").suffix, bare_name("reads.fq").suffix
    ('.fna', '.fq')
    """
    path = Path(path)
    return Path(path.stem) if path.suffix.lower() in COMPRESSIONS else Path(path.name)


def spoken_path(path: Path | str) -> str:
    """Return how a message names a path."""
    return "standard input" if str(path) == STANDARD_INPUT else str(path)


@contextmanager
def open_bytes(path: Path | str) -> Iterator[io.BufferedReader]:
    """Open a file, or standard input, for reading its bytes, decompressed; `peek` shows its beginning.

    Raises MissingFileError, and InputError for a folder and for a fault of the compression, also while it is read. What standard input is
    compressed with is told by its first bytes; it stays open afterwards.
    """
    from xopen import xopen

    if str(path) == STANDARD_INPUT:
        with open(sys.stdin.fileno(), "rb", closefd=False) as raw, _decompression_faults("standard input"):
            is_zstd = raw.peek(4)[:4] == b"\x28\xb5\x2f\xfd"
            with xopen(raw, "rb", threads=_decompression_threads(is_zstd)) as handle:
                yield _after_mark(handle)
        return
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder", "a file", "Name the files in it, or use a glob")
    if not path.is_file():
        raise MissingFileError(path)
    with _decompression_faults(str(path)):
        with xopen(path, "rb", threads=_decompression_threads(path.suffix == ".zst")) as handle:
            yield _after_mark(handle)


@contextmanager
def open_text(path: Path | str) -> Iterator[io.TextIOWrapper]:
    """Open a file, or standard input, for reading UTF-8; other encodings become InputError."""
    with open_bytes(path) as handle, as_text(handle, spoken_path(path)) as text:
        yield text


@contextmanager
def as_text(handle: BinaryIO, where: str) -> Iterator[io.TextIOWrapper]:
    """Read the bytes of an open file as UTF-8; other encodings become InputError. A line ends as the file has it: \\n, \\r\\n or \\r."""
    try:
        yield io.TextIOWrapper(handle, encoding="utf-8", newline="")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8: {error.reason}", "UTF-8 text", "Convert the file with iconv") from error


def one_line(error: BaseException) -> str:
    """Return an exception's text on one line."""
    return " ".join(str(error).split()).rstrip(".")


class _FullReads(io.RawIOBase):
    """A file whose every read but the last fills the buffer: a pipe may give one byte where a reader wants to see the beginning."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or what there is left to fill it with."""
        filled = 0
        while filled < len(buffer):
            block = self._inner.read(len(buffer) - filled)
            if not block:
                break
            buffer[filled : filled + len(block)] = block
            filled += len(block)
        return filled


def _after_mark(inner: BinaryIO) -> io.BufferedReader:
    """Return a file that is read from its beginning, or from behind its byte-order mark."""
    handle: io.BufferedReader = io.BufferedReader(_FullReads(inner), HEAD_BYTES)
    if handle.peek(3)[:3] == codecs.BOM_UTF8:
        handle.read(3)
    return handle


def _is_ours_or_hidden(path: Path) -> bool:
    """Tell whether a file below a folder is no data: hidden, in a hidden folder, or a manifest."""
    return path.name == MANIFEST_NAME or any(part.startswith(".") for part in path.parts)


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
        raise InputError(f"{where} cannot be decompressed: {one_line(error)}", "a whole file", "Download or compress it again") from error
