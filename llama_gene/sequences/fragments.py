"""Cut long records into fragments of seeded random lengths, and account for every letter.

A record is first split at its unknown letters (N in DNA, X in protein: a run of one is a gap in what is known), then each stretch
is tiled from left to right without overlap. A tile's length is drawn between `min_length` and `max_length`, but never so that
what is left would be shorter than `min_length`: so only stretches that are shorter than `min_length` as a whole are lost.
Random starts (`draw_windows`) take windows anywhere in a stretch instead; they overlap, and what none of them holds is counted.
A circular record is first turned (`turn`), so that its origin is no boundary.
The papers cut lines of 1001-1080 bp that ran across contig ends and deleted N (notes, fault C14); law 13 forbids both.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import get_alphabet
from llama_gene.sequences.records import Record


@dataclass
class FragmentCounts:
    """Letters (bp or residues) read, kept and rejected with the reason; read + repeated == kept + rejected at every moment."""

    num_fragments: int = 0
    letters_read: int = 0
    letters_kept: int = 0
    letters_repeated: int = 0
    """Letters that a further window holds again."""
    letters_rejected: dict[str, int] = field(default_factory=Counter)

    def keep(self, num_letters: int) -> None:
        """Count one fragment."""
        self.num_fragments += 1
        self.letters_read += num_letters
        self.letters_kept += num_letters

    def reject(self, reason: str, num_letters: int) -> None:
        """Count letters that no fragment holds."""
        if not num_letters:
            return
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


def draw_windows(
    record: Record, min_length: int, max_length: int, rng: random.Random, coverage: float, kind: str, counts: FragmentCounts
) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, text) of windows with random starts and lengths, in the order of their starts.

    In each known stretch so many windows are drawn that they hold `coverage` times its letters, at least one. Letters that none holds
    are counted as "not_drawn", letters that several hold as repeated. Raises ConfigError for lengths or a coverage that make no sense.
    """
    if not 1 <= min_length <= max_length or not coverage > 0:
        found = f"min_length {min_length}, max_length {max_length}, coverage {coverage}"
        raise ConfigError(found, "1 <= min_length <= max_length, and a coverage above 0")
    for start, end in _long_stretches(record.sequence, min_length, kind, counts):
        windows = []
        wanted = coverage * (end - start)
        while wanted > 0:
            length = rng.randint(min_length, min(max_length, end - start))
            first = rng.randint(start, end - length)
            windows.append((first, first + length))
            wanted -= length
        covered = start  # every letter before it is settled
        for first, last in sorted(windows):
            fresh = max(0, last - max(first, covered))
            if first > covered:
                counts.reject("not_drawn", first - covered)
            counts.keep(fresh)
            counts.letters_kept += last - first - fresh
            counts.letters_repeated += last - first - fresh
            covered = max(covered, last)
            yield first, last, record.sequence[first:last]
        counts.reject("not_drawn", end - covered)


def turn(record: Record, rng: random.Random, kind: str = "dna") -> Record:
    """Return a circular record cut open elsewhere: behind its first unknown run, else at a random place; its origin is then inside.

    The place stands in the id ("plasmid@812": letter 0 is letter 812 of the file).

    >>> turn(Record("p", "", "ACGTNNGG"), random.Random(0)).sequence
    'GGACGTNN'
    """
    stretches = list(_known_stretches(record.sequence, kind))
    length = len(record.sequence)
    if not stretches or length < 2:
        return record
    place = next((end for _, end in stretches if end < length), None)
    if place is not None:  # the end of the unknown run that begins there
        place = next((start for start, _ in stretches if start > place), 0)
    else:
        place = stretches[0][0] or rng.randrange(length)
    if not place:
        return record
    turned = record.sequence[place:] + record.sequence[:place]
    return replace(record, id=f"{record.id}@{place}", sequence=turned, source_id=record.origin)


def _tiles(
    sequence: str, min_length: int, max_length: int, rng: random.Random | None, kind: str, counts: FragmentCounts
) -> Iterator[tuple[int, int, str]]:
    """Tile each known stretch; see `fragment`."""
    for start, end in _long_stretches(sequence, min_length, kind, counts):
        while start < end:
            length = _tile_length(end - start, min_length, max_length, rng)
            if length < min_length:  # only where max_length < 2 * min_length leaves a rest that no tiling can place
                counts.reject("too_short", length)
            else:
                counts.keep(length)
                yield start, start + length, sequence[start : start + length]
            start += length


def _tile_length(left: int, min_length: int, max_length: int, rng: random.Random | None) -> int:
    """Return the next tile's length, given the letters that are left in this stretch."""
    if left <= max_length:
        return left
    longest = min(max_length, left - min_length)
    if longest < min_length:  # left < 2 * min_length: one full tile, then a rest that is too short
        return max_length
    return longest if rng is None else rng.randint(min_length, longest)


def _long_stretches(sequence: str, min_length: int, kind: str, counts: FragmentCounts) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the known stretches of at least `min_length`; count what lies between them, and the shorter ones."""
    position = 0
    for start, end in _known_stretches(sequence, kind):
        counts.reject("unknown", start - position)
        position = end
        if end - start < min_length:
            counts.reject("too_short", end - start)
        else:
            yield start, end
    counts.reject("unknown", len(sequence) - position)


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
