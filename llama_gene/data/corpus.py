"""Corpus: sequence and text files become documents per language, training and held-out ones apart.

DNA: every record is cut at N runs and tiled into fragments of 300-1000 bp (LLaMA-Gene 2.2.1; fragments.py). Protein: a record is a
document, longer ones are windowed. English: a document is what the reader yields. Held-out text is cut off *before* fragments are
made: the last part of each DNA record (a fragment never straddles the cut), and a hash of the record's name for protein and English.
Exact repeats (for DNA also as reverse complement) are dropped, and a held-out document never repeats a training one. All is counted.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llama_gene.errors import ConfigError, InputError, did_you_mean
from llama_gene.runtime import progress
from llama_gene.sequences.alphabet import get_alphabet, reverse_complement, write_letters
from llama_gene.sequences.fragments import FragmentCounts, fragment
from llama_gene.sequences.records import Record, read_documents, read_records
from llama_gene.tokenization.inputs import find_paths

ENGLISH = "english"
MIN_PROTEIN_LENGTH = 10  # residues; shorter records carry no language


@dataclass
class Source:
    """Files of one language."""

    language: str = "dna"
    """Name of the row set that these files go to, for example dna, protein, english."""
    kind: str = ""
    """Alphabet of the files (dna, rna, protein, or english for text); empty: the same as language."""
    inputs: list[str] = field(default_factory=list)
    """Files, folders or globs, looked up here and then in data_dir; FASTA, FASTQ, text or JSON Lines, plain or compressed."""
    split: Literal["auto", "train", "valid"] = "auto"
    """auto cuts valid_fraction off these files; train and valid give them whole to one side."""
    max_letters: int = 0
    """Stop after this many letters of these files (0: no limit); said in the manifest."""
    uppercase: bool = True
    """Read soft-masked (lower-case) bases and residues as upper case."""

    @property
    def alphabet_name(self) -> str:
        """The kind, or the language where no kind is given."""
        return self.kind or self.language


@dataclass
class CorpusCounts:
    """What went in, what was kept and why the rest was not; letters are bases, residues or characters."""

    records: int = 0
    letters_read: int = 0
    letters_kept: Counter[str] = field(default_factory=Counter)  # split -> letters
    documents: Counter[str] = field(default_factory=Counter)  # split -> documents
    letters_rejected: Counter[str] = field(default_factory=Counter)  # reason -> letters

    def check(self) -> None:
        """Raise if a letter is neither kept nor rejected (law 13)."""
        total = sum(self.letters_kept.values()) + sum(self.letters_rejected.values())
        if total != self.letters_read:
            raise AssertionError(f"{self.letters_read} letters read, but {total} accounted for")


@dataclass
class CutPolicy:
    """How records become documents."""

    min_fragment: int = 300
    """Shortest DNA fragment, in bp (LLaMA-Gene 2.2.1: 300)."""
    max_fragment: int = 1000
    """Longest DNA fragment, in bp (LLaMA-Gene 2.2.1: 1000)."""
    max_protein: int = 1000
    """Longest protein document, in residues; longer proteins are cut into windows of this size."""
    valid_fraction: float = 0.05
    """Share of every record (DNA) or of the records (protein, English) that is held out."""

    def check(self) -> None:
        """Raise ConfigError for sizes that no record can be cut to."""
        if not 1 <= self.min_fragment <= self.max_fragment:
            raise ConfigError(
                f"cut.min_fragment is {self.min_fragment}, cut.max_fragment {self.max_fragment}", "1 <= min_fragment <= max_fragment"
            )
        if self.max_protein < MIN_PROTEIN_LENGTH:
            raise ConfigError(f"cut.max_protein is {self.max_protein}", f"at least {MIN_PROTEIN_LENGTH} residues")
        if not 0 <= self.valid_fraction < 1:
            raise ConfigError(f"cut.valid_fraction is {self.valid_fraction}", "at least 0 and below 1")


def write_corpus(sources: Iterable[Source], policy: CutPolicy, folder: Path, data_dir: Path | None, seed: int) -> dict[str, dict[str, Any]]:
    """Write `{language}.{train,valid}.jsonl` ({"id", "text"} a line) into `folder`; return counts per language.

    Raises ConfigError for settings that contradict each other, InputError for a language with no document left, naming what was rejected.
    """
    policy.check()
    by_language: dict[str, list[Source]] = {}
    for source in sources:
        _check_source(source)
        find_paths(source.inputs, data_dir)  # a missing file is found before the first genome is read
        by_language.setdefault(source.language, []).append(source)
    report: dict[str, dict[str, Any]] = {}
    for language, group in by_language.items():
        kinds = {source.alphabet_name for source in group}
        if len(kinds) > 1:
            raise InputError(f"language '{language}' has sources of kinds {sorted(kinds)}", "one kind a language", "Give them two names")
        counts = CorpusCounts()
        seen: set[bytes] = set()
        writers = {split: (folder / f"{language}.{split}.jsonl").open("w", encoding="utf-8") for split in ("train", "valid")}
        try:
            # Training files first, so that a held-out repeat is what gets dropped.
            for source in sorted(group, key=lambda item: item.split == "valid"):
                for split, name, text in _documents(source, policy, data_dir, seed, counts):
                    key = _repeat_key(text, source.alphabet_name)
                    if key in seen:
                        counts.letters_rejected["repeat of an earlier document"] += len(text)
                        continue
                    seen.add(key)
                    counts.letters_kept[split] += len(text)
                    counts.documents[split] += 1
                    if get_kind(source) != "text":
                        text = write_letters(text, get_alphabet(source.alphabet_name))  # 3Di: "DV" -> "<3di:d><3di:v>"
                    writers[split].write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
        finally:
            for writer in writers.values():
                writer.close()
        counts.check()
        if not counts.documents["train"]:
            rejected = ", ".join(f"{letters:,} {reason}" for reason, letters in counts.letters_rejected.items()) or "none"
            raise InputError(
                f"no training document is left of '{language}' ({counts.letters_read:,} letters read; rejected: {rejected})",
                "at least one document",
                "Give longer records or lower min_fragment",
            )
        report[language] = {
            "kind": kinds.pop(),
            "records": counts.records,
            "letters_read": counts.letters_read,
            "letters_kept": dict(counts.letters_kept),
            "documents": dict(counts.documents),
            "letters_rejected": dict(counts.letters_rejected),
        }
    return report


def read_corpus(folder: Path, language: str, split: str) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of one language and split."""
    return read_documents(folder / f"{language}.{split}.jsonl")


