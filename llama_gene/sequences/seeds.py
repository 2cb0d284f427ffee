"""Find the few pairs of sequences that are worth an alignment: spaced seeds, then extension without gaps, then with gaps; in numba.

*Seeds.* A pattern names places in a window, for example 1101011 with gaps at the zeros; two windows that agree at its ones are a hit.
Substitutions hurt spaced patterns less than contiguous ones, as neighbouring hits are nearly independent; indels hurt short patterns
less than long ones. So up to six patterns are used together, one of them contiguous (chosen greedily on simulated alignments of 80 %
identity: of 100 bp without a hit there are less than 1 in 3,000, with 5 % indels 1 in 1,400, with 10 % 1 in 170; weight 10). Residues are
grouped in ten classes first (Murphy et al. 2000), so a conservative substitution does not break a seed. The weight follows the size of
the search: the least for which chance makes no more than MOST_HITS hits, so small sets are searched more finely.

*Work.* One pattern's places are sorted into buckets (counting sort); each sequence looks its windows up, the other strand as well. Of a
hit 32 bases or 16 residues are compared in one machine word, which leaves 5 % (residues: 20 %) of the chance hits; those are extended
along the diagonal until the score has fallen 10 bits below its best; what reaches the trigger is extended with gaps (affine, rows of live
cells as in BLAST), and what reaches the candidate's score goes out. Both thresholds stand relative to the size of the search, so that
chance makes about 2^TRIGGER_BITS gapped extensions and 2^CANDIDATE_BITS candidates in any set, large or small.

A bucket of more than MAX_PLACES places (a repeat family) gives each place only the next ones behind it: a large family still hangs together
through its neighbours, and time stays linear.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from llama_gene.sequences.complexity import FEW_LETTERS, low_complexity

MOST_HITS = 2.2e8
TRIGGER_BITS = {True: 21.0, False: 17.0}  # of alphabets of few letters (DNA), and of others, where an extension costs more
CANDIDATE_BITS = 10.0
MAX_PLACES, MAX_PLACES_OF_OTHERS = 64, 256
_MOST_CODES = 1 << 24  # buckets of a pattern: 64 MB
_LEAST_WEIGHT, _LEAST_PATTERNS = {True: 8, False: 5}, {True: 6, False: 2}
_DNA_PATTERNS = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 13, 14),
    (0, 1, 2, 4, 6, 7, 8, 11, 12, 13, 15, 16),
    (0, 1, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14),
    (0, 1, 2, 4, 6, 10, 11, 12, 13, 14, 15, 16),
    (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13),
)
_PROTEIN_PATTERNS = (
    (0, 1, 2, 3, 4, 5, 6),
    (0, 2, 5, 8, 10, 11, 12),
    (0, 1, 3, 5, 7, 8, 10),
    (0, 1, 2, 5, 6, 9, 10),
    (0, 1, 5, 8, 9, 11, 12),
    (0, 3, 4, 9, 10, 11, 12),
)
_NO_CLASS = 255
_CHANCE_ALIKE = {True: 0.05, False: 0.2}  # of hits by chance, how many may pass that comparison: DNA, protein
_BLOCK = 256
_PART = 4096  # candidates that are handed out at once, or a few more
_FAR = -(1 << 28)  # a score that nothing brings back

Codes = NDArray[np.uint8]
Int32 = NDArray[np.int32]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Letters:
    """Sequences as codes in one array: 0, 1, ... for letters, then unknown, masked, end; an end stands before, between and behind them."""

    exact: Codes  # nothing masked
    scored: Codes  # letters of low complexity masked
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def codes(self, sequence: int) -> Codes:
        """Return the exact codes of one sequence."""
        start = int(self.starts[sequence])
        return self.exact[start : start + int(self.lengths[sequence])]

    def scored_codes(self, sequence: int) -> Codes:
        """Return the codes of one sequence, low complexity masked."""
        start = int(self.starts[sequence])
        return self.scored[start : start + int(self.lengths[sequence])]


@dataclass(frozen=True)
class Search:
    """What a search needs to know of its scores: a matrix over codes, gap costs and thresholds, all in units of the matrix."""

    matrix: Int32
    first_gap: int
    next_gap: int
    drop: int
    gapped_drop: int
    trigger: int
    candidate: int


@dataclass(frozen=True)
class Candidates:
    """Pairs worth an alignment: `strand` 1 is the other strand of `first`; `diagonal` is the place in second minus the place in first."""

    first: Int32
    second: Int32
    strand: Int32
    diagonal: Int32


def encode(sequences: list[str], letters: str) -> Letters:
    """Return upper-case sequences as codes; a letter that is not one of `letters` is unknown."""
    unknown, masked, end = len(letters), len(letters) + 1, len(letters) + 2
    table = np.full(256, unknown, np.uint8)
    table[np.frombuffer(letters.encode("ascii"), np.uint8)] = np.arange(len(letters))
    table[0] = end
    exact = table[np.frombuffer(("\0" + "\0".join(sequences) + "\0").encode("latin-1", "replace"), np.uint8)]
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    starts = 1 + np.cumsum(lengths + 1) - lengths - 1
    scored = exact.copy()
    scored[low_complexity(exact, len(letters))] = masked
    return Letters(exact, scored, starts, lengths)


def candidates(
    ours: Letters, others: Letters | None, classes: list[int], complement: list[int] | None, search: Search, labels: Int32
) -> Iterator[Candidates]:
    """Yield the pairs of `ours` (first < second), or of `ours` and `others`, that reach the candidate's score; a pair and strand once.

    Pairs of one set with the same label are left out; the caller may change `labels` between two parts.
    `classes` is the seed class of each letter; `complement` the complement of each letter, or None where there is one strand only.
    """
    targets = ours if others is None else others
    num_letters, num_classes = len(classes), max(classes) + 1
    class_of = np.full(256, _NO_CLASS, np.uint8)
    class_of[:num_letters] = classes
    weight, patterns = _patterns(ours, targets, others is None, class_of, num_classes, complement is not None)
    if weight == 0:
        return
    tables, places, bases = _index(targets.scored, class_of, num_classes, patterns, weight)
    owners = np.zeros(len(targets.scored), np.int32)
    for sequence, (start, length) in enumerate(zip(targets.starts.tolist(), targets.lengths.tolist(), strict=True)):
        owners[start : start + length] = sequence
    partner = np.arange(256).astype(np.uint8)
    if complement is not None:
        partner[:num_letters] = complement
    width = 2 if num_classes <= 4 else 4
    least_alike = _least_alike(ours, targets, class_of, num_classes, weight, 64 // width) if num_classes <= 16 else 0
    before = (64 // width - 1 - int(patterns[:, -1].max())) // 2  # letters before a seed's first that are compared, as many as behind
    packed = _pack(targets.scored, class_of, width, before)
    num_targets = len(targets.lengths)
    longest = int(max(ours.lengths.max(), targets.lengths.max()))
    settings = np.array([search.first_gap, search.next_gap, search.drop, search.gapped_drop, search.trigger, search.candidate], np.int32)
    max_places = MAX_PLACES if others is None else MAX_PLACES_OF_OTHERS
    letters, words, rows = np.zeros(longest + 2, np.uint8), np.zeros(longest + 2, np.uint64), np.zeros((2, longest + 2), np.int32)
    hits = np.zeros((4, _BLOCK * max_places), np.int64)
    state = np.zeros((3, 2 * num_targets), np.int32)  # accepted by, tried by (query + 1), diagonal tried
    found = np.zeros((_PART + 2 * num_targets, 4), np.int32)
    query = 0
    while query < len(ours.lengths):
        query, count = _search(
            query, others is None, complement is not None, max_places, ours.scored, ours.starts, ours.lengths,
            targets.scored, targets.starts, owners, tables, places, bases, patterns, num_classes, class_of, partner,
            packed, width, before, least_alike, search.matrix, settings, letters, words, hits, labels, state, rows, found,
        )  # fmt: skip
        part = found[:count].copy()
        yield Candidates(part[:, 0], part[:, 1], part[:, 2], part[:, 3])


def _patterns(ours: Letters, targets: Letters, is_same: bool, class_of: Codes, num_classes: int, both: bool) -> tuple[int, Int32]:
    """Return the weight and the patterns, cut to it; weight 0 where there is nothing to look up."""
    agree, pairs = _chance(ours, targets, class_of, num_classes)
    pairs *= (0.5 if is_same else 1.0) * (2 if both else 1)
    if pairs == 0 or num_classes < 2:
        return 0, np.zeros((0, 0), np.int32)
    few = num_classes <= FEW_LETTERS
    patterns = _DNA_PATTERNS if few else _PROTEIN_PATTERNS
    weight, most = _LEAST_WEIGHT[few], len(patterns[0])
    while weight < most and num_classes ** (weight + 1) <= _MOST_CODES and pairs * agree**weight * _LEAST_PATTERNS[few] > MOST_HITS:
        weight += 1
    number = int(MOST_HITS / (pairs * agree**weight))
    number = min(max(number, _LEAST_PATTERNS[few]), len(patterns))
    return weight, np.array([pattern[:weight] for pattern in patterns[:number]], np.int32)


def _chance(ours: Letters, targets: Letters, class_of: Codes, num_classes: int) -> tuple[float, float]:
    """Return the chance that a letter of one set and one of the other are of one class, and the number of pairs of letters."""
    counts = [np.bincount(class_of[letters.scored], minlength=256)[:num_classes].astype(float) for letters in (ours, targets)]
    pairs = float(counts[0].sum() * counts[1].sum())
    return float(counts[0] @ counts[1]) / max(pairs, 1.0), pairs


def _least_alike(ours: Letters, targets: Letters, class_of: Codes, num_classes: int, weight: int, per_word: int) -> int:
    """Return how many of the letters around a seed must be alike, such that few chance hits have so many."""
    agree, _ = _chance(ours, targets, class_of, num_classes)
    rest = per_word - weight
    tail, least = 1.0, 0
    while tail > _CHANCE_ALIKE[num_classes <= FEW_LETTERS] and least < rest:
        tail -= math.comb(rest, least) * agree**least * (1 - agree) ** (rest - least)
        least += 1
    return weight + least


def _index(codes: Codes, class_of: Codes, num_classes: int, patterns: Int32, weight: int) -> tuple[Int32, Int32, NDArray[np.int64]]:
    """Return for each pattern where each seed's bucket begins, all places bucket by bucket, and where each pattern's places begin."""
    tables = np.zeros((len(patterns), num_classes**weight + 1), np.int32)
    parts = [_sorted_places(codes, class_of, num_classes, pattern, table) for pattern, table in zip(patterns, tables, strict=True)]
    bases = np.cumsum([0, *(len(part) for part in parts)])
    return tables, np.concatenate(parts), bases


@numba.njit(cache=True)
def _seed(codes: Codes, place: int, class_of: Codes, num_classes: int, pattern: Int32) -> int:
    """Return the seed at a place, -1 where a letter is unknown, masked or the end (a skipped one may be the end: extension stops there)."""
    seed = np.int64(0)
    for k in range(len(pattern)):
        letter = class_of[codes[place + pattern[k]]]
        if letter == _NO_CLASS:
            return -1
        seed = seed * num_classes + letter
    return int(seed)


@numba.njit(cache=True)
def _sorted_places(codes: Codes, class_of: Codes, num_classes: int, pattern: Int32, table: Int32) -> Int32:
    """Return the places of all seeds sorted by seed, then place; fill `table` with where each seed's begin (and the end of all)."""
    num_places = len(codes) - pattern[-1]
    for place in range(num_places):
        seed = _seed(codes, place, class_of, num_classes, pattern)
        if seed >= 0:
            table[seed + 1] += 1
    for seed in range(1, len(table)):
        table[seed] += table[seed - 1]
    places = np.empty(table[-1], np.int32)
    for place in range(num_places):
        seed = _seed(codes, place, class_of, num_classes, pattern)
        if seed >= 0:
            places[table[seed]] = place
            table[seed] += 1
    for seed in range(len(table) - 1, 0, -1):  # each start has moved to the next one's
        table[seed] = table[seed - 1]
    table[0] = 0
    return places


