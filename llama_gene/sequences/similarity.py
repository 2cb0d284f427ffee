"""Find relatives among sequences (copies, the other strand, substrings, shifted windows, mutants, homologues) and split around them.

Algorithm. Spaced seeds propose pairs, on both strands where there are two (`seeds`); an alignment decides (`alignment`). Two sequences are
relatives when their best local alignment cannot be chance in a search of this size: its bits exceed log2 of the number of letter pairs
compared (or of the pairs of sequences times the places that these two have, if that is less) plus 11, so that one search in 1,000 holds a
chance pair (E-value 0.001, as MMseqs2 has it). Short evidence counts in a small set and not in a large one: the least exact stretch is 26
bp among 1,500 sequences of 100 bp, 28 bp among 4,000 of 300, 12 residues among 1,500 of 60. `clusters`, which splits are made of, lets one
pair of proteins in 50 sequences join by chance. Compositions count: two GC-rich sequences must agree better. Stretches of low complexity,
such as poly-A, are hardly evidence (`complexity`). Callers who want the field's thresholds of identity and coverage pass FIELD_THRESHOLDS.
Clusters are connected components: relatives of relatives join. Sequences with the same interspersed repeat (Alu) join, too: they share text
that a model can remember.

Recall, simulated: 1,000 planted pairs among 3,000 unrelated sequences, letters drawn evenly / as in real sequences (human-like DNA with CpG
islands and microsatellites, Swiss-Prot's residues); `python benchmarks/relatives.py`. `find_relatives` joined no unrelated pair (of
12,497,500 in each of the four sets), and no pair that it lists straddled a split.

    DNA, either strand                                             150 bp        200 bp        300 bp
    substring, shifted window, copy of the other strand          1.00 / 1.00   1.00 / 1.00   1.00 / 1.00
    80 % identity: substitutions, 1/4 or 1/2 indels              1.00 / 1.00   1.00 / 1.00   1.00 / 1.00
    70 % identity, 1/4 of the changes indels                     1.00 / 0.94   1.00 / 1.00   1.00 / 1.00
    protein, residues                     50            75            100           150           300
    listed: exact half                1.00 / 0.95   1.00 / 0.98   1.00 / 1.00   1.00 / 1.00   1.00 / 1.00
            50 % identity             0.90 / 0.69   1.00 / 0.97   1.00 / 1.00   1.00 / 1.00   1.00 / 1.00
            35 % identity             0.00 / 0.07   0.54 / 0.21   1.00 / 0.82   1.00 / 1.00   1.00 / 1.00
    clustered: 50 % identity          1.00 / 1.00   1.00 / 1.00   1.00 / 1.00   1.00 / 1.00   1.00 / 1.00
            35 % identity             0.89 / 0.71   0.96 / 0.82   1.00 / 1.00   1.00 / 1.00   1.00 / 1.00

What is missed is too little to tell from chance: an exhaustive alignment lists 1 to 5 of 1,000 protein pairs more, and no DNA pair. In
`clusters` 18 and 5 families of 5,000 proteins joined by chance. In large sets seeds miss more distant proteins: among 16,000 of 300
residues about one alignable homologue of 35 % in five. On real sequences: yeast's proteins against reversed ones, 106 of 9,000,000 pairs,
most with a dozen coiled coils and repeats; 10,000 human promoters, halves against each other reversed, none of 25,000,000. Yeast's 6,077
proteins make 3,492 clusters (of listed relatives alone: 3,944), the largest of 859 (114), 7,418 human ones 2,716 (3,253) and 3,369 (2,535):
the largest goes to training.

Limits: a DNA set of one dominant letter (above 75 %) has no relatives but copies. Proteins of low complexity throughout join copies only.
Time on one (shared) core: 20,000 random sequences of 300 bp 19 s, of 300 residues 12 s; 10,000 human promoters of 300 bp 11 s;
`others`: 50,000 of 300 bp against 5,000 22 s. A listed pair costs 0.15 ms more: a family of 1,000
(300,000 pairs) 45 s. `clusters` aligns a family's members about once each (5,000 beside 5,000 others: 17 s). Memory 0.3 to 0.6 GB.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import Alphabet, get_alphabet, reverse_complement

_DROP_BITS, _GAPPED_DROP_BITS = 10.0, 16.0
_TWO_TESTS = 1.0  # bits
_OVERLAP_SHARE = 0.9  # of the aligned columns that an exact stretch must make up

Relation = Literal["copy", "reverse_complement", "contained", "overlap", "similar"]

# what makes letters alike in a seed; Murphy, Wallqvist and Levy 2000, ten classes
_RESIDUE_CLASSES = ("LVIM", "C", "A", "G", "ST", "P", "FYW", "EDNQ", "KR", "H")


@dataclass(frozen=True)
class Thresholds:
    """What makes two sequences relatives. The defaults ask only that it cannot be chance."""

    expected: float = 0.001
    """How many pairs as alike as this chance may make in the whole search (the E-value; MMseqs2 and others use 0.001)."""
    identity: float = 0.0
    """Least share of equal letters among the aligned columns."""
    coverage: float = 0.0
    """Least share of the letters of *each* of the two that the alignment spans; above 0.5 a substring is no relative any more."""

    def __post_init__(self) -> None:
        if not self.expected > 0:
            raise ConfigError(f"expected: {self.expected:g}", "a number above 0", "Use 0.001: one chance pair in 1,000 searches")
        for name, value in (("identity", self.identity), ("coverage", self.coverage)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}: {value:g}", "a share from 0 to 1", "Write 30 % as 0.3")


ANY = Thresholds()
SEQUENCES_A_CHANCE_PAIR = 50
"""In clusters made for a split: one pair of strangers may join for each 50 proteins, far from the half a pair each that joins them all."""
MOST = 0.5  # of the sequences, in one cluster
FIELD_THRESHOLDS = {"dna": Thresholds(identity=0.8, coverage=0.8), "protein": Thresholds(identity=0.3, coverage=0.8)}
"""What the field clusters by: 80 % identity over 80 % of both sequences in DNA, 30 % over 80 % in protein."""


@dataclass(frozen=True)
class Relative:
    """Two sequences that share descent, or a stretch of text.

    `second` is an index into the other set where two were compared. `strand` is -1 where the other strand of `first` is meant.
    `identity` is the share of equal letters among `length` aligned columns (gaps count), coverage the share of each that they span.
    copy: equal; reverse_complement: equal on the other strand; contained: one lies wholly inside the other, exactly; overlap: an exact
    stretch at an end of both; similar: anything else.
    """

    first: int
    second: int
    strand: int
    identity: float
    length: int
    coverage_first: float
    coverage_second: float
    relation: Relation


def find_relatives(
    sequences: Sequence[str], kind: str, *, others: Sequence[str] | None = None, thresholds: Thresholds = ANY
) -> list[Relative]:
    """Return the relatives among `sequences` (first < second), or between `sequences` and `others`, sorted.

    Of n equal sequences each is listed with the first of them, and a relative of one with the first of them only, so that 10,000 copies
    make 10,000 rows; every sequence that has a relative is in some row. Case is ignored. Raises ConfigError for an unknown kind.

    >>> found = find_relatives(["ACGTTGCATGCCTAGGATCCAAGT"], "dna", others=["ACTTGGATCCTAGGCATGCAACGT"])
    >>> [(relative.second, relative.strand, relative.relation) for relative in found]
    [(0, -1, 'reverse_complement')]
    """
    alphabet = get_alphabet(kind)
    is_same = others is None
    ours = _Distinct(sequences, alphabet)
    theirs = ours if others is None else _Distinct(others, alphabet)
    best: dict[tuple[int, int], _Judged] = {}
    if not is_same:
        numbers = {text: number for number, text in enumerate(theirs.texts)}
        best = {(first, numbers[text]): _equal(text) for first, text in enumerate(ours.texts) if text in numbers}
    search = _Search(ours.texts, None if is_same else theirs.texts, alphabet, thresholds)
    for candidate in chain.from_iterable(search.candidates()):
        pair = candidate[0], candidate[1]
        known = best.get(pair)
        if known is None or not math.isinf(known.bits):
            judged = search.judge(*candidate)
            if judged is not None and (known is None or judged.bits > known.bits):
                best[pair] = judged
    rows = [row for (first, second), judged in best.items() for row in _rows(ours.members[first], theirs.members[second], judged, is_same)]
    if is_same:
        for text, members in zip(ours.texts, ours.members, strict=True):
            rows += _rows(members[:1], members[1:], _equal(text), is_same)
    return sorted(rows, key=lambda row: (row.first, row.second))


def related_pairs(sequences: Sequence[str], kind: str) -> list[tuple[int, int]]:
    """Return the index pairs (i < j) of `find_relatives`, sorted."""
    return [(relative.first, relative.second) for relative in find_relatives(sequences, kind)]


def clusters(sequences: Sequence[str], kind: str, *, thresholds: Thresholds | None = None) -> list[int]:
    """Return a cluster id for each sequence, numbered from 0 by first appearance; relatives have the same id.

    Relatives of relatives join. Without thresholds chance may join one pair of proteins for each SEQUENCES_A_CHANCE_PAIR: clusters are made
    for splits, where a stranger that joins costs a little balance, and a relative that does not is a leak. Where that joins most of a set
    (proteins of shared motifs), only relatives that cannot be chance join. Relatives in DNA stand out from chance without it. Case is
    ignored. Raises ConfigError for an unknown kind.

    >>> clusters(["ACGTTGCATGCCTAGGATCCAAGT", "TTTTTTTTTTTT", "ACTTGGATCCTAGGCATGCAACGT"], "dna")
    [0, 1, 0]
    """
    alphabet = get_alphabet(kind)
    distinct = _Distinct(sequences, alphabet)
    if thresholds is not None or alphabet.complement is not None:
        roots = _joined_roots(distinct.texts, alphabet, thresholds or ANY)
    else:
        generous = Thresholds(expected=max(ANY.expected, len(distinct.texts) / SEQUENCES_A_CHANCE_PAIR))
        roots = _joined_roots(distinct.texts, alphabet, generous)
        if max(Counter(roots).values(), default=0) > MOST * len(roots):
            roots = _joined_roots(distinct.texts, alphabet, ANY)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(roots[distinct.number[index]], len(numbers)) for index in range(len(sequences))]


def _joined_roots(texts: list[str], alphabet: Alphabet, thresholds: Thresholds) -> list[int]:
    """Return for each text one that stands for its cluster."""
    parents = list(range(len(texts)))
    search = _Search(texts, None, alphabet, thresholds)
    for part in search.candidates():
        has_joined = False
        for candidate in part:
            first, second = candidate[:2]
            is_news = root(parents, first) != root(parents, second)  # most pairs of a large family are none: no alignment
            if is_news and search.judge(*candidate) is not None:
                parents[root(parents, first)] = root(parents, second)
                has_joined = True
        if has_joined:
            search.labels[:] = [root(parents, number) for number in range(len(parents))]
    return [root(parents, number) for number in range(len(parents))]


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


class _Member(NamedTuple):
    """A sequence of a group of equal ones: its place among all, and whether its other strand is the group's text."""

    row: int
    is_turned: bool


