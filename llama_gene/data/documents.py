"""First step of a corpus: the files of one source become documents, with all that the later steps ask about them.

A *part* is a folder with the documents of one task (a file of a source), written whole or not at all:

    documents.jsonl    {"id", "text"} a line
    documents.bin      one `DOCUMENT` a line: where it stands, its letters, record, split, repeat key, and why it is dropped, if it is
    records.tsv        id of each record behind the letter policy, and of the file's record that it is a piece of, in order
    sketches.npy       FracMinHash sketches of long records, one array after the other; sketches.tsv: record and number of hashes
    facts.json         what was read, repeated and rejected, with reasons

A part depends on its files' content and the settings alone, so tasks may run anywhere, in any order, and again.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from llama_gene import runtime
from llama_gene.data.settings import MIN_PROTEIN_LENGTH, MIN_SKETCHED, SPLITS, UNDECIDED, Settings, Source
from llama_gene.data.splits import evaluation_sequences
from llama_gene.sequences.alphabet import get_alphabet, reverse_complement, write_letters
from llama_gene.sequences.fragments import FragmentCounts, draw_windows, fragment, turn
from llama_gene.sequences.letters import LetterCounts
from llama_gene.sequences.records import Record
from llama_gene.sequences.shared_runs import Screen
from llama_gene.sequences.sketches import Sketch, sketch
from llama_gene.sequences.sources import ENGLISH, read_source

DOCUMENT = np.dtype(
    [
        ("key", "<u8", (2,)),  # of the text; a strand shares it with its reverse complement
        ("offset", "<i8"),  # of its line in documents.jsonl
        ("size", "<i4"),  # bytes of that line
        ("letters", "<i8"),
        ("record", "<i4"),
        ("split", "u1"),  # index into SPLITS, or UNDECIDED
        ("contaminated", "u1"),  # 1: it holds an evaluation sequence
    ]
)
FORMAT = 1  # raise it when parts mean something else: earlier ones are then read again
_WRITE_BYTES = 1 << 22
_TABLE_ROWS = 50_000  # of the table in memory at once


@dataclass(frozen=True)
class PartTask:
    """One part to make: which files of which source, under which settings; `key` names the part's folder."""

    source: Source
    paths: list[str]
    settings: Settings
    data_dir: Path | None
    """Where the tables of evaluation tasks are looked up."""
    evaluation: str
    """Digits that name the content of the evaluation sequences."""
    seed: int
    folder: str
    """Where parts lie."""
    key: str


@dataclass
class PartCounts:
    """What went into a part and what no document holds, by reason; letters are bases, residues or characters."""

    records: int = 0
    duplicate_ids: int = 0
    letters_read: int = 0
    letters_repeated: int = 0
    """Letters that stand in more than one document: overlapping windows."""
    letters_rejected: Counter[str] = field(default_factory=Counter)
    letters_changed: Counter[str] = field(default_factory=Counter)
    records_rejected: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Part:
    """A finished part: its folder and its documents, memory-mapped."""

    folder: Path
    source: Source

    @property
    def documents(self) -> Any:
        """The `DOCUMENT` array; not loaded, but for what is looked at."""
        return read_table(self.folder)

    @property
    def facts(self) -> dict[str, Any]:
        """The counts."""
        return dict(runtime.read_json(self.folder / "facts.json"))

    def records(self) -> list[tuple[str, str]]:
        """Return (id, id of the file's record) of each record."""
        lines = (self.folder / "records.tsv").read_text(encoding="utf-8", errors="surrogatepass").split("\n")[:-1]
        return [(name, origin) for name, _, origin in (line.partition("\t") for line in lines)]

    def sketches(self) -> list[tuple[int, Sketch]]:
        """Return (record, sketch) of each sketched record."""
        hashes = np.load(self.folder / "sketches.npy")
        lines = (self.folder / "sketches.tsv").read_text().splitlines()
        numbers = [tuple(map(int, line.split("\t"))) for line in lines]
        ends = np.cumsum([size for _, size, _ in numbers], dtype=np.int64)
        return [
            (record, Sketch(hashes[end - size : end], letters)) for (record, size, letters), end in zip(numbers, ends.tolist(), strict=True)
        ]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield (id, text) of each document."""
        with (self.folder / "documents.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                document = json.loads(line)
                yield document["id"], document["text"]


def read_table(folder: Path) -> Any:
    """Return the `DOCUMENT` table of a part: mapped where it is large (an empty file cannot be)."""
    path = folder / "documents.bin"
    return np.memmap(path, DOCUMENT, "r") if path.stat().st_size > 1 << 20 else np.fromfile(path, DOCUMENT)


def make_part(task: PartTask) -> Part:
    """Make a part, unless it is there; return it. Raises InputError for files that cannot be read (with the line)."""
    folder = Path(task.folder) / task.key
    if not folder.is_dir():
        with runtime.whole_dir(folder) as temporary:
            _write_part(task, temporary)
    return Part(folder, task.source)


def read_part(source: Source, paths: list[Path], seed: int, counts: PartCounts) -> Iterator[tuple[Record, random.Random]]:
    """Yield each record of a source's files with the generator of its random choices, circles turned; count what is read."""
    letters = LetterCounts()
    for record in _records(source, paths, letters, counts):
        rng = random.Random(f"{seed}-{record.id}")
        yield turn(record, rng, source.alphabet_name) if record.circular and source.is_nucleotide else record, rng
    counts.records += letters.records_read
    counts.duplicate_ids += letters.duplicate_ids
    counts.letters_read += letters.letters_read
    counts.letters_rejected.update(letters.letters_rejected)
    counts.letters_changed.update(letters.letters_changed)
    counts.records_rejected.update(letters.records_rejected)