@numba.njit(cache=True)
def _search(
    query: int, is_same: bool, both: bool, max_places: int, codes: Codes, starts: NDArray[np.int64], lengths: NDArray[np.int64],
    targets: Codes, target_starts: NDArray[np.int64], owners: Int32, tables: Int32, places: Int32, bases: NDArray[np.int64],
    patterns: Int32, num_classes: int, class_of: Codes, partner: Codes, packed: Words, width: int, before: int, least_alike: int,
    matrix: Int32, settings: Int32, letters: Codes, words: Words, hits: NDArray[np.int64], labels: Int32, state: Int32, rows: Int32,
    found: Int32,
) -> tuple[int, int]:  # fmt: skip
    """Search sequences from `query` on until `found` might overflow; return the next query and the number of candidates found."""
    first_gap, next_gap, drop, gapped_drop, trigger, enough = settings
    count = 0
    end = codes[0]
    while query < len(starts) and count < _PART and count + state.shape[1] <= len(found):
        start, length = starts[query], lengths[query]
        last = start + length  # the end behind the sequence; places of later sequences are greater
        for strand in range(2 if both else 1):
            letters[0] = end
            letters[length + 1] = end
            for k in range(length):
                letters[k + 1] = partner[codes[last - 1 - k]] if strand else codes[start + k]
            if least_alike > 0:
                _fill_words(letters, length, class_of, width, before, words)
            for number in range(len(patterns)):
                pattern, table, base = patterns[number], tables[number], bases[number]
                stop = length + 1 - pattern[-1]
                for block in range(1, stop, _BLOCK):  # the memory's latency rules: many look-ups at once, then many comparisons
                    size = min(_BLOCK, stop - block)
                    for k in range(size):
                        seed = _seed(letters, block + k, class_of, num_classes, pattern)
                        hits[0, k] = base + table[seed] if seed >= 0 else 0
                        hits[1, k] = base + table[seed + 1] if seed >= 0 else 0
                    num_hits = _collect(hits, size, block, places, last if is_same else -1, max_places, query)
                    if least_alike > 0:
                        num_hits = _alike(hits, num_hits, words, packed, width, least_alike)
                    for k in range(num_hits):
                        at, target = hits[2, k], hits[3, k]
                        other = owners[target]
                        slot = 2 * other + strand
                        if state[0, slot] == query + 1 or (is_same and labels[other] == labels[query]):
                            continue
                        if not _is_hit(letters, at, targets, target, matrix, drop, trigger):
                            continue
                        if state[1, slot] == query + 1 and state[2, slot] == target - at:
                            continue
                        state[1, slot] = query + 1
                        state[2, slot] = target - at
                        score = _gapped(letters, at, targets, target, 1, matrix, first_gap, next_gap, gapped_drop, enough, rows)
                        if score < enough:
                            rest = enough - score
                            score += _gapped(letters, at - 1, targets, target - 1, -1, matrix, first_gap, next_gap, gapped_drop, rest, rows)
                        if score >= enough:
                            state[0, slot] = query + 1
                            found[count, 0] = query
                            found[count, 1] = other
                            found[count, 2] = strand
                            found[count, 3] = (target - target_starts[other]) - (at - 1)
                            count += 1
        query += 1
    return query, count


