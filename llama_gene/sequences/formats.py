"""Which format a file has: told by its name, else by its first bytes. What contradicts itself is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from llama_gene.errors import InputError
from llama_gene.sequences.files import HEAD_BYTES, STANDARD_INPUT, bare_name, spoken_path

FileFormat = Literal["auto", "fasta", "fastq", "genbank", "gff", "uniprot", "jsonl", "json", "text"]
HOLDS_SEQUENCES = ("fasta", "fastq", "genbank", "gff", "uniprot", "jsonl", "json")
DOCUMENTS = ("jsonl", "json", "text")
FORMATS = (*HOLDS_SEQUENCES, "text")
SPOKEN = {
    "fasta": "FASTA",
    "fastq": "FASTQ",
    "genbank": "GenBank",
    "gff": "GFF3",
    "uniprot": "a UniProt flat file",
    "jsonl": "JSON Lines",
    "json": "JSON",
    "text": "plain text",
}
_SUFFIXES = {
    **dict.fromkeys((".fa", ".fasta", ".fna", ".faa", ".ffn", ".frn", ".fas"), "fasta"),
    **dict.fromkeys((".fq", ".fastq"), "fastq"),
    **dict.fromkeys((".gb", ".gbk", ".gbff", ".genbank"), "genbank"),
    **dict.fromkeys((".gff", ".gff3"), "gff"),
    ".dat": "uniprot",
    ".jsonl": "jsonl",
    ".json": "json",
}
RECORD_SUFFIXES = tuple(suffix for suffix, name in _SUFFIXES.items() if name in ("fasta", "fastq"))


def choose_format(path: Path | str, file_format: str, head: bytes, is_english: bool) -> str:
    """Return the format of a file: what `file_format` states unless it is auto, else what its name says, else what its first bytes show.

    English may begin with any sign: where nothing is stated it is JSON or plain text. Raises InputError where the statement and the first
    bytes contradict each other, and for sequences where nothing says what they are.
    """
    where = spoken_path(path)
    named, seen = named_format(path), detect_format(head)
    stated = file_format if file_format != "auto" else named
    if b"\x00" in head[:4096]:
        wanted = "FASTA or FASTQ" if stated in ("fasta", "fastq") else listed(FORMATS)
        raise InputError(f"{where} is not text", wanted, "Check the path; compressed files end in .gz .bz2 .xz .zst")
    if stated == "text":
        return stated
    if stated:
        alike = stated == seen or not seen or (stated in DOCUMENTS and seen in DOCUMENTS)
        if not alike:
            by = f"format: {stated}" if file_format != "auto" else f"its name says {SPOKEN[stated]}"
            raise InputError(
                f"{where}: {by}, but it begins as {SPOKEN[seen]}",
                "a name and a content that agree",
                f"Rename it, or set format: {seen}",
            )
        return stated
    if is_english:
        return seen if seen in DOCUMENTS else "text"
    if not head.strip():
        raise InputError(f"{where} holds no record", listed(HOLDS_SEQUENCES), "Check that the file is whole")
    if not seen:
        raise InputError(f"{where} begins as none of the formats of sequences", listed(HOLDS_SEQUENCES), "Convert it, or set format")
    return seen


def named_format(path: Path | str) -> str:
    """Return the format that a file's name states, an empty string if it states none (.txt may be anything)."""
    return "" if str(path) == STANDARD_INPUT else _SUFFIXES.get(bare_name(path).suffix.lower(), "")


def detect_format(head: bytes) -> str:
    """Return the format that the first bytes of a file (decompressed) show, an empty string if they show none.

    >>> detect_format(b">chr1\\nACGT"), detect_format(b"LOCUS       X 34 bp"), detect_format(b"Call me Ishmael.")
    ('fasta', 'genbank', '')
    """
    text = head.lstrip()
    first_line = text.split(b"\n", 1)[0].split(b"\r", 1)[0]
    if text[:1] == b">":
        return "fasta"
    if text[:1] == b"@" and re.match(rb"@[^\r\n]*(?:\r\n?|\n)[^\r\n]*(?:\Z|(?:\r\n?|\n)\+)", text):
        return "fastq"
    if first_line.startswith(b"LOCUS ") or b"Genetic Sequence Data Bank" in first_line:
        return "genbank"
    if re.match(rb"ID   \S.*\d+\s+AA\.", first_line):
        return "uniprot"
    if first_line.startswith(b"##gff-version"):
        return "gff"
    for line in re.split(rb"[\r\n]+", text):  # comments may stand before the records of FASTA and the features of GFF
        if not line.startswith(b"#"):
            return "fasta" if line.startswith(b">") else "gff" if line.count(b"\t") == 8 else _json_format(first_line, text)
    return ""


def _json_format(first_line: bytes, text: bytes) -> str:
    """Return jsonl for a line that is an object, json for what else begins as JSON, an empty string for anything else."""
    if re.match(rb'\{\s*"', text):
        if len(first_line) == len(text) >= HEAD_BYTES // 2:  # a line longer than what is seen of the file
            return "json" if re.match(rb'\{\s*"[^"]*"\s*:\s*\{', text) else "jsonl"
        try:
            json.loads(first_line)
        except (ValueError, RecursionError):
            return "json"
        return "jsonl"
    return "json" if re.match(rb'\[\s*\{\s*"', text) else ""


def listed(formats: tuple[str, ...]) -> str:
    """Return formats as a sentence has them."""
    return "one of " + ", ".join(SPOKEN[name] for name in formats)
