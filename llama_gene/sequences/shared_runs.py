"""Exact runs that a text shares with evaluation sequences: what decontaminates a pretraining corpus, and what an audit of a split counts.

A *run* is a stretch of letters that stands in both, on either strand for DNA, as long as it can be made. Runs of at least 50 bases or 20
residues are looked for. 50 bases: the shortest rows of the field's tasks have 57 to 110, so that a row which an edge of a document cuts is
still found by its larger half, and 100 bits are far beyond chance (1 M letters of evaluation against 16 GB of documents, both strands:
2**55 pairs of places). 20 residues say 84 bits, and are shorter than a domain.

Algorithm. Every k-mer of the evaluation text (31 bases at 2 bits, the lesser of the two strands; 12 residues at 5 bits) is listed in a
hash; a text is probed every L-k+1 letters, so that every run of L letters holds a probe; a probe that is listed is extended letter by
letter to both sides. Most probes end at a bitmap of 16 bits a k-mer. A run counts if it says enough, or if it is a whole row or text:
letters of low complexity (`complexity`: poly-A, microsatellites, poly-Q) say nothing, the others say the entropy of their composition
(at most 2 bits a base, 1 in a stretch of A and T alone), and 55 bits of 50 bases or 30 of 20 residues are asked for: some 28 bases or 10
residues of no special kind. A run is exact: ambiguity codes (N, X) end it. Mutated relatives are the business of `similarity`.

Measured on one core that others shared (benchmarks/audit.py): 1 M letters of real evaluation rows are listed in 0.2 s; documents of 650
letters are held against them at 85 to 145 MB/s (DNA) and 70 to 135 MB/s (protein). Memory: about 45 bytes a letter of evaluation text
while the index is made, 25 afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import Alphabet, get_alphabet
from llama_gene.sequences.complexity import low_complexity

SCREEN_SHARE = 0.25  # of the shorter of row and document: between repeat families and rows that two documents share
MAX_PLACES = 64  # of one k-mer that are listed: a family of thousands (mutants of one protein) is still found, by 64 of its rows
_UNKNOWN, _GAP = 254, 255  # codes that equal nothing: in a text, and in the evaluation text (also between its rows)
_U = np.uint64


class _Seeding(NamedTuple):
    """How a kind of sequence is looked for."""

    length: int  # default least run
    k: int
    bits: int  # of a letter
    least_bits: float  # a letter of the least run must say on average
    shortest: int  # least run that may be asked for


_STRANDED = _Seeding(length=50, k=31, bits=2, least_bits=1.1, shortest=18)
_UNSTRANDED = _Seeding(length=20, k=12, bits=5, least_bits=1.5, shortest=9)


class Hit(NamedTuple):
    """A run: `text[position : position + length]` is `rows[row][row_position : row_position + length]`, as read (strand 1) or its
    reverse complement (strand -1)."""

    row: int
    position: int
    length: int
    strand: int
    row_position: int


def default_length(kind: str) -> int:
    """Return the least run that is looked for: 50 letters where there is another strand, 20 elsewhere."""
    return _seeding(get_alphabet(kind)).length


class RunIndex:
    """The k-mers of evaluation rows, to be held against texts.

    A run has `length` letters or more, and at least `share` of the row (of the text, where that is shorter). `num_short` rows are shorter
    than `length` and cannot be found; `num_unlisted` places of k-mers are not listed because 64 others are. Raises ConfigError for an
    unknown kind, an alphabet of over 32 letters, a length below 18 (with another strand) or 9, or a share outside 0 to 1.

    >>> row = "ACGTTGCATGCCTAGGATCCAAGTCATTGACCAGTTACGGATTCAGCATCTAAGGC"
    >>> index = RunIndex([row], "dna")
    >>> index.hits("TTT" + row[:52] + "TTT")
    [Hit(row=0, position=3, length=52, strand=1, row_position=0)]
    """

    def __init__(self, rows: Sequence[str], kind: str, length: int | None = None, share: float = 0.0) -> None:
        alphabet = get_alphabet(kind)
        seeding = _seeding(alphabet)
        self.length = seeding.length if length is None else length
        if self.length < seeding.shortest:
            raise ConfigError(
                f"runs of {self.length} letters of {kind}", f"{seeding.shortest} or more: shorter ones are chance", f"Set {seeding.length}"
            )
        if not 0 <= share <= 1:
            raise ConfigError(f"share {share}", "from 0 to 1: of a row that a run must cover", "Write 0.5 for half")
        k = min(seeding.k, 2 * self.length // 3)
        self.num_short = sum(len(row) < self.length for row in rows)
        self._alphabet = alphabet
        self._codes = _code_table(alphabet, _UNKNOWN)
        complement = _complement_codes(alphabet)
        letters, starts = _joined(rows, _code_table(alphabet, _GAP))
        if len(letters) >= 2**31:
            raise InputError(
                f"{len(letters):,} letters of evaluation text", "fewer than 2**31: places are 32-bit numbers", "Use fewer files"
            )
        said = ~low_complexity(letters, len(alphabet.letters))
        kmers, places = _kmers(letters, complement, k, seeding.bits, alphabet.complement is not None)
        order = np.argsort(kmers, kind="stable")
        groups, firsts, sizes = np.unique(kmers[order], return_index=True, return_counts=True)
        self.num_unlisted = int(np.maximum(sizes - MAX_PLACES, 0).sum())
        keys, slots, bitmap = _table(groups, max(1 << 16, 1 << (16 * len(groups)).bit_length()))
        groups_at = np.concatenate([firsts, [len(order)]]).astype(np.int64)
        # step: every run of `length` letters holds a probe, and every letter of a longer one but the outermost is in one
        numbers = np.array([k, min(self.length - k + 1, k), seeding.bits, self.length, alphabet.complement is not None], dtype=np.int64)
        least = np.array([seeding.least_bits * self.length, share])
        self._state = (letters, starts, said, complement, keys, slots, bitmap, groups_at, places[order], numbers, least)

    def hits(self, text: str) -> list[Hit]:
        """Return the runs that a text shares with the rows, ordered by row and place; case does not count."""
        found = self._find(text, False)
        if not len(found):
            return []
        return [Hit(*(int(value) for value in hit)) for hit in np.unique(found, axis=0)]

    def first_row(self, text: str) -> int | None:
        """Return a row that shares a run with a text, None where there is none: the same question as `hits`, at its first answer."""
        found = self._find(text, True)
        return int(found[0, 0]) if len(found) else None

    def _find(self, text: str, only_first: bool) -> NDArray[np.int64]:
        letters = np.frombuffer(text.encode("latin-1", "replace"), dtype=np.uint8)
        found: NDArray[np.int64] = _runs(letters, self._codes, *self._state, only_first)
        return found


class Screen:
    """Decides document by document whether it holds an evaluation sequence.

    A document is dropped for a run that covers a quarter of an evaluation row (or of the document, where that is shorter): then a row that
    the edge of a document cuts is found in one of the two, as is a window shifted by up to three quarters, while copies of one repeat
    family are let be: of 9,232 documents of human DNA, 22 share so much with 5,051 promoter and splice rows, and 335 share a run of 50 bp.
    `sequences` are evaluation sequences of one kind by the name of their file (see `llama_gene.data.splits.evaluation_sequences`).

    >>> row = "ACGTTGCATGCCTAGGATCCAAGTCATTGACCAGTTACGGATTCAGCATCTAAGGC"
    >>> screen = Screen({"test.csv": [row]}, "dna")
    >>> screen.source_of("GG" + row), screen.source_of("ACGT" * 40)
    ('test.csv', None)
    """

    def __init__(self, sequences: Mapping[str, Sequence[str]], kind: str, length: int | None = None, share: float = SCREEN_SHARE) -> None:
        self._names = [name for name, rows in sequences.items() for _ in rows]
        self.index = RunIndex([row for rows in sequences.values() for row in rows], kind, length, share)

    def source_of(self, document: str) -> str | None:
        """Return the evaluation file that a document shares a run with, None for a clean document."""
        row = self.index.first_row(document)
        return None if row is None else self._names[row]


# --- the index -------------------------------------------------------------------------------------------------------------------


def _seeding(alphabet: Alphabet) -> _Seeding:
    """Return how an alphabet's runs are looked for: by 2-bit or 5-bit k-mers."""
    if len(alphabet.letters) > 32:
        raise ConfigError(f"alphabet '{alphabet.name}' has {len(alphabet.letters)} letters", "at most 32: k-mers are packed at 5 bits")
    return _STRANDED if len(alphabet.letters) <= 4 else _UNSTRANDED


