"""Find relatives among sequences (copies, the other strand, substrings, shifted windows, mutants) and split so that none straddles.

Algorithm. Each k-mer of each sequence (and, for DNA, of its other strand) is a seed: k = 11 bases or 5 residues. Two sequences that share
seeds on one band of 32 diagonals (position in one minus position in the other: an indel moves the diagonal a little) have an alignment
there. It is scored in bits, as BLAST scores hits: what the covered letters say, 2 bits for a base and 4.2 for a residue of even composition
(less in skewed sets: -log2 of the chance that two random letters agree), minus the price of placing each further stretch on the band.
Relatives are pairs whose bits exceed log2 of the number of letter pairs that were compared, plus 10: about 1 chance pair in 1,000 sets. So
short evidence counts in a small set and not in a large one: the least common stretch is 22 bp among 1,500 sequences of 100 bp and 28 bp
among 20,000 of 300 bp (11 to 14 residues in protein). A band with at least half of the bits gets a second look: the whole
diagonal is compared letter by letter, and its best stretch is scored for 80 % identity; that finds mutants with few intact seeds.
Clusters are the connected components (union-find), so relatives of relatives join.

One seed length serves all cases: a shared substring of 15 bp or more is a run of 11-mers on one diagonal, so 15-mers would add no pair.
Ignored: seeds with a letter outside ACGT (or the 20 residues), and low-complexity seeds (repeats with a period of up to 6 bases or 2
residues: poly-A, microsatellites). A seed that more than 64 places share (a repeat family, a common domain) links each
place only to the next 64: a large family is still one cluster, through its neighbours, and time stays linear. Sequences
with the same interspersed repeat (Alu) do join: they share sequence that a model can remember.

Recall, measured: 1,000 random sequences and a planted relative of 300 of them; no unrelated pair was ever joined.

    relative                              DNA 100 bp  DNA 150 bp  DNA 300 bp  protein 60  protein 150
    copy, other strand, middle half,
    last third as the first of another        1.00        1.00        1.00        1.00        1.00
    90 % identity (either strand)             1.00        1.00        1.00        1.00        1.00
    85 % identity                             0.98        0.99        1.00        1.00        1.00
    80 % identity                             0.90        0.94        1.00        1.00        1.00
    70 % identity                             0.47        0.50        0.78        0.98        1.00
    8 % substitutions and 2 % indels          0.99        1.00        1.00        1.00        1.00
    15 % substitutions and 5 % indels         0.72        0.86        0.98        1.00        1.00

Limits: relatives below 70 % DNA identity, common stretches shorter than those above, and a set of one dominant letter (58 % G), where about
one unrelated sequence in 14 joined another (80 % GC: none in 8,000).
Time on one core: 20,000 random sequences of 300 bp 15 s, of 300 residues 5 s; 10,000 human promoters of 300 bp 11 s. Memory: up to 2 GB.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import Alphabet, get_alphabet, reverse_complement

Ints = NDArray[np.int64]

DNA_SEED, PROTEIN_SEED = 11, 5  # letters: 22 and 21 bits; the demo's mutants (80-90 % identity) keep 0.09-0.31 and 0.33-0.59 of them
DNA_PERIODS, PROTEIN_PERIODS = 6, 2
BAND = 32  # diagonals: indels that add up to 16 letters stay on one of two overlapping bands
MAX_NEIGHBOURS = 64
MARGIN_BITS = 10.0  # for local composition (CpG islands, helices), where letters agree more often than over all
_UNKNOWN, _REPEAT = 255, 254  # codes of a letter that is not exact, and (second look only) of one inside a low-complexity seed
_IDENTITY = 0.8  # that the second look is tuned to
_PAIRS_AT_ONCE, _CELLS_AT_ONCE = 20_000_000, 4_000_000  # 1.6 GB and 0.2 GB of arrays


def clusters(sequences: Sequence[str], kind: str) -> list[int]:
    """Return a cluster id for each sequence, numbered from 0 by first appearance; relatives have the same id.

    Case is ignored. Sequences that are shorter than a seed, or hold none, join only exact copies (and reverse complements).
    Meant for up to 20,000 sequences of some 100 letters. Raises ConfigError for an unknown kind.

    >>> clusters(["ACGTTGCATGCCTAGGATCCAAGT", "TTTTTTTTTTTT", "ACTTGGATCCTAGGCATGCAACGT"], "dna")
    [0, 1, 0]
    """
    alphabet = get_alphabet(kind)
    both_strands = alphabet.complement is not None
    distinct: dict[str, int] = {}
    members = []
    for sequence in sequences:
        text = sequence.upper()
        if both_strands:
            text = min(text, reverse_complement(text, kind))
        members.append(distinct.setdefault(text, len(distinct)))
    parents = list(range(len(distinct)))
    for first, second in related_pairs(list(distinct), kind):
        parents[_root(parents, first)] = _root(parents, second)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(_root(parents, member), len(numbers)) for member in members]


def related_pairs(sequences: Sequence[str], kind: str) -> list[tuple[int, int]]:
    """Return index pairs (i < j), sorted, whose shared seeds cannot be chance. Not every pair of a large family is listed (see above)."""
    alphabet = get_alphabet(kind)
    both_strands = alphabet.complement is not None
    length, periods = (DNA_SEED, DNA_PERIODS) if both_strands else (PROTEIN_SEED, PROTEIN_PERIODS)
    codes, lengths = _encode(sequences, alphabet)
    letters = np.bincount(codes[codes < len(alphabet.letters)], minlength=1).astype(float)
    if letters.sum() < length:
        return []
    bits = -math.log2(float(np.sum((letters / letters.sum()) ** 2)) + 1e-12)
    if bits < 0.1:  # one letter only: nothing to tell sequences apart
        return []
    search_bits = 2 * math.log2(float(lengths.sum())) - 1 + both_strands
    scoring = _Scoring(length, bits, math.log2(BAND * max(float(lengths.mean()), 1.0)), search_bits + MARGIN_BITS)
    seeds, codes = _seeds(codes, lengths, length, len(alphabet.letters), periods)
    complement = np.arange(256)  # of a code; _UNKNOWN and _REPEAT stay
    if alphabet.complement is not None:
        complement[: len(alphabet.letters)] = [alphabet.letters.index(alphabet.complement[letter]) for letter in alphabet.letters]
        seeds = _canonical(seeds, length, complement[: len(alphabet.letters)])
    letters_of = _Letters(codes, np.cumsum(lengths) - lengths, lengths, complement.astype(np.uint8))
    pairs: set[tuple[int, int]] = set()
    for matches in _matches(seeds, len(sequences)):
        pairs.update(_significant(matches, scoring, letters_of))
    return sorted(pairs)


def split_by_group(groups: Sequence[Hashable], fractions: Mapping[str, float], seed: int) -> list[str]:
    """Return a split name for each item, all items of a group in the same one, sizes as near to `fractions` as whole groups allow.

    Groups are shuffled by the seed, then dealt largest first, each to the split that lacks the largest share of its items.
    Raises ConfigError when the fractions do not add up to 1 or one of them is negative.

    >>> split_by_group(["a", "a", "b", "c"], {"train": 0.5, "test": 0.5}, seed=0)
    ['train', 'train', 'test', 'test']
    """
    total = sum(fractions.values())
    if not fractions or min(fractions.values()) < 0 or abs(total - 1) > 1e-6:
        raise ConfigError(f"split fractions {dict(fractions)} add up to {total:g}", "fractions from 0 to 1 that add up to 1", "Change them")
    sizes = Counter(groups)
    order = list(sizes)  # by first appearance, so the result does not depend on hashes
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -sizes[group])
    filled = dict.fromkeys(fractions, 0)
    wanted = {name: fraction * len(groups) for name, fraction in fractions.items()}
    chosen: dict[Hashable, str] = {}
    for group in order:
        name = max((name for name in fractions if fractions[name] > 0), key=lambda name: (wanted[name] - filled[name]) / wanted[name])
        chosen[group] = name
        filled[name] += sizes[group]
    return [chosen[group] for group in groups]


class _Seeds(NamedTuple):
    """Places of k-mers: code of the k-mer, sequence, position in it, and whether the code is that of the other strand."""

    code: Ints
    sequence: Ints
    position: Ints
    is_reverse: Ints


class _Matches(NamedTuple):
    """Pairs of places that share a seed: pair i * n + j with i < j, diagonal, relative strand, position in i."""

    pair: Ints
    strand: Ints
    diagonal: Ints
    position: Ints


class _Scoring(NamedTuple):
    """What decides on a pair: seed length, bits a letter, bits that each further stretch costs, bits needed."""

    length: int
    bits: float
    stretch_cost: float
    threshold: float


class _Letters(NamedTuple):
    """The letters of all sequences as codes, where each sequence starts, how long it is, and the complement of each code."""

    codes: NDArray[np.uint8]
    starts: Ints
    lengths: Ints
    complement: NDArray[np.uint8]


def _root(parents: list[int], item: int) -> int:
    """Return the root of an item's tree, and hang the items on the way nearer to it."""
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item


