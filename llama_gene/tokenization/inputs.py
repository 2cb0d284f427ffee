"""The files that vocabularies are trained and measured on: found, read, checked, sampled."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llama_gene import runtime
from llama_gene.errors import InputError, MissingFileError
from llama_gene.sequences.alphabet import check_letters, get_alphabet
from llama_gene.sequences.files import STANDARD_INPUT, bare_name, expand_paths
from llama_gene.sequences.formats import RECORD_SUFFIXES
from llama_gene.sequences.records import read_documents, read_records

_DOCUMENT_SUFFIXES = (".jsonl", ".json", ".txt")
_SAMPLE_LETTERS = 1000  # a subsample is drawn in chunks of this many letters: a genome is one record


def find_paths(patterns: Iterable[str], data_dir: Path | None) -> list[Path]:
    """Return the files of inputs, each looked up in the current folder and then in `data_dir`. Raises MissingFileError."""
    found: list[Path] = []
    for pattern in patterns:
        try:
            found += expand_paths([pattern])
        except MissingFileError:
            if data_dir is None or Path(pattern).expanduser().is_absolute():
                raise
            found += expand_paths([data_dir / pattern])
    return list(dict.fromkeys(found))


def find_queries(patterns: Iterable[str], data_dir: Path | None) -> list[Path | str]:
    """Return the same with "-", standard input, where it stands. Raises MissingFileError."""
    found: list[Path | str] = []
    for pattern in patterns:
        found += [pattern] if pattern == STANDARD_INPUT else find_paths([pattern], data_dir)
    return list(dict.fromkeys(found))


def find_base(base: str, data_dir: Path | None) -> str:
    """Return a base as it is found: here, in `data_dir`, or as given (a hub id)."""
    if data_dir is not None and not Path(base).exists() and (data_dir / base).exists():
        return str(data_dir / base)
    return base


def file_hashes(paths: Iterable[Path]) -> list[dict[str, str]]:
    """Return name and SHA-256 (16 digits) of each file."""
    return [{"file": path.name, "sha256": runtime.file_hash(path)} for path in paths]


def read_sequences(path: Path, kind: str) -> Iterator[str]:
    """Yield the sequences of a FASTA, FASTQ, JSONL or plain file (a sequence a line), upper-cased; their letters are checked."""
    alphabet = get_alphabet(kind)
    if bare_name(path).suffix.lower() in _DOCUMENT_SUFFIXES:
        for name, text in read_documents(path):
            for line in text.upper().split():
                check_letters(line, alphabet, f"{path}, document {name}")
                yield line
    else:
        yield from (record.sequence for record in read_records(path, kind))


def is_records(path: Path) -> bool:
    """Return whether a file's name says that it holds sequences (FASTA, FASTQ)."""
    return bare_name(path).suffix.lower() in RECORD_SUFFIXES


def read_texts(path: Path) -> Iterator[str]:
    """Yield the documents of a file: records of FASTA and FASTQ as DNA, everything else as text."""
    if is_records(path):
        yield from (record.sequence for record in read_records(path, "dna"))
    else:
        yield from (text for _, text in read_documents(path))


def sample_letters(texts: Sequence[str], max_letters: int, seed: str) -> list[str]:
    """Return chunks of texts with about `max_letters` letters (never more), drawn by the seed, in their first order."""
    chunks = [text[start : start + _SAMPLE_LETTERS] for text in texts for start in range(0, len(text), _SAMPLE_LETTERS)]
    order = list(range(len(chunks)))
    random.Random(seed).shuffle(order)
    kept: list[int] = []
    room = max_letters
    for number in order:
        if len(chunks[number]) > room:
            break
        kept.append(number)
        room -= len(chunks[number])
    if not kept:
        raise InputError(f"max_letters {max_letters} holds no chunk of {_SAMPLE_LETTERS} letters", "a larger sample", "Raise max_letters")
    return [chunks[number] for number in sorted(kept)]