def _check_source(source: Source) -> None:
    """Raise ConfigError for a source that names no files, no kind that we know, or a language that is no file name."""
    if not re.fullmatch(r"\w[\w.-]*", source.language):
        raise ConfigError(f"language '{source.language}' cannot be a file name", "letters, digits, '_', '-' and '.'", "Rename it")
    if not source.inputs:
        raise ConfigError(f"the source of '{source.language}' has no inputs", "files, folders or globs", "Set its inputs")
    if source.max_letters < 0:
        raise ConfigError(f"max_letters of '{source.language}' is {source.max_letters}", "0 (no limit) or more letters")
    try:
        get_kind(source)
    except ConfigError as error:
        hint = did_you_mean(source.alphabet_name, [ENGLISH]) or error.action
        raise ConfigError(f"language '{source.language}': {error.found}", f"{error.expected}, {ENGLISH}", hint) from error


def _documents(source: Source, policy: CutPolicy, data_dir: Path | None, seed: int, counts: CorpusCounts) -> Iterator[tuple[str, str, str]]:
    """Yield (split, id, text) of one source, counting what is read and rejected."""
    cut = {"nucleotide": _cut_dna, "residue": _cut_protein, "text": _cut_text}[get_kind(source)]
    budget = source.max_letters or float("inf")
    for path in find_paths(source.inputs, data_dir):
        with progress(f"{source.language}: {path.name}", "letters") as bar:
            for record in _records(path, source):
                if budget <= 0:
                    return
                if len(record.sequence) > budget:
                    record = Record(record.id, record.description, record.sequence[: int(budget)])
                budget -= len(record.sequence)
                counts.records += 1
                counts.letters_read += len(record.sequence)
                rng = random.Random(f"{seed}-{record.id}")
                for split, part in _split_record(record, source, policy, seed):
                    for name, text in cut(part, source.alphabet_name, policy, rng, counts):
                        bar.update(len(text))
                        yield split, name, text


