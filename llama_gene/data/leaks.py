"""What one split shares with another: copies, reverse complements, contained and overlapping rows, and relatives that mutated.

A row is counted once, under the first of these that holds for any of its members:

    copy                the same letters stand in the other split
    reverse_complement  so they do on the other strand
    contained           all of it stands in a longer row of the other (either strand)
    contains            it holds a whole row of the other
    overlap             it shares an exact run (50 bases, 20 residues; see `sequences.shared_runs`) with a row of the other
    similar             it has a significant alignment with one (see `sequences.similarity`), and nothing of the above

Where rows contain or are contained, `offsets` says how many rows do so at which place and strand: a task cut out of another one stands out
as one number. Rows of a pair count when either member is found (a protein of the test set that was trained on with other partners is
recognised); `all_members` counts those of which both are, `same_pair` those that are the same pair.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llama_gene.data.splits import SplitRows
from llama_gene.data.tasks import row_key
from llama_gene.sequences.alphabet import get_alphabet, reverse_complement
from llama_gene.sequences.shared_runs import Hit, RunIndex
from llama_gene.sequences.similarity import find_relatives

RELATIONS = ("copy", "reverse_complement", "contained", "contains", "overlap", "similar")
_TOP_OFFSETS = 5
_FEW, _MORE, _MANY = 64, 1024, 0.1  # others that are aligned with first; the share of rows that must be found to go on with more


class Example(NamedTuple):
    """One finding: the rows by file and number, and the run by place (from 0) in both; length 0 where no exact run is meant."""

    relation: str
    row: tuple[str, int]
    other: tuple[str, int]
    strand: int
    position: int
    other_position: int
    length: int


@dataclass
class Leak:
    """The rows of one split that another shares."""

    rows: int
    """Rows of the split."""
    relations: dict[str, int] = field(default_factory=dict)
    """Relation -> rows, each row under its first."""
    offsets: list[dict[str, int]] = field(default_factory=list)
    """The most frequent {strand, offset, rows}: where, in a row that contains, the contained one begins (on the row that contains)."""
    all_members: int | None = None
    """Pairs: rows of which both members are found."""
    same_pair: int | None = None
    """Pairs: rows that are a row of the other, in either order."""
    examples: list[Example] = field(default_factory=list)

    @property
    def found(self) -> int:
        """Rows under any relation."""
        return sum(self.relations.values())


class Members:
    """The different sequences of one kind in a split, and the rows of each."""

    def __init__(self, split: SplitRows, kind: str) -> None:
        self.split, self.kind = split, kind
        self.rows: dict[str, list[int]] = defaultdict(list)
        for row, sequence in split.members(kind):
            self.rows[sequence].append(row)
        self.sequences = list(self.rows)


@dataclass(frozen=True)
class Indexed:
    """What is searched: the members of a split, and the index of runs over their sequences."""

    members: Members
    runs: RunIndex


class _Finding(NamedTuple):
    """How a sequence stands to another: the number of the relation, and the run."""

    relation: int
    other: str
    strand: int
    position: int
    other_position: int
    length: int


def compare(own: list[Members], other: list[Indexed], is_aligned: bool, num_examples: int) -> Leak:
    """Return what of `own` (the members of one split, by kind) is found in `other` (of another, the same kinds in the same order).

    With `is_aligned`, what shares no exact run is aligned, which takes most of the time.
    """
    split, other_split = own[0].split, other[0].members.split
    best: dict[int, _Finding] = {}  # by row
    members: Counter[int] = Counter()
    offsets: dict[tuple[int, int], set[int]] = defaultdict(set)
    for mine, searched in zip(own, other, strict=True):
        exact = {sequence: list(_exact(sequence, mine.kind, searched)) for sequence in mine.sequences}
        found = {sequence: findings for sequence, findings in exact.items() if findings}
        if is_aligned:
            left = [sequence for sequence in mine.sequences if sequence not in found]
            found |= {finding[0]: [finding[1]] for finding in _similar(left, mine.kind, searched.members.sequences)}
        for sequence, findings in found.items():
            strongest = min(findings, key=lambda finding: finding.relation)
            for row in mine.rows[sequence]:
                members[row] += 1
                if row not in best or strongest.relation < best[row].relation:
                    best[row] = strongest
            for finding in findings:
                if (place := _offset(finding)) is not None:
                    offsets[place].update(mine.rows[sequence])
    counts = Counter(RELATIONS[finding.relation] for finding in best.values())
    leak = Leak(len(split.rows), {name: counts[name] for name in RELATIONS if counts[name]})
    frequent = sorted(offsets, key=lambda place: (-len(offsets[place]), place))[:_TOP_OFFSETS]
    leak.offsets = [{"strand": strand, "offset": offset, "rows": len(offsets[strand, offset])} for strand, offset in frequent]
    leak.examples = list(_examples(best, split, [searched.members for searched in other], num_examples))
    if len(split.kinds) > 1:
        compared = sum(kind in {mine.kind for mine in own} for kind in split.kinds)
        leak.all_members = sum(count == compared for count in members.values()) if compared > 1 else None
        if split.kinds == other_split.kinds:
            keys = {row_key(split.kinds, row) for row in other_split.rows}
            leak.same_pair = sum(row_key(split.kinds, row) in keys for row in split.rows)
    return leak


def _exact(sequence: str, kind: str, other: Indexed) -> Iterator[_Finding]:
    """Yield every exact relation of a sequence to those of another split."""
    theirs = other.members
    size = len(sequence)
    if sequence in theirs.rows:
        yield _Finding(RELATIONS.index("copy"), sequence, 1, 0, 0, size)
    if get_alphabet(kind).complement is not None:
        turned = reverse_complement(sequence, kind)
        if turned in theirs.rows and turned != sequence:
            yield _Finding(RELATIONS.index("reverse_complement"), turned, -1, 0, 0, size)
    for hit in other.runs.hits(sequence):
        found = theirs.sequences[hit.row]
        if hit.length < size or hit.length < len(found):  # whole ones are above
            yield _Finding(_relation(hit, size, len(found)), found, hit.strand, hit.position, hit.row_position, hit.length)


def _similar(sequences: list[str], kind: str, others: list[str]) -> Iterator[tuple[str, _Finding]]:
    """Yield each sequence that has a relative by alignment, with one.

    One relative is enough, and in a library of mutants everything is everything's relative. So a few of the others are tried first; where
    that finds many, so are more, and no million of pairs is aligned. What is left is aligned with all.
    """
    sizes = [_FEW, len(others)]
    while sequences and sizes:
        part = others[:: max(1, len(others) // sizes.pop(0))]
        found = {relative.first: relative for relative in find_relatives(sequences, kind, others=part)}
        for row, relative in found.items():
            yield sequences[row], _Finding(RELATIONS.index("similar"), part[relative.second], relative.strand, 0, 0, 0)
        if len(part) == len(others):
            return
        if len(sizes) == 1 and len(part) < _MORE and len(found) > _MANY * len(sequences):
            sizes.insert(0, _MORE)
        sequences = [sequence for row, sequence in enumerate(sequences) if row not in found]


def _relation(hit: Hit, size: int, other_size: int) -> int:
    """Return the number of the relation that a run makes."""
    if hit.length == size:
        return RELATIONS.index("contained")
    return RELATIONS.index("contains" if hit.length == other_size else "overlap")


def _offset(finding: _Finding) -> tuple[int, int] | None:
    """Return (strand, place in the row that contains) of a containment, None for other relations."""
    if RELATIONS[finding.relation] == "contains":
        return finding.strand, finding.position
    return (finding.strand, finding.other_position) if RELATIONS[finding.relation] == "contained" else None


def _examples(best: dict[int, _Finding], own: SplitRows, other: list[Members], wanted: int) -> Iterator[Example]:
    """Yield the first rows of each relation, as many as are wanted."""
    shown: Counter[int] = Counter()
    for row in sorted(best):
        finding = best[row]
        if shown[finding.relation] == wanted:
            continue
        shown[finding.relation] += 1
        rows = next(theirs.rows[finding.other] for theirs in other if finding.other in theirs.rows)
        places = own.places[row], other[0].split.places[rows[0]]
        yield Example(RELATIONS[finding.relation], *places, finding.strand, finding.position, finding.other_position, finding.length)


def report_of(leak: Leak) -> dict[str, Any]:
    """Return a leak as JSON has it."""
    entry: dict[str, Any] = {"rows": leak.rows, "found": leak.found, "share": round(leak.found / leak.rows, 6), **leak.relations}
    entry |= {"offsets": leak.offsets} if leak.offsets else {}
    entry |= {"all_members": leak.all_members} if leak.all_members is not None else {}
    entry |= {"same_pair": leak.same_pair} if leak.same_pair is not None else {}
    return entry | {"examples": [example._asdict() for example in leak.examples]}


def kinds_of(splits: Iterable[SplitRows]) -> list[str]:
    """Return the kinds of all splits, sorted."""
    return sorted({kind for split in splits for kind in split.kinds})
