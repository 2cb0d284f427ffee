"""The index behind "answers with evidence": annotated sequences, and which of them hold which k-mer.

    write_index(sources, folder, kind, ...) -> the files of a folder, and facts for its manifest
    open_index(folder) -> EvidenceIndex: candidates(sequence) names the entries that share most k-mers, entry(number) reads one

*Entries.* A record of at most `window` letters is one entry; a longer one is cut into windows that overlap by a fifth, so that a
chromosome is found by the place that matters. An entry has the record's id (what an answer cites), a line of text (what is known), its
place and its letters. One id is one record: a second record of that id is left out where it says the same, else refused.

*k-mers.* sourmash hashes them (`sketches.kmer_hashes`): 5 residues, or 13 bases of either strand. Those of protein serve relatives down to
about 30 % identity, those of DNA down to about 70 %. The files are an inverted list: the different hashes, ascending; where the entries of
each begin; the entries. So a question looks its own hashes up (binary search in memory-mapped files) and reads nothing else. A
shared hash counts log(entries / entries with it) + 1, and a hash of more than MOST_LISTED entries stands for the first of them only.

*Work.* Entries are written in the order of the files; parts of PART_LETTERS letters are hashed by any number of workers, then merged in the
order of the parts: the same bytes for any number (law 15). Memory of the merge: about 50 bytes a kept hash; `scaled` keeps one in so many.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llama_gene import runtime
from llama_gene.data.workers import Engine, run_tasks
from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import get_alphabet
from llama_gene.sequences.sketches import kmer_hashes

STAGE = "index"
ENTRIES, OFFSETS, HASHES, STARTS, MEMBERS = "entries.jsonl", "offsets.npy", "hashes.npy", "starts.npy", "members.npy"
FILES = (ENTRIES, OFFSETS, HASHES, STARTS, MEMBERS)
KMER = {True: 5, False: 13}
"""Letters of a k-mer: protein, and nucleotides."""
PART_LETTERS = 4_000_000
MOST_LISTED = 10_000


@dataclass(frozen=True)
class Source:
    """A sequence to be indexed: the id that is cited, what is known, the letters."""

    id: str
    text: str
    sequence: str


@dataclass(frozen=True)
class Entry:
    """A record, or a window of a long one, that begins at letter `start` (from 0) of its `num_letters`."""

    id: str
    text: str
    start: int
    num_letters: int
    sequence: str


@dataclass
class IndexCounts:
    """What was indexed and what was not."""

    records: int = 0
    letters: int = 0
    entries: int = 0
    without_text: int = 0
    """Records of which nothing is known but their letters."""
    unnamed: int = 0
    """Records without an id, left out: nothing could be cited."""
    repeated: int = 0
    """Records left out because one of the same id, text and letters came before."""
    short: int = 0
    """Records of fewer letters than a k-mer: nothing finds them."""


class _Part(NamedTuple):
    """Some entries to hash: bytes begin..end of the entries' file, the first one's number, and how."""

    entries: str
    begin: int
    end: int
    first: int
    kind: str
    kmer: int
    scaled: int
    path: str


def write_index(
    sources: Iterable[Source],
    folder: Path,
    kind: str,
    *,
    kmer: int | None = None,
    scaled: int = 1,
    window: int = 5000,
    workers: int = 1,
    engine: Engine = "local",
) -> dict[str, Any]:
    """Write the files of an index into `folder` (a temporary one: see `runtime.whole_dir`); return the facts of its manifest.

    Raises ConfigError for settings that cannot work, InputError for two records of one id, or none at all.
    """
    size = KMER[kind == "protein"] if kmer is None else kmer
    if not 2 <= size <= 31 or window < 10 * size:
        raise ConfigError(f"kmer {size}, window {window}", "kmer from 2 to 31, a window of 10 k-mers or more", "Leave them out")
    kmer_hashes("", kind, size, scaled)  # refuses what it cannot hash
    counts = IndexCounts()
    offsets = [0]
    parts: list[_Part] = []
    begin = first = letters = 0

    def close_part() -> None:
        nonlocal begin, first, letters
        if len(offsets) - 1 > first:
            path = folder / f"part{len(parts)}.npz"
            parts.append(_Part(str(folder / ENTRIES), begin, offsets[-1], first, kind, size, scaled, str(path)))
        begin, first, letters = offsets[-1], len(offsets) - 1, 0

    with (folder / ENTRIES).open("wb") as handle:
        for entry in _entries(sources, window, size, counts):
            line = json.dumps(vars(entry), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
            handle.write(line)
            offsets.append(offsets[-1] + len(line))
            letters += len(entry.sequence)
            if letters >= PART_LETTERS:
                close_part()
        close_part()
    if not parts:
        raise InputError("no record is left to index", "at least one named sequence", "Check the files and the policy for letters")
    counts.entries = len(offsets) - 1
    run_tasks(_hash_part, parts, workers, engine, "index: parts")
    hashes = _merge(parts, folder)
    np.save(folder / OFFSETS, np.array(offsets, np.int64))
    for part in parts:
        Path(part.path).unlink()
    return {
        "kind": kind,
        "kmer": size,
        "scaled": scaled,
        "window": window,
        **vars(counts),
        "hashes": hashes,
        "files": describe_files(folder),
    }


def describe_files(folder: Path) -> list[dict[str, Any]]:
    """Return name, size and hash of each file of an index."""
    return [
        {"file": name, "file_bytes": (folder / name).stat().st_size, "sha256": runtime.file_hash(folder / name)}
        for name in FILES
        if (folder / name).is_file()
    ]


def _entries(sources: Iterable[Source], window: int, kmer: int, counts: IndexCounts) -> Iterator[Entry]:
    """Yield the entries of all records. Raises InputError for two records of one id."""
    known: dict[str, str] = {}
    step = window - window // 5
    for source in sources:
        if not source.id:
            counts.unnamed += 1
            continue
        text = " ".join(source.text.split())
        content = runtime.fingerprint([text, source.sequence])
        if source.id in known:
            if known[source.id] != content:
                found = f"two records are named '{source.id}' and differ"
                raise InputError(found, "an id of its own for each record", "Rename or remove one")
            counts.repeated += 1
            continue
        known[source.id] = content
        num_letters = len(source.sequence)
        counts.records += 1
        counts.letters += num_letters
        counts.without_text += not text
        counts.short += num_letters < kmer
        for start in range(0, num_letters - window + step, step) if num_letters > window else (0,):
            yield Entry(source.id, text, start, num_letters, source.sequence[start : start + window])


def _hash_part(part: _Part) -> None:
    """Write the hashes of a part and the entry of each, hash by hash."""
    with Path(part.entries).open("rb") as handle:
        handle.seek(part.begin)
        lines = handle.read(part.end - part.begin).splitlines()
    found = [kmer_hashes(json.loads(line)["sequence"], part.kind, part.kmer, part.scaled) for line in lines]
    hashes = np.concatenate(found)
    members = np.repeat(np.arange(part.first, part.first + len(found), dtype=np.int32), [len(own) for own in found])
    order = np.argsort(hashes, kind="stable")
    with runtime.whole_file(Path(part.path)) as temporary, temporary.open("wb") as handle:
        np.savez(handle, hashes=hashes[order], members=members[order])


def _merge(parts: list[_Part], folder: Path) -> int:
    """Write the inverted list of all parts; return its number of (hash, entry) pairs."""
    loaded = []
    for part in parts:
        with np.load(part.path) as arrays:
            loaded.append((arrays["hashes"], arrays["members"]))
    hashes = np.concatenate([one[0] for one in loaded])
    members = np.concatenate([one[1] for one in loaded])
    order = np.argsort(hashes, kind="stable")  # entries of one hash stay in their order
    hashes = hashes[order]
    unique, starts = np.unique(hashes, return_index=True)
    np.save(folder / HASHES, unique)
    np.save(folder / STARTS, np.append(starts, len(hashes)).astype(np.int64))
    np.save(folder / MEMBERS, members[order])
    return len(hashes)


class EvidenceIndex:
    """An index on disk, opened for questions."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.kind: str = manifest["kind"]
        self.kmer: int = manifest["kmer"]
        self.scaled: int = manifest["scaled"]
        self.num_entries: int = manifest["entries"]
        self.num_letters: int = manifest["letters"]
        self.fingerprint = runtime.fingerprint([manifest["kind"], manifest["kmer"], manifest["scaled"], manifest["files"]])
        self._hashes, self._starts, self._members, self._offsets = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (HASHES, STARTS, MEMBERS, OFFSETS)
        )

    @cached_property
    def _text(self) -> mmap.mmap:
        with (self.folder / ENTRIES).open("rb") as handle:
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)

    def entry(self, number: int) -> Entry:
        """Return one entry."""
        line = self._text[int(self._offsets[number]) : int(self._offsets[number + 1])]
        return Entry(**json.loads(line.decode("utf-8", "surrogatepass")))

    def candidates(self, sequence: str) -> NDArray[np.int64]:
        """Return the numbers of the entries that share a k-mer with a sequence, those that share most first, equals in their order."""
        asked = kmer_hashes(sequence, self.kind, self.kmer, self.scaled)
        places = np.searchsorted(self._hashes, asked)
        is_known = places < len(self._hashes)
        is_known[is_known] = self._hashes[places[is_known]] == asked[is_known]
        lists = [(int(self._starts[place]), int(self._starts[place + 1])) for place in places[is_known]]
        if not lists:
            return np.zeros(0, np.int64)
        sizes = np.array([end - start for start, end in lists])
        worth = np.log(self.num_entries / sizes) + 1.0
        members = np.concatenate([self._members[start : min(end, start + MOST_LISTED)] for start, end in lists])
        entries, number = np.unique(members, return_inverse=True)
        scores = np.bincount(number, np.repeat(worth, np.minimum(sizes, MOST_LISTED)))
        return entries[np.lexsort((entries, -scores.round(6)))].astype(np.int64)  # rounded: sums in another order differ in the last bit


def open_index(folder: Path) -> EvidenceIndex:
    """Return an index, each of its files compared with the manifest.

    Raises MissingFileError or InputError for a folder that `index` did not write, or one whose files were changed, cut or lost.
    """
    manifest = runtime.read_manifest(folder, STAGE)
    written = {entry["file"]: entry for entry in manifest.get("files", [])}
    there = {entry["file"]: entry for entry in describe_files(folder)}
    for name in FILES:
        if name not in written or there.get(name) != written[name]:
            what = "is missing" if name not in there else "is damaged or was changed"
            raise InputError(f"{folder / name} {what}", "the file that the manifest names", "Run `llama-gene index` again")
    get_alphabet(manifest["kind"])
    return EvidenceIndex(folder, manifest)