class _Distinct:
    """Upper-case texts, each once, the lesser of the two strands, and who holds them: a strand decides nothing."""

    def __init__(self, sequences: Sequence[str], alphabet: Alphabet) -> None:
        numbers: dict[str, int] = {}
        self.number: list[int] = []
        self.members: list[list[_Member]] = []
        for index, sequence in enumerate(sequences):
            own = sequence.upper()
            text = own if alphabet.complement is None else min(own, reverse_complement(own, alphabet.name))
            number = numbers.setdefault(text, len(numbers))
            if number == len(self.members):
                self.members.append([])
            self.members[number].append(_Member(index, text != own))
            self.number.append(number)
        self.texts = list(numbers)


class _Judged(NamedTuple):
    """A pair of distinct texts that are relatives: bits (infinite where they are equal) and the fields of Relative."""

    bits: float
    strand: int
    identity: float
    length: int
    coverage_first: float
    coverage_second: float
    relation: Relation


def _equal(text: str) -> _Judged:
    return _Judged(math.inf, 1, 1.0, len(text), 1.0, 1.0, "copy")


class _Search:
    """One search: the candidates among texts, and the verdict on each."""

    def __init__(self, texts: list[str], others: list[str] | None, alphabet: Alphabet, thresholds: Thresholds) -> None:
        from llama_gene.sequences.alignment import Aligner, make_scoring  # numba and parasail take 1 s to import
        from llama_gene.sequences.seeds import encode

        self._alphabet, self._thresholds = alphabet, thresholds
        self.labels = np.arange(len(texts), dtype=np.int32)
        self._texts = texts, texts if others is None else others
        self._letters = encode(texts, alphabet.letters), None if others is None else encode(others, alphabet.letters)
        self._scoring = make_scoring(alphabet, *self._letters)
        if self._scoring is None:
            return
        self._aligner = Aligner(self._scoring, alphabet, *self._letters)
        letters, other_letters = (float(sum(map(len, part))) for part in self._texts)
        strands = 1 if alphabet.complement is None else 2
        pairs = letters * other_letters * strands / (2 if others is None else 1)
        self._size = math.log2(max(pairs, 1.0))
        self._pairs = math.log2(
            max(1.0, strands * len(texts) * (len(texts) - 1) / 2 if others is None else strands * len(texts) * len(others))
        )
        self._expected = math.log2(thresholds.expected)

    def candidates(self) -> Iterator[list[tuple[int, int, int, int]]]:
        """Yield pairs that are worth an alignment: first, second, 1 where the other strand of first is meant, the diagonal.

        Pairs of one set with equal `labels` are left out from the next part on.
        """
        from llama_gene.sequences.complexity import FEW_LETTERS
        from llama_gene.sequences.seeds import CANDIDATE_BITS, TRIGGER_BITS, Search, candidates

        scoring, alphabet = self._scoring, self._alphabet
        if scoring is None:
            return
        search = Search(
            scoring.matrix,
            scoring.first_gap,
            scoring.next_gap,
            drop=round(_DROP_BITS / scoring.unit),
            gapped_drop=round(_GAPPED_DROP_BITS / scoring.unit),
            trigger=scoring.units(self._size - TRIGGER_BITS[len(alphabet.letters) <= FEW_LETTERS]),
            candidate=scoring.units(self._size - max(CANDIDATE_BITS, self._expected)),
        )
        groups = _RESIDUE_CLASSES if alphabet.name == "protein" else tuple(alphabet.letters)
        classes = [next(number for number, group in enumerate(groups) if letter in group) for letter in alphabet.letters]
        complement = None
        if alphabet.complement is not None:
            complement = [alphabet.letters.index(alphabet.complement[letter]) for letter in alphabet.letters]
        for part in candidates(*self._letters, classes, complement, search, self.labels):
            yield list(zip(part.first.tolist(), part.second.tolist(), part.strand.tolist(), part.diagonal.tolist(), strict=True))

    def _needed(self, one: str, two: str) -> float:
        """Return the bits that a pair must exceed: half of the chance pairs are allowed to each pair of places, half to each pair of
        sequences, whose own number of places then counts. So a short sequence is not drowned by long ones beside it."""
        places = self._scoring.places(len(one), len(two)) if self._scoring else 1.0
        return _TWO_TESTS + min(self._size, self._pairs + math.log2(places)) - self._expected

    def judge(self, first: int, second: int, is_reverse: int, diagonal: int) -> _Judged | None:
        """Return the verdict on a pair, None when it does not reach the thresholds."""
        alignment = self._aligner.align(first, second, is_reverse, diagonal)
        one, two = self._texts[0][first], self._texts[1][second]
        if is_reverse:
            one = reverse_complement(one, self._alphabet.name)
        relation, exact = _relation(one, two, alignment.length, alignment.second[1] - alignment.first[1])
        # an exact stretch that takes the whole of a sequence, or an end of both, could begin at few places only
        freedom = 0.0 if relation == "similar" else math.log2(min(len(one), len(two)))
        if alignment.bits < self._needed(one, two) - freedom:
            return None
        length, identity, spans = exact, 1.0, (exact, exact)
        if relation == "similar":
            length, identity = alignment.length, alignment.matches / max(alignment.length, 1)
            spans = alignment.first[1] - alignment.first[0], alignment.second[1] - alignment.second[0]
        covered, other_covered = spans[0] / len(one), spans[1] / len(two)
        if identity < self._thresholds.identity or min(covered, other_covered) < self._thresholds.coverage:
            return None
        return _Judged(alignment.bits, -1 if is_reverse else 1, identity, length, covered, other_covered, relation)