def _encode(sequences: Sequence[str], alphabet: Alphabet) -> tuple[NDArray[np.uint8], Ints]:
    """Return all letters as codes 0, 1, ... in one array (_UNKNOWN for one that is not exact), and each sequence's length."""
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    for number, letter in enumerate(alphabet.letters):
        table[[ord(letter.upper()), ord(letter.lower())]] = number
    text = "".join(sequences).encode("latin-1", "replace")
    return table[np.frombuffer(text, dtype=np.uint8)], np.array([len(sequence) for sequence in sequences], dtype=np.int64)


def _seeds(codes: NDArray[np.uint8], lengths: Ints, length: int, num_letters: int, periods: int) -> tuple[_Seeds, NDArray[np.uint8]]:
    """Return every k-mer that lies inside one sequence, holds exact letters only and is no short repeat; and the codes, repeats masked."""
    num_places = len(codes) - length + 1
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    is_inside = sequence[:num_places] == sequence[length - 1 :]
    unknown = np.concatenate([[0], np.cumsum(codes == _UNKNOWN)])
    is_inside &= unknown[length:] == unknown[:num_places]
    is_repeat = np.zeros(num_places, dtype=bool)
    for period in range(1, periods + 1):  # a repeat: each of its letters but the first few equals the one a period before
        equal = np.concatenate([[0], np.cumsum(codes[period:] == codes[:-period])])
        is_repeat |= equal[length - period : length - period + num_places] - equal[:num_places] == length - period
    is_repeat &= is_inside
    ends = np.zeros(len(codes) + 1, dtype=np.int64)
    ends[:num_places] += is_repeat
    ends[length:] -= is_repeat
    masked = np.where(np.cumsum(ends)[:-1] > 0, np.uint8(_REPEAT), codes)
    code = np.zeros(num_places, dtype=np.int64)
    for offset in range(length):
        code = code * num_letters + codes[offset : offset + num_places]
    places = np.flatnonzero(is_inside & ~is_repeat)
    return _Seeds(code[places], sequence[places], position[places], np.zeros(len(places), dtype=np.int64)), masked