@numba.njit(cache=True)
def _collect(hits: NDArray[np.int64], size: int, block: int, places: Int32, after: int, max_places: int, query: int) -> int:
    """Write place in query and place in target of each hit to rows 2 and 3, from the buckets' begins and ends in rows 0 and 1.

    Only places behind `after` count: in one set a pair is found from its first sequence. A large bucket gives the next `max_places` in one
    set; between two sets it gives others to each place, so that all are met in the end.
    """
    count = 0
    for k in range(size):
        low, high = hits[0, k], hits[1, k]
        if high - low <= 8:
            for index in range(low, high):
                hits[2, count] = block + k
                hits[3, count] = places[index]
                count += places[index] > after
            continue
        if after >= 0:
            right = high
            while low < right:
                middle = (low + right) // 2
                if places[middle] > after:
                    right = middle
                else:
                    low = middle + 1
        turn = (query * 7 + block + k) % (high - low) if after < 0 and high - low > max_places else 0
        for step in range(min(high - low, max_places)):
            hits[2, count] = block + k
            hits[3, count] = places[low + (step + turn) % (high - low)]
            count += 1
    return count


@numba.njit(cache=True)
def _fill_words(letters: Codes, length: int, class_of: Codes, width: int, before: int, words: Words) -> None:
    """Write for each place the classes of the letters around it, `width` bits each, the first one lowest; beyond the ends is class 0."""
    per_word = 64 // width
    word = np.uint64(0)
    for place in range(1 - per_word, length + 1):
        ahead = place + per_word - 1 - before
        new = class_of[letters[ahead]] if 1 <= ahead <= length else np.uint8(0)
        if new == _NO_CLASS:
            new = np.uint8(0)
        word = (word >> np.uint64(width)) | (np.uint64(new) << np.uint64(64 - width))
        if place >= 1:
            words[place] = word


