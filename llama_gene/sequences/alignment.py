"""Score an alignment of two sequences, and say what it is worth: bits against chance, identity and coverage.

*Scores.* Protein has BLOSUM62, 11 for the first letter of a gap and 1 for each further one. Every other alphabet has log-odds of 80 %
identity against its own composition: in DNA of even composition a match is worth 1.7 bits and a mismatch costs 1.9; where 58 % of the
letters are G, a G on a G is worth 0.5. A letter of low complexity scores nothing, an unknown one (N, X) as a mismatch.

*Bits.* Karlin and Altschul (1990): among m x n pairs of places chance makes K m n 2^-bits alignments as good. The scale lambda of the
bits is solved for the composition of the very pair (as BLAST's composition-based statistics do): two sequences rich in CpG must agree
better than two ordinary ones. Gapped alignments of protein use lambda 0.267 and K 0.041 (BLOSUM62 with these gaps, Altschul and Gish
1996). In DNA a gap costs so much that the ungapped lambda serves: among 60,000 random pairs of 300 bp scores fell off as it says (slope
1.01 to 1.04 of it) and K was 0.2 to 0.3; K = 1 is taken, two bits on the safe side.
An exact stretch is worth more than a score made for 80 % identity says: its letters' own bits count where they are more. Letters of
low complexity between others add half a bit each, all of them at most a third of what the others say.

The alignment itself (Smith-Waterman, SIMD) is parasail's: Daily 2016, BMC Bioinformatics 17:81.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from llama_gene.sequences.alphabet import Alphabet
from llama_gene.sequences.seeds import Codes, Letters

IDENTITY = 0.8  # that the scores of DNA are made for
_UNITS_A_BIT = 8
_DNA_GAP = (7.0, 2.5)  # bits: first letter, each further one
_PROTEIN_GAP = (12, 1)
_PROTEIN_LAMBDA, _PROTEIN_K, _PROTEIN_ENTROPY, _UNGAPPED_LAMBDA = 0.267, 0.041, 0.14, 0.3176
_PSEUDO_LETTERS = 20.0  # of the set's composition, added to that of each sequence
_MASKED_BITS = 0.5
_TWO_TESTS = 1.0  # bits: alignment and exact stretch are two chances to be wrong
_END = -1_000_000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scoring:
    """Scores of letters and what they are worth in a set of this composition."""

    letters: str
    matrix: NDArray[np.int32]  # over codes: letters, unknown, masked, end
    first_gap: int
    next_gap: int
    background: Floats
    unit: float  # bits of one unit of score, gapped, at the composition that `scale` was solved for
    scale: float  # lambda of the matrix, in nats, ungapped
    constant: float  # -log2 K
    entropy: float = 0.0  # nats a column of an alignment is worth; 0 where the edges of sequences are not allowed for

    def units(self, bits: float) -> int:
        """Return the score that is worth so many bits at the set's composition."""
        return math.ceil((bits - self.constant) / self.unit)

    def places(self, first: int, second: int) -> float:
        """Return among how many pairs of places an alignment of two sequences of these lengths can end.

        One that is better than chance has some length, and does not fit at the edges (Altschul and Gish 1996).
        """
        if self.entropy == 0.0:
            return float(first * second)
        length = math.log(max(first * second, 1)) + math.log(2) * -self.constant
        length = max(0.0, length) / self.entropy
        return max(first - length, first / 4) * max(second - length, second / 4)

    @cached_property
    def values(self) -> tuple[Ints, Ints]:
        """The different scores between two letters, and the number of each letter pair's score among them."""
        size = len(self.letters)
        values, number = np.unique(self.matrix[:size, :size], return_inverse=True)
        return values.astype(np.int64), number.reshape(-1)


@dataclass(frozen=True)
class Alignment:
    """A local alignment: what it is worth, its aligned columns, those with equal letters, and the letters it spans in each sequence."""

    bits: float
    length: int
    matches: int
    first: tuple[int, int]
    second: tuple[int, int]


def make_scoring(alphabet: Alphabet, ours: Letters, others: Letters | None) -> Scoring | None:
    """Return the scores for a set, None where its letters cannot tell sequences apart (none at all, or hardly more than one)."""
    counts = sum(np.bincount(part.scored, minlength=256)[: len(alphabet.letters)] for part in (ours, others) if part is not None)
    total = float(np.sum(counts))
    if total == 0:
        return None
    background = np.asarray(counts, np.float64) / total
    agree = float(background @ background)
    if agree > IDENTITY - 0.05:
        return None
    if alphabet.name == "protein":
        return _protein_scoring(alphabet.letters, background)
    if alphabet.complement is not None:  # the other strand has the complement's composition
        partner = [alphabet.letters.index(alphabet.complement[letter]) for letter in alphabet.letters]
        background = (background + background[partner]) / 2
        agree = float(background @ background)
    kept = (IDENTITY - agree) / (1 - agree)  # share of columns that descend unchanged; the others are drawn from the background
    matches = np.log2(kept / np.maximum(background, 1e-4) + 1 - kept)
    size = len(alphabet.letters)
    matrix = np.full((size + 3, size + 3), round(_UNITS_A_BIT * math.log2(1 - kept)), np.int32)
    matrix[range(size), range(size)] = np.maximum(1, np.round(_UNITS_A_BIT * matches))
    first_gap, next_gap = (round(_UNITS_A_BIT * bits) for bits in _DNA_GAP)
    _fill_special(matrix, size)
    values, number = np.unique(matrix[:size, :size], return_inverse=True)
    scale = solve_scale(values.astype(np.int64), number.reshape(-1), background, background)
    if scale <= 0:
        return None
    return Scoring(alphabet.letters, matrix, first_gap, next_gap, background, scale / math.log(2), scale, 0.0)


