"""Cut long records into fragments of seeded random lengths, and account for every letter.

A record is first split at its unknown letters (N in DNA, X in protein: a run of one is a gap in what is known), then each stretch
is tiled from left to right without overlap. A tile's length is drawn between `min_length` and `max_length`, but never so that
what is left would be shorter than `min_length`: so only stretches that are shorter than `min_length` as a whole are lost.
The papers cut lines of 1001-1080 bp that ran across contig ends and deleted N (notes, fault C14); law 13 forbids both.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import get_alphabet
from llama_gene.sequences.records import Record


@dataclass
class FragmentCounts:
    """Letters (bp or residues) read, kept and rejected with the reason; read == kept + rejected at every moment."""

    num_fragments: int = 0
    letters_read: int = 0
    letters_kept: int = 0
    letters_rejected: dict[str, int] = field(default_factory=Counter)

    def keep(self, num_letters: int) -> None:
        """Count one fragment."""
        self.num_fragments += 1
        self.letters_read += num_letters
        self.letters_kept += num_letters

    def reject(self, reason: str, num_letters: int) -> None:
        """Count letters that no fragment holds."""
        self.letters_read += num_letters
        self.letters_rejected[reason] = self.letters_rejected.get(reason, 0) + num_letters


def fragment(
    record: Record,
    min_length: int = 300,
    max_length: int = 1000,
    rng: random.Random | None = None,
    kind: str = "dna",
    counts: FragmentCounts | None = None,
) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, text) of tiles of `record.sequence`; start and end are 0-based, end excluded.

    Without `rng` each tile is as long as it may be. Letters that no tile holds are added to `counts` as "unknown" or "too_short".
    Raises ConfigError when the lengths contradict each other.

    >>> list(fragment(Record("chr1", "", "ACGTNNACGTAC"), min_length=3, max_length=4))
    [(0, 4, 'ACGT'), (6, 9, 'ACG'), (9, 12, 'TAC')]
    """
    if not 1 <= min_length <= max_length:
        raise ConfigError(
            f"min_length {min_length} and max_length {max_length}", "1 <= min_length <= max_length", "Change one of the two lengths"
        )
    return _tiles(record.sequence, min_length, max_length, rng, kind, FragmentCounts() if counts is None else counts)


def _tiles(
    sequence: str, min_length: int, max_length: int, rng: random.Random | None, kind: str, counts: FragmentCounts
) -> Iterator[tuple[int, int, str]]:
    """Tile each known stretch; see `fragment`."""
    position = 0
    for start, end in _known_stretches(sequence, kind):
        if start > position:
            counts.reject("unknown", start - position)
        position = end
        if end - start < min_length:
            counts.reject("too_short", end - start)
            continue
        while start < end:
            length = _tile_length(end - start, min_length, max_length, rng)
            if length < min_length:  # only where max_length < 2 * min_length leaves a rest that no tiling can place
                counts.reject("too_short", length)
            else:
                counts.keep(length)
                yield start, start + length, sequence[start : start + length]
            start += length
    if position < len(sequence):
        counts.reject("unknown", len(sequence) - position)


def _tile_length(left: int, min_length: int, max_length: int, rng: random.Random | None) -> int:
    """Return the next tile's length, given the letters that are left in this stretch."""
    if left <= max_length:
        return left
    longest = min(max_length, left - min_length)
    if longest < min_length:  # left < 2 * min_length: one full tile, then a rest that is too short
        return max_length
    return longest if rng is None else rng.randint(min_length, longest)


def _known_stretches(sequence: str, kind: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the maximal stretches without unknown letters and gaps."""
    alphabet = get_alphabet(kind)
    breaks = alphabet.unknown + alphabet.unknown.lower() + alphabet.gap
    if not breaks:
        if sequence:
            yield 0, len(sequence)
        return
    for match in re.finditer(f"[^{re.escape(breaks)}]+", sequence):
        yield match.span()