def get_kind(source: Source) -> Literal["nucleotide", "residue", "text"]:
    """Return how a source is cut: alphabets with a complement in fragments, other alphabets whole, text as it comes."""
    if source.alphabet_name == ENGLISH:
        return "text"
    return "nucleotide" if get_alphabet(source.alphabet_name).complement else "residue"


def _records(path: Path, source: Source) -> Iterator[Record]:
    if get_kind(source) == "text":
        return (Record(name, "", text) for name, text in read_documents(path))
    return read_records(path, source.alphabet_name, uppercase=source.uppercase)


def _split_record(record: Record, source: Source, policy: CutPolicy, seed: int) -> list[tuple[str, Record]]:
    """Return the record's training and held-out parts."""
    if source.split != "auto" or policy.valid_fraction <= 0:
        return [("valid" if source.split == "valid" else "train", record)]
    if get_kind(source) == "nucleotide":
        cut = len(record.sequence) - int(len(record.sequence) * policy.valid_fraction)
        if len(record.sequence) - cut < policy.min_fragment:  # too short to cut: it stays whole
            return [("train", record)]
        head = Record(record.id, record.description, record.sequence[:cut])
        return [("train", head), ("valid", Record(f"{record.id}+{cut}", record.description, record.sequence[cut:]))]
    digest = hashlib.sha256(f"{seed}-{record.id}".encode()).digest()
    return [("valid" if int.from_bytes(digest[:8], "big") < policy.valid_fraction * 2**64 else "train", record)]


def _cut_dna(record: Record, kind: str, policy: CutPolicy, rng: random.Random, counts: CorpusCounts) -> Iterator[tuple[str, str]]:
    tally = FragmentCounts()
    for start, end, text in fragment(record, policy.min_fragment, policy.max_fragment, rng, kind, tally):
        yield f"{record.id}:{start}-{end}", text
    for reason, letters in tally.letters_rejected.items():
        counts.letters_rejected[reason] += letters


def _cut_protein(record: Record, kind: str, policy: CutPolicy, rng: random.Random, counts: CorpusCounts) -> Iterator[tuple[str, str]]:
    text = record.sequence
    if len(text) < MIN_PROTEIN_LENGTH:
        counts.letters_rejected[f"shorter than {MIN_PROTEIN_LENGTH} residues"] += len(text)
        return
    for start in range(0, len(text), policy.max_protein):
        yield record.id if len(text) <= policy.max_protein else f"{record.id}:{start}", text[start : start + policy.max_protein]


def _cut_text(record: Record, kind: str, policy: CutPolicy, rng: random.Random, counts: CorpusCounts) -> Iterator[tuple[str, str]]:
    if record.sequence.strip():
        yield record.id, record.sequence
    else:
        counts.letters_rejected["blank"] += len(record.sequence)


def _repeat_key(text: str, kind: str) -> bytes:
    """Return a 16-byte key of a text, which a strand shares with its reverse complement."""
    stranded = kind != ENGLISH and get_alphabet(kind).complement is not None
    canonical = min(text, reverse_complement(text, kind)) if stranded else text
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).digest()