def _protein_scoring(letters: str, background: Floats) -> Scoring:
    import parasail

    order = ["ARNDCQEGHILKMFPSTWYVBZX*".index(letter) for letter in letters]  # of parasail's matrix
    size = len(letters)
    matrix = np.full((size + 3, size + 3), -1, np.int32)
    matrix[:size, :size] = parasail.blosum62.matrix[np.ix_(order, order)]
    _fill_special(matrix, size)
    unit, constant = _PROTEIN_LAMBDA / math.log(2), -math.log2(_PROTEIN_K)
    return Scoring(letters, matrix, *_PROTEIN_GAP, background, unit, _UNGAPPED_LAMBDA, constant, _PROTEIN_ENTROPY)


def _fill_special(matrix: NDArray[np.int32], size: int) -> None:
    """Set the scores of a masked letter (nothing, on anything) and of the end."""
    matrix[size + 1, :] = matrix[:, size + 1] = 0
    matrix[size + 2, :] = matrix[:, size + 2] = _END


@numba.njit(cache=True)
def solve_scale(values: Ints, number: Ints, first: Floats, second: Floats) -> float:
    """Return lambda: the positive x with sum(p_a q_b exp(x score_ab)) = 1, for letters from two compositions; 0 where there is none.

    `values` are the different scores; `number` says for each pair of letters (row by row) which of them it has.
    """
    chances = np.zeros(len(values))
    for a in range(len(first)):
        for b in range(len(second)):
            chances[number[a * len(second) + b]] += first[a] * second[b]
    mean, most = 0.0, 0
    for k in range(len(values)):
        mean += values[k] * chances[k]
        most = max(most, values[k])
    if mean >= 0 or most <= 0:
        return 0.0
    x = 1.0 / most
    for _ in range(200):
        total, slope = -1.0, 0.0
        for k in range(len(values)):
            term = chances[k] * np.exp(x * values[k])
            total += term
            slope += term * values[k]
        if slope <= 0 or (total < 0 and slope * x < -2 * total):  # far left of the root
            x *= 2
            continue
        step = total / slope  # the function is convex: from its right, Newton's steps never pass the root
        x -= step
        if abs(step) < 1e-7 * x:
            break
    return x


@numba.njit(cache=True)
def exact_bits(query: Codes, target: Codes, is_masked: NDArray[np.bool_], diagonal: int, information: Floats) -> float:
    """Return the bits of the best stretch of equal letters on a diagonal (place in target minus place in query).

    `information` holds the bits of each code's agreement, 0 for a code that is not a letter: that ends a stretch, too. A letter of
    low complexity adds half a bit, but all of them at most a third of what the others say.
    """
    best, total, num_masked = 0.0, 0.0, 0
    for place in range(max(0, -diagonal), min(len(query), len(target) - diagonal)):
        gain = information[query[place]] if query[place] == target[place + diagonal] else 0.0
        if gain == 0.0:
            total, num_masked = 0.0, 0
        elif is_masked[place]:
            num_masked += 1
        else:
            total += gain
        best = max(best, total + min(_MASKED_BITS * num_masked, total / 3))
    return best