def _code_table(alphabet: Alphabet, other: int) -> NDArray[np.uint8]:
    """Return byte -> number of the letter, `other` for what is no exact letter."""
    table = np.full(256, other, dtype=np.uint8)
    for number, letter in enumerate(alphabet.letters):
        table[[ord(letter.upper()), ord(letter.lower())]] = number
    return table


def _complement_codes(alphabet: Alphabet) -> NDArray[np.uint8]:
    """Return code -> code on the other strand; without one, itself (and never asked for)."""
    codes = np.arange(256, dtype=np.uint8)
    if alphabet.complement is not None:
        codes[: len(alphabet.letters)] = [alphabet.letters.index(alphabet.complement[letter]) for letter in alphabet.letters]
    return codes


def _joined(rows: Sequence[str], table: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the codes of all rows with a gap before, between and behind them, and where each row starts (one more: the end)."""
    text = "\n" + "\n".join(rows) + "\n"
    starts = 1 + np.concatenate([[0], np.cumsum([len(row) + 1 for row in rows], dtype=np.int64)]).astype(np.int64)
    return table[np.frombuffer(text.encode("latin-1", "replace"), dtype=np.uint8)], starts


@numba.njit(cache=True)
def _kmers(letters: Any, complement: Any, k: int, bits: int, stranded: bool) -> Any:
    """Return the k-mers that hold exact letters only, the lesser code of both strands where there are two, and where each begins."""
    codes = np.empty(len(letters), np.uint64)
    places = np.empty(len(letters), np.int32)
    found, exact = 0, 0
    mask = _U((1 << (k * bits)) - 1)
    own, other = _U(0), _U(0)
    for place in range(len(letters)):
        letter = letters[place]
        if letter >= _UNKNOWN:
            exact = 0
            continue
        exact += 1
        own = ((own << _U(bits)) | _U(letter)) & mask
        other = (other >> _U(bits)) | (_U(complement[letter]) << _U((k - 1) * bits))
        if exact >= k:
            codes[found] = min(own, other) if stranded else own
            places[found] = place - k + 1
            found += 1
    return codes[:found].copy(), places[:found].copy()


@numba.njit(inline="always")
def _scattered(value: Any) -> Any:
    """Return a k-mer's bits mixed, so that its low ones are even."""
    value ^= value >> _U(31)
    value *= _U(0x9E3779B97F4A7C15)
    return value ^ (value >> _U(29))


@numba.njit(cache=True)
def _table(groups: Any, num_bits: int) -> Any:
    """Return an open-addressing hash of the k-mers (keys, and number of the group or -1) and a bitmap of them."""
    size = 1 << 10
    while size < 2 * len(groups):
        size *= 2
    keys = np.zeros(size, np.uint64)
    slots = np.full(size, -1, np.int32)
    bitmap = np.zeros(num_bits >> 6, np.uint64)
    for number in range(len(groups)):
        mixed = _scattered(groups[number])
        bit = mixed & _U(num_bits - 1)
        bitmap[bit >> _U(6)] |= _U(1) << (bit & _U(63))
        slot = mixed & _U(size - 1)
        while slots[slot] >= 0:
            slot = (slot + _U(1)) & _U(size - 1)
        keys[slot] = groups[number]
        slots[slot] = number
    return keys, slots, bitmap


# --- the search ------------------------------------------------------------------------------------------------------------------


@numba.njit(cache=True)
def _runs(
    text: Any, codes: Any, letters: Any, starts: Any, said: Any, complement: Any, keys: Any, slots: Any, bitmap: Any, groups_at: Any,
    places: Any, numbers: Any, least: Any, only_first: bool,
) -> Any:  # fmt: skip
    """Return the runs as rows (row, position, length, strand, row position); one may stand there once for each of its probes."""
    k, step, bits, length, stranded = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4] == 1
    found = np.empty((0, 5), np.int64)
    num_found = 0
    bit_mask, slot_mask = _U((len(bitmap) << 6) - 1), _U(len(keys) - 1)
    for probe in range(0, len(text) - k + 1, step):
        own, other = _U(0), _U(0)
        exact = True
        for offset in range(k):
            code = codes[text[probe + offset]]
            if code >= _UNKNOWN:
                exact = False
                break
            own = (own << _U(bits)) | _U(code)
            other |= _U(complement[code]) << _U(offset * bits)
        if not exact:
            continue
        kmer = min(own, other) if stranded else own
        mixed = _scattered(kmer)
        bit = mixed & bit_mask
        if (bitmap[bit >> _U(6)] >> (bit & _U(63))) & _U(1) == 0:
            continue
        slot = mixed & slot_mask
        while slots[slot] >= 0 and keys[slot] != kmer:
            slot = (slot + _U(1)) & slot_mask
        group = slots[slot]
        if group < 0:
            continue
        for number in range(groups_at[group], min(groups_at[group + 1], groups_at[group] + MAX_PLACES)):
            place = places[number]
            for strand in (1, -1):
                if strand == -1 and not stranded:
                    break
                run = _extended(text, codes, letters, complement, probe, place, k, strand)
                size = run[1]
                if size < length:
                    continue
                row = np.searchsorted(starts, run[2], side="right") - 1
                smaller = min(len(text), starts[row + 1] - 1 - starts[row])
                if size < smaller and (size < least[1] * smaller or _bits_of(letters, said, run[2], run[2] + size) < least[0]):
                    continue
                if num_found == len(found):
                    larger = np.empty((2 * len(found) + 8, 5), np.int64)
                    larger[:num_found] = found
                    found = larger
                found[num_found, 0] = row
                found[num_found, 1] = run[0]
                found[num_found, 2] = size
                found[num_found, 3] = strand
                found[num_found, 4] = run[2] - starts[row]
                num_found += 1
                if only_first:
                    return found[:num_found]
    return found[:num_found]