def _canonical(seeds: _Seeds, length: int, complement: NDArray[np.int64]) -> _Seeds:
    """Return the seeds with the lesser code of the two strands."""
    rest, reverse = seeds.code.copy(), np.zeros_like(seeds.code)
    for _ in range(length):
        reverse = reverse * len(complement) + complement[rest % len(complement)]
        rest //= len(complement)
    return seeds._replace(code=np.minimum(seeds.code, reverse), is_reverse=(reverse < seeds.code).astype(np.int64))


def _matches(seeds: _Seeds, num_sequences: int) -> Iterator[_Matches]:
    """Yield the pairs of places with the same code, in parts that hold all pairs of a first sequence."""
    order = np.lexsort((seeds.position, seeds.sequence, seeds.code))
    seeds = _Seeds(*(column[order] for column in seeds))
    _, counts = np.unique(seeds.code, return_counts=True)
    num_pairs = int(np.sum(np.minimum(counts - 1, MAX_NEIGHBOURS) * counts))
    num_parts = max(1, math.ceil(num_pairs / _PAIRS_AT_ONCE))
    for part in range(num_parts):
        left = np.flatnonzero(seeds.sequence % num_parts == part)
        found: list[tuple[Ints, Ints]] = []
        for distance in range(1, MAX_NEIGHBOURS + 1):  # places of one code are neighbours in the sorted arrays
            left = left[left + distance < len(seeds.code)]
            left = left[seeds.code[left] == seeds.code[left + distance]]
            if not len(left):
                break
            other = left[seeds.sequence[left] != seeds.sequence[left + distance]]
            found.append((other, other + distance))
        if found:
            first, second = (np.concatenate(column) for column in zip(*found, strict=True))
            strand = seeds.is_reverse[first] ^ seeds.is_reverse[second]
            other_position = np.where(strand == 1, -seeds.position[second], seeds.position[second])
            pair = seeds.sequence[first] * num_sequences + seeds.sequence[second]
            yield _Matches(pair, strand, seeds.position[first] - other_position, seeds.position[first])