def _relation(one: str, two: str, columns: int, diagonal: int) -> tuple[Relation, int]:
    """Return how two different texts are related, and the length of the exact stretch where it is the whole relation.

    `columns` is the length of their alignment, `diagonal` where it ends: place in two minus place in one.
    """
    if one in two or two in one:
        return "contained", min(len(one), len(two))
    begin, end = max(0, -diagonal), min(len(one), len(two) - diagonal)
    stretches = [_common_start(one, two), _common_start(one[::-1], two[::-1])]
    if one[begin:end] == two[begin + diagonal : end + diagonal]:
        stretches.append(end - begin)
    if max(stretches) >= _OVERLAP_SHARE * columns:
        return "overlap", max(stretches)
    return "similar", 0


def _common_start(one: str, two: str) -> int:
    """Return how many letters two texts share at their beginning."""
    return next((place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _rows(members: list[_Member], others: list[_Member], judged: _Judged, is_same: bool) -> Iterator[Relative]:
    """Yield the relatives of two groups of equal sequences: each of one group with the first of the other."""
    if not members or not others:
        return
    for one, two in [(member, others[0]) for member in members] + [(members[0], other) for other in others[1:]]:
        row = judged
        if one.is_turned != two.is_turned:
            row = row._replace(strand=-row.strand, relation="reverse_complement" if row.relation == "copy" else row.relation)
        if is_same and one.row > two.row:
            row = row._replace(coverage_first=row.coverage_second, coverage_second=row.coverage_first)
            one, two = two, one
        yield Relative(one.row, two.row, *row[1:])


def root(parents: list[int], item: int) -> int:
    """Return the root of an item's tree, and hang the items on the way nearer to it."""
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item