@numba.njit(cache=True)
def _alike(hits: NDArray[np.int64], num_hits: int, words: Words, packed: Words, width: int, least: int) -> int:
    """Keep the hits with at least so many equal classes around them; return their number. A comparison is a few machine words."""
    ones = np.uint64(0x5555555555555555) if width == 2 else np.uint64(0x1111111111111111)
    most = 64 // width - least
    kept = 0
    for k in range(num_hits):
        at, target = hits[2, k], hits[3, k]
        bit = target * width
        shift = np.uint64(bit & 63)
        word = (packed[bit >> 6] >> shift) | ((packed[(bit >> 6) + 1] << np.uint64(1)) << (np.uint64(63) - shift))
        differ = words[at] ^ word
        differ |= differ >> np.uint64(1)
        if width == 4:
            differ |= differ >> np.uint64(2)
        differ &= ones
        hits[2, kept] = at
        hits[3, kept] = target
        kept += _popcount(differ) <= most
    return kept


@numba.njit(cache=True)
def _popcount(word: np.uint64) -> int:
    """Return how many bits are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return int((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(cache=True)
def _pack(codes: Codes, class_of: Codes, width: int, before: int) -> Words:
    """Return the classes of all letters as one string of bits; the class of place p - before begins at bit p * width."""
    packed = np.zeros((len(codes) + before) * width // 64 + 3, np.uint64)
    for place in range(len(codes)):
        letter = class_of[codes[place]]
        if letter != _NO_CLASS:
            bit = (place + before) * width
            packed[bit >> 6] |= np.uint64(letter) << np.uint64(bit & 63)
    return packed


@numba.njit(cache=True)
def _is_hit(letters: Codes, at: int, targets: Codes, target: int, matrix: Int32, drop: int, trigger: int) -> bool:
    """Return whether the best stretch of the diagonal through a seed scores `trigger` or more."""
    total = 0
    for step in (1, -1):
        score, best = 0, 0
        a, b = (at, target) if step == 1 else (at - 1, target - 1)
        while True:
            score += matrix[letters[a], targets[b]]
            if score > best:
                best = score
                if total + best >= trigger:
                    return True
            elif score < best - drop:
                break
            a += step
            b += step
        total += best
    return False


@numba.njit(cache=True)
def _gapped(
    letters: Codes, at: int, targets: Codes, target: int, step: int, matrix: Int32, first_gap: int, next_gap: int, drop: int,
    enough: int, rows: Int32,
) -> int:  # fmt: skip
    """Return the best score of an alignment that begins at a pair of places and goes on in one direction; stop once it is `enough`.

    Row by row over `letters`, the cells whose score is within `drop` of the best; affine gaps.
    """
    end = targets[0]
    best = 0
    scores, vertical = rows[0], rows[1]
    scores[0] = 0
    vertical[0] = _FAR
    high = 1  # cells low..high-1 are alive
    while targets[target + step * (high - 1)] != end and first_gap + (high - 1) * next_gap <= drop:
        scores[high] = -(first_gap + (high - 1) * next_gap)
        vertical[high] = _FAR
        high += 1
    low = 0
    row = 0
    while True:
        letter = letters[at + step * row]
        if letter == end:
            return best
        diagonal, left, horizontal = _FAR, _FAR, _FAR
        new_low, new_high = -1, low
        column = low
        while True:
            up = scores[column] if column < high else _FAR
            down = max(up - first_gap, vertical[column] - next_gap) if column < high else _FAR
            score = down
            if column > low or diagonal > _FAR:
                opposite = targets[target + step * (column - 1)]
                if opposite == end:
                    break
                if diagonal > _FAR:
                    score = max(score, diagonal + matrix[letter, opposite])
                horizontal = max(left - first_gap, horizontal - next_gap)
                score = max(score, horizontal)
            if score < best - drop:
                score = _FAR
            scores[column] = score
            vertical[column] = down
            if score > _FAR:
                if new_low < 0:
                    new_low = column
                new_high = column + 1
                if score > best:
                    best = score
                    if best >= enough:
                        return best
            diagonal, left = up, score
            column += 1
            if column > high and score == _FAR and horizontal < best - drop:
                break
        if new_low < 0:
            return best
        low, high = new_low, new_high
        row += 1