@numba.njit(cache=True)
def _extended(text: Any, codes: Any, letters: Any, complement: Any, probe: int, place: int, k: int, strand: int) -> Any:
    """Return the run through a shared k-mer: position in the text, length, position in the joined rows; length 0 where it is none.

    On the other strand the text runs forward while the rows run backward. The joined rows begin and end with a gap, which equals nothing.
    """
    low, high = probe, probe
    at = place if strand == 1 else place + k - 1
    while high < len(text):
        code = codes[text[high]]
        if (code if strand == 1 else complement[code]) != letters[at]:
            break
        high += 1
        at += strand
    if high - probe < k:  # the k-mers are equal on one strand, on both only for a palindrome
        return low, 0, place
    last = at - strand
    at = (place if strand == 1 else place + k - 1) - strand
    while low > 0:
        code = codes[text[low - 1]]
        if (code if strand == 1 else complement[code]) != letters[at]:
            break
        low -= 1
        at -= strand
    return low, high - low, (at + 1 if strand == 1 else last)


@numba.njit(cache=True)
def _bits_of(letters: Any, said: Any, start: int, end: int) -> float:
    """Return what a stretch says: its letters outside short repeats, times the entropy of their composition."""
    counts = np.zeros(32, np.int64)
    total = 0
    for place in range(start, end):
        if said[place]:
            counts[letters[place]] += 1
            total += 1
    bits = 0.0
    for count in counts:
        if count > 0:
            bits -= count * math.log2(count / total)
    return bits