def cut_record(
    record: Record, source: Source, settings: Settings, seed: int, rng: random.Random, counts: PartCounts
) -> Iterator[tuple[int, str, str]]:
    """Yield (split, id, text) of each document of a record, and count the letters that no document holds."""
    for split, piece in _split_record(record, source, settings, seed):
        for name, text in _cut(piece, source, settings, rng, counts):
            yield split, name, text


def _records(source: Source, paths: list[Path], letters: LetterCounts, counts: PartCounts) -> Iterator[Record]:
    """Yield the records of a source up to its letter limit; letters behind it are read no further than the record they stand in."""
    room = source.max_letters or None
    received = 0
    for path in paths:
        with runtime.progress(f"{source.language}: {path.name}", "letters", position=1) as bar:
            reader = read_source(
                path,
                source.alphabet_name,
                file_format=source.format,
                content=source.content,
                policy=source.letters,
                counts=letters,
                genetic_code=source.genetic_code,
                gff=source.gff,
                names=source.gff_names,
                max_record_length=source.max_record_length,
                unique_ids=source.unique_ids,
            )
            for record in reader:
                bar.update(len(record.sequence))
                received += len(record.sequence)
                is_whole = record.origin == record.id and (room is None or len(record.sequence) <= room)
                if room is not None and len(record.sequence) > room:
                    counts.letters_rejected["beyond max_letters"] += len(record.sequence) - room
                    record = replace(record, sequence=record.sequence[:room])
                if room is not None:
                    room -= len(record.sequence)
                circular = record.circular or (source.circular and source.content == "sequence")
                yield replace(record, circular=circular and is_whole)
                if room == 0:
                    # pieces of the record under way that the policy has counted as kept, and nobody takes
                    counts.letters_rejected["beyond max_letters"] += letters.letters_kept - received
                    return