class Aligner:
    """Aligns pairs of two sets of sequences (or of one with itself)."""

    def __init__(self, scoring: Scoring, alphabet: Alphabet, ours: Letters, others: Letters | None) -> None:
        self._scoring = scoring
        self._sets = (ours, ours if others is None else others)
        size = len(scoring.letters)
        self._complement = np.arange(256).astype(np.uint8)
        if alphabet.complement is not None:
            self._complement[:size] = [alphabet.letters.index(alphabet.complement[letter]) for letter in alphabet.letters]
        # as parasail reads them: lower case is masked; an unknown letter equals no letter of the other side
        self._signs = [np.frombuffer((scoring.letters + unknown + scoring.letters.lower()).encode("ascii"), np.uint8) for unknown in "!?"]
        self._matrix = _parasail_matrix(scoring)
        self._compositions: tuple[dict[int, Floats], dict[int, Floats]] = ({}, {})
        self._query: tuple[tuple[int, int, int], str, Any] = ((-1, -1, -1), "", None)  # the last one: candidates come query by query

    def align(self, first: int, second: int, strand: int, diagonal: int) -> Alignment:
        """Return the best local alignment of a pair; `first` is read on its other strand where `strand` is 1, and so are its places.

        `diagonal` is where seeds were found (place in second minus place in first): the exact stretch is looked for there.
        """
        import parasail

        scoring = self._scoring
        # parasail's automatic width tries 8 bits first, in vain
        width = 16 if min(self._length(0, first), self._length(1, second)) * int(scoring.matrix.max()) < 32_000 else 32
        query, profile = self._profile(first, strand, width)
        target = self._text(1, second, 0)
        aligned = getattr(parasail, f"sw_stats_striped_profile_{width}")(profile, target, scoring.first_gap, scoring.next_gap)
        length, matches = int(aligned.length), int(aligned.matches)
        end, other_end = int(aligned.end_query) + 1, int(aligned.end_ref) + 1
        if aligned.score <= 0:
            return Alignment(0.0, 0, 0, (0, 0), (0, 0))
        if matches == length:
            begin, other_begin = end - length, other_end - length
        else:  # where it begins is where the best alignment of the reversed sequences ends
            back = getattr(parasail, f"sw_striped_{width}")(
                query[:end][::-1], target[:other_end][::-1], scoring.first_gap, scoring.next_gap, self._matrix
            )
            begin, other_begin = end - 1 - int(back.end_query), other_end - 1 - int(back.end_ref)
        span, other_span = query[begin:end], target[other_begin:other_end]
        if not (span.isupper() and other_span.isupper()):  # masked letters score nothing, but equal ones are equal
            again = getattr(parasail, f"sw_stats_striped_{width}")(
                span.upper(), other_span.upper(), scoring.first_gap, scoring.next_gap, self._matrix
            )
            length, matches = int(again.length), int(again.matches)
        num_masked = min(sum(map(str.islower, part)) for part in (span, other_span))
        exact = max(self._exact(first, second, strand, place) for place in {diagonal, other_end - end})
        bits = self._bits(int(aligned.score), first, second, strand)
        bits = max(bits + min(_MASKED_BITS * num_masked, max(bits, 0.0) / 3), exact)
        return Alignment(bits, length, matches, (begin, end), (other_begin, other_end))

    def _profile(self, first: int, strand: int, width: int) -> tuple[str, Any]:
        """Return a sequence as text, and as parasail's profile."""
        import parasail

        if self._query[0] != (first, strand, width):
            text = self._text(0, first, strand)
            profile = getattr(parasail, f"profile_create_stats_{width}")(text, self._matrix)
            self._query = ((first, strand, width), text, profile)
        return self._query[1:]

    def _length(self, number: int, sequence: int) -> int:
        return int(self._sets[number].lengths[sequence])

    def _codes(self, number: int, sequence: int, strand: int, scored: bool = False) -> Codes:
        codes = self._sets[number].scored_codes(sequence) if scored else self._sets[number].codes(sequence)
        return self._complement[codes[::-1]] if strand else codes

    def _text(self, number: int, sequence: int, strand: int) -> str:
        """Return a sequence as parasail reads it."""
        codes, scored = self._codes(number, sequence, strand), self._codes(number, sequence, strand, scored=True)
        size = len(self._scoring.letters)
        return str(self._signs[number][np.where(scored == size + 1, codes + size + 1, codes)].tobytes(), "ascii")

    def _composition(self, number: int, sequence: int, strand: int) -> Floats:
        """Return the shares of a sequence's letters, with some of the set's mixed in."""
        known = self._compositions[number].get(sequence)
        if known is None:
            size = len(self._scoring.letters)
            counts = np.bincount(self._sets[number].scored_codes(sequence), minlength=size)[:size]
            known = (counts + _PSEUDO_LETTERS * self._scoring.background) / (counts.sum() + _PSEUDO_LETTERS)
            self._compositions[number][sequence] = known
        return known[self._complement[: len(known)]] if strand else known

    def _bits(self, score: int, first: int, second: int, strand: int) -> float:
        """Return what a score is worth between two sequences of these compositions."""
        scoring = self._scoring
        one, two = self._composition(0, first, strand), self._composition(1, second, 0)
        ratio = min(1.0, solve_scale(*scoring.values, one, two) / scoring.scale)
        return score * scoring.unit * ratio + scoring.constant

    def _exact(self, first: int, second: int, strand: int, diagonal: int) -> float:
        """Return the bits of the best exact stretch on a diagonal, each letter as common as in the richer of the two."""
        information = np.zeros(256)
        one, two = self._composition(0, first, strand), self._composition(1, second, 0)
        information[: len(one)] = -np.log2(np.maximum(one, two))
        is_masked = self._codes(0, first, strand, scored=True) == len(one) + 1
        query, target = self._codes(0, first, strand), self._codes(1, second, 0)
        return exact_bits(query, target, is_masked, diagonal, information) - _TWO_TESTS


def _parasail_matrix(scoring: Scoring) -> Any:
    """Return the scores over upper case, lower case (masked) and the two unknown letters."""
    import parasail

    size = len(scoring.letters)
    signs = scoring.letters + scoring.letters.lower() + "!?"
    codes = [*range(size), *[size + 1] * size, size, size]
    matrix = parasail.matrix_create(signs, 1, -1, True)
    for row, code in enumerate(codes):
        for column, other in enumerate(codes):
            matrix[row, column] = int(scoring.matrix[code, other])
    return matrix