def _significant(matches: _Matches, scoring: _Scoring, letters: _Letters) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose best band of diagonals has enough bits, in its seeds or in its letters."""
    num_sequences = len(letters.lengths)
    # most pairs share one seed by chance: count first, sort the few that could reach the threshold
    key = matches.pair * 2 + matches.strand
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    fewest = math.ceil(scoring.threshold / 2 / (scoring.bits * scoring.length))
    kept = np.flatnonzero(counts[inverse] >= fewest)
    key, diagonal, position = key[kept], matches.diagonal[kept], matches.position[kept]
    for shift in (0, BAND // 2):
        band = (diagonal + shift) // BAND
        order = np.lexsort((position, band, key))
        k, b, p, d = key[order], band[order], position[order], diagonal[order]
        is_first = np.concatenate([[True], (k[1:] != k[:-1]) | (b[1:] != b[:-1])])[: len(k)]
        step = np.diff(p, prepend=0)
        is_extension = ~is_first & (np.diff(d, prepend=0) == 0) & (step <= scoring.length)
        is_stretch = is_first | (~is_extension & (step >= scoring.length))  # a seed that overlaps on another diagonal says nothing new
        covered = np.where(is_stretch, scoring.length, np.where(is_extension, step, 0))
        group = np.cumsum(is_first) - 1
        num_groups = int(is_first.sum())
        score = scoring.bits * np.bincount(group, covered, num_groups)
        score -= scoring.stretch_cost * (np.bincount(group, is_stretch, num_groups) - 1)
        is_related = score >= scoring.threshold
        unsure = np.flatnonzero((score >= scoring.threshold / 2) & ~is_related)
        is_related[unsure] = _diagonal_scores(k[is_first][unsure], d[is_first][unsure], scoring, letters) >= scoring.threshold
        for pair in np.unique(k[is_first][is_related] // 2).tolist():
            yield divmod(pair, num_sequences)


def _diagonal_scores(key: Ints, diagonal: Ints, scoring: _Scoring, letters: _Letters) -> NDArray[np.float64]:
    """Return for each (pair and strand, diagonal) the bits of its best stretch without gaps, at 80 % identity against chance."""
    chance = 2.0**-scoring.bits
    match, mismatch = math.log2(_IDENTITY / chance), math.log2((1 - _IDENTITY) / (1 - chance))
    first, second = np.divmod(key // 2, len(letters.lengths))
    scores = np.zeros(len(key))
    longest = int(letters.lengths[first].max(initial=1))
    rows_at_once = max(1, _CELLS_AT_ONCE // longest)
    for start in range(0, len(key), rows_at_once):
        rows = slice(start, start + rows_at_once)
        i, j, d = first[rows, None], second[rows, None], diagonal[rows, None]
        is_reverse = (key[rows, None] % 2).astype(bool)
        at = np.arange(longest)[None, :]
        # on the other strand the letter at p of i faces the letter at (diagonal + k - 1 - p) of j
        other = np.where(is_reverse, d + scoring.length - 1 - at, at - d)
        is_inside = (at < letters.lengths[i]) & (other >= 0) & (other < letters.lengths[j])
        one = letters.codes[np.where(is_inside, letters.starts[i] + at, 0)]
        two = letters.codes[np.where(is_inside, letters.starts[j] + other, 0)]
        two = np.where(is_reverse, letters.complement[two], two)
        gain = np.where((one == two) & (one != _UNKNOWN), match, mismatch)
        gain[~is_inside | (one == _REPEAT) | (two == _REPEAT)] = 0.0
        total = np.cumsum(gain, axis=1)
        lowest = np.minimum(np.minimum.accumulate(total, axis=1), 0.0)
        scores[rows] = (total - lowest).max(axis=1)
    return scores