def _write_part(task: PartTask, folder: Path) -> None:
    """Write the files of a part."""
    source, settings = task.source, task.settings
    counts = PartCounts()
    policy = settings.decontaminate
    screen = None
    if policy.evaluation:
        screen = _screen(
            tuple(policy.evaluation), source.alphabet_name, policy.length(source), policy.share, task.data_dir, task.evaluation
        )
    sketched = source.is_nucleotide and settings.repeats.near_identity > 0
    alphabet = get_alphabet(source.alphabet_name) if source.alphabet_name != ENGLISH else None
    table: list[tuple[Any, ...]] = []
    hits: Counter[str] = Counter()
    hashes: list[Any] = []
    offset = 0
    with (
        (folder / "documents.jsonl").open("wb", _WRITE_BYTES) as documents,
        (folder / "documents.bin").open("wb") as tables,
        (folder / "records.tsv").open("w", encoding="utf-8", errors="surrogatepass") as records,
        (folder / "sketches.tsv").open("w") as sketches,
    ):
        for number, (record, rng) in enumerate(read_part(source, [Path(path) for path in task.paths], task.seed, counts)):
            records.write(f"{_one_word(record.id)}\t{_one_word(record.origin)}\n")
            if sketched and len(record.sequence) >= MIN_SKETCHED:
                found = sketch(record.sequence, settings.repeats.sketch_scaled)
                hashes.append(found.hashes)
                sketches.write(f"{number}\t{len(found.hashes)}\t{found.num_letters}\n")
            for split, name, text in cut_record(record, source, settings, task.seed, rng, counts):
                held = screen.source_of(text) if screen is not None else None
                if held is not None:
                    hits[held] += 1
                written = text if alphabet is None else write_letters(text, alphabet)  # 3Di: "DV" -> "<3di:d><3di:v>"
                line = (json.dumps({"id": name, "text": written}, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
                documents.write(line)
                table.append((repeat_key(text, source), offset, len(line), len(text), number, split, held is not None))
                offset += len(line)
                if len(table) == _TABLE_ROWS:
                    np.array(table, DOCUMENT).tofile(tables)
                    table.clear()
        np.array(table, DOCUMENT).tofile(tables)
    np.save(folder / "sketches.npy", np.concatenate(hashes) if hashes else np.zeros(0, np.uint64))
    short = screen.index.num_short if screen is not None else 0
    runtime.write_json(folder / "facts.json", {**runtime.plain(counts), "evaluation_hits": dict(hits), "evaluation_short": short})


@lru_cache(maxsize=2)
def _screen(evaluation: tuple[str, ...], kind: str, length: int, share: float, data_dir: Path | None, content: str) -> Screen | None:
    """Return the screen for a kind, made once in a process for a content; None where no evaluation sequence is of that kind."""
    if kind == ENGLISH:
        return None
    sequences = evaluation_sequences(evaluation, kind, data_dir)
    return Screen(sequences, kind, length, share) if any(sequences.values()) else None


def _one_word(name: str) -> str:
    """Return a name without the blanks that would break a table."""
    return " ".join(name.split())


def repeat_key(text: str, source: Source) -> tuple[int, int]:
    """Return 128 bits that name a text; a strand shares them with its reverse complement."""
    canonical = text if source.alphabet_name == ENGLISH else text.upper()
    if source.is_nucleotide:
        canonical = min(canonical, reverse_complement(canonical, source.alphabet_name))
    digest = hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _split_record(record: Record, source: Source, settings: Settings, seed: int) -> list[tuple[int, Record]]:
    """Return (split, piece) of a record: held-out pieces are cut off before documents are made, so that none straddles."""
    split = settings.split
    shares = {"valid": split.valid_fraction, "test": split.test_fraction}
    if given := split.named(record.origin) or source.split.removeprefix("auto"):
        return [(SPLITS.index(given), record)]
    if not any(shares.values()):
        return [(0, record)]
    way = split.way(source)
    if way == "cluster":
        return [(UNDECIDED, record)]
    if way == "tail":
        return _tails(record, shares, settings.cut.min_fragment)
    digest = hashlib.sha256(f"{seed}-{record.origin}".encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < shares["valid"]:
        return [(1, record)]
    return [(2 if place < shares["valid"] + shares["test"] else 0, record)]


def _tails(record: Record, shares: dict[str, float], min_length: int) -> list[tuple[int, Record]]:
    """Return a record's head for training and its tails for validation and test; what is too short for a tail stays whole."""
    length = len(record.sequence)
    sizes = {name: int(length * share) for name, share in shares.items()}
    pieces, end = [], length
    for name in ("test", "valid"):
        if sizes[name] >= min_length:
            start = end - sizes[name]
            pieces.append((SPLITS.index(name), replace(record, id=f"{record.id}+{start}", sequence=record.sequence[start:end])))
            end = start
    return [(0, replace(record, sequence=record.sequence[:end])), *reversed(pieces)]


def _cut(record: Record, source: Source, settings: Settings, rng: random.Random, counts: PartCounts) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of a record's documents."""
    cut, text = settings.cut, record.sequence
    if source.is_nucleotide:
        tally = FragmentCounts()
        kind = source.alphabet_name
        if cut.starts == "tiled":
            windows = fragment(record, cut.min_fragment, cut.max_fragment, rng, kind, tally)
        else:
            windows = draw_windows(record, cut.min_fragment, cut.max_fragment, rng, cut.coverage, kind, tally)
        for start, end, letters in windows:
            yield f"{record.id}:{start}-{end}", letters
        counts.letters_repeated += tally.letters_repeated
        counts.letters_rejected.update(tally.letters_rejected)
    elif source.alphabet_name == ENGLISH:
        if text.strip():
            yield record.id, text
        else:
            counts.letters_rejected["blank"] += len(text)
    elif len(text) < MIN_PROTEIN_LENGTH:
        counts.letters_rejected[f"shorter than {MIN_PROTEIN_LENGTH} residues"] += len(text)
    else:
        for start in range(0, len(text), cut.max_protein):
            window = text[start : start + cut.max_protein]
            if len(window) >= MIN_PROTEIN_LENGTH:
                yield record.id if len(text) <= cut.max_protein else f"{record.id}:{start}", window
            else:
                counts.letters_rejected[f"shorter than {MIN_PROTEIN_LENGTH} residues"] += len(window)
