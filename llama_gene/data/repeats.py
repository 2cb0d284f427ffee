"""Second step of a corpus: which documents stay, and on which side; all parts are looked at together.

1. Clusters decide the split of the records that wait for one: a cluster goes whole to one side.
2. Records that are nearly identical to a longer one, or contained in it, are dropped (sketches, sequences/sketches.py).
3. Documents that hold an evaluation sequence are dropped.
4. Documents that repeat an earlier one exactly (either strand) are dropped; a training document comes before a held-out one, so that what
   is held out never repeats what is trained on.

Keys are compared bucket by bucket, a few million at a time; two bytes a document stay in memory (16 GB of DNA: 25 million documents). The
sketches are held whole (see sketches.py), and the sequences that are clustered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_gene.data.documents import Part
from llama_gene.data.settings import SPLITS, UNDECIDED, Settings
from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import get_alphabet, read_letters
from llama_gene.sequences.similarity import clusters, root, split_by_group
from llama_gene.sequences.sketches import Sketch, near_duplicates, repeat_reason

DROPPED = 254
"""In a verdict: the document is dropped. Other values are indices into SPLITS."""
BUCKET_DOCUMENTS = 4_000_000  # about 150 MB while they are compared
EXACT = "repeat of an earlier document"
CONTAMINATED = "holds an evaluation sequence"
REPEATED_RECORD = {"near-identical": "record near-identical to a longer one", "contained": "record contained in a longer one"}

Verdicts = list[NDArray[np.uint8]]


@dataclass
class Decisions:
    """What becomes of the documents of one language: a verdict for each document of each part, and why documents were dropped."""

    verdicts: Verdicts
    letters_rejected: Counter[str] = field(default_factory=Counter)
    documents_rejected: Counter[str] = field(default_factory=Counter)
    near_duplicates: list[tuple[str, str, str]] = field(default_factory=list)
    """(dropped record, kept record, reason)."""
    num_clusters: int = 0

    def drop(self, part: int, rows: NDArray[np.bool_], letters: Any, reason: str) -> None:
        """Drop those of the given documents of a part that are still kept; count them."""
        fresh = rows & (self.verdicts[part] != DROPPED)
        self.letters_rejected[reason] += int(letters[fresh].sum())
        self.documents_rejected[reason] += int(fresh.sum())
        self.verdicts[part][fresh] = DROPPED


def decide(parts: Sequence[Part], settings: Settings, seed: int) -> Decisions:
    """Decide on all documents of a language, in the order of its parts."""
    decisions = Decisions([np.array(part.documents["split"]) for part in parts])
    _divide_clusters(parts, decisions, settings, seed)
    _drop_near_duplicates(parts, decisions, settings.repeats.near_identity)
    for number, part in enumerate(parts):
        documents = part.documents
        decisions.drop(number, documents["contaminated"] == 1, documents["letters"], CONTAMINATED)
    _drop_exact_repeats(parts, decisions)
    decisions.letters_rejected = +decisions.letters_rejected  # reasons that never occurred stay out
    decisions.documents_rejected = +decisions.documents_rejected
    return decisions


def num_letters_to_cluster(parts: Sequence[Part]) -> int:
    """Return how many letters the parts of a language have if some of its records wait for a cluster, else 0."""
    if not any(bool((part.documents["split"] == UNDECIDED).any()) for part in parts):
        return 0
    return sum(int(part.documents["letters"].sum()) for part in parts)


def _divide_clusters(parts: Sequence[Part], decisions: Decisions, settings: Settings, seed: int) -> None:
    """Give the records that wait for a split to one, cluster by cluster.

    Records whose split is given take part: what is related to one of training goes to training, else to validation, else to the test.
    """
    if not num_letters_to_cluster(parts):
        return
    alphabet = get_alphabet(parts[0].source.alphabet_name)
    sequences: list[str] = []
    owners: list[tuple[int, int]] = []  # part, record
    given: list[int] = []
    origins = [[origin for _, origin in part.records()] for part in parts]
    for number, part in enumerate(parts):
        documents = part.documents
        for row, (_, text) in enumerate(part.texts()):
            owner = (number, int(documents["record"][row]))
            letters = read_letters(text, alphabet)
            if owners and owners[-1] == owner:
                sequences[-1] += letters  # the next window of a long record
            else:
                owners.append(owner)
                sequences.append(letters)
                given.append(int(documents["split"][row]))
    groups = _joined(clusters(sequences, alphabet.name), [(number, origins[number][record]) for number, record in owners])
    decisions.num_clusters = len(set(groups))
    splits_of: dict[int, int] = {}  # of clusters that hold a record whose split is given: the first in the order of SPLITS
    for group, split in zip(groups, given, strict=True):
        if split != UNDECIDED:
            splits_of[group] = min(split, splits_of.get(group, split))
    waiting = [place for place, split in enumerate(given) if split == UNDECIDED]
    free = [place for place in waiting if groups[place] not in splits_of]
    policy = settings.split
    shares = {"train": 1 - policy.valid_fraction - policy.test_fraction, "valid": policy.valid_fraction, "test": policy.test_fraction}
    chosen = split_by_group([groups[place] for place in free], {name: share for name, share in shares.items() if share > 0}, seed)
    decided = {owners[place]: SPLITS.index(name) for place, name in zip(free, chosen, strict=True)}
    decided |= {owners[place]: splits_of[groups[place]] for place in waiting if groups[place] in splits_of}
    for number, part in enumerate(parts):
        records, verdicts = part.documents["record"], decisions.verdicts[number]
        for row in np.flatnonzero(verdicts == UNDECIDED).tolist():
            verdicts[row] = decided[number, int(records[row])]


def _joined(groups: Sequence[int], owners: Sequence[Hashable]) -> list[int]:
    """Return groups in which all that has one owner is together: the pieces that a letter policy made of a record.

    >>> _joined([0, 1, 2, 1, 3], ["a", "a", "b", "c", "b"])
    [0, 0, 2, 0, 2]
    """
    parents = list(range(max(groups, default=-1) + 1))
    first: dict[Hashable, int] = {}
    for group, owner in zip(groups, owners, strict=True):
        one, other = root(parents, first.setdefault(owner, group)), root(parents, group)
        parents[max(one, other)] = min(one, other)
    return [root(parents, group) for group in groups]


def _drop_near_duplicates(parts: Sequence[Part], decisions: Decisions, identity: float) -> None:
    """Drop every document of a record that is nearly identical to, or lies in, a longer record."""
    owners: list[tuple[int, int]] = []
    sketches: list[Sketch] = []
    for number, part in enumerate(parts):
        for record, sketch in part.sketches():
            owners.append((number, record))
            sketches.append(sketch)
    if not sketches or identity == 0:
        return
    dropped: dict[tuple[int, str], list[int]] = {}
    names = [[name for name, _ in part.records()] for part in parts]
    for row, kept in enumerate(near_duplicates(sketches, identity)):
        if kept is not None:
            (number, record), (kept_number, kept_record) = owners[row], owners[kept]
            reason = repeat_reason(sketches[row], sketches[kept])
            dropped.setdefault((number, reason), []).append(record)
            decisions.near_duplicates.append((names[number][record], names[kept_number][kept_record], reason))
    for (number, reason), records in dropped.items():
        documents = parts[number].documents
        decisions.drop(number, np.isin(documents["record"], records), documents["letters"], REPEATED_RECORD[reason])


def _drop_exact_repeats(parts: Sequence[Part], decisions: Decisions) -> None:
    """Drop all but the first of equal documents: training before held out, then in the order of the parts."""
    num_buckets = 1 + sum(map(len, decisions.verdicts)) // BUCKET_DOCUMENTS
    repeated = [np.zeros(len(verdicts), dtype=bool) for verdicts in decisions.verdicts]
    for bucket in range(num_buckets):
        rows, keys = [], []
        for part, verdicts in zip(parts, decisions.verdicts, strict=True):
            key = part.documents["key"]  # one part at a time: thousands of mapped files would be too many
            rows.append(np.flatnonzero((key[:, 0] % np.uint64(num_buckets) == bucket) & (verdicts != DROPPED)))
            keys.append(key[rows[-1]])
        key, row = np.concatenate(keys), np.concatenate(rows)
        part_of = np.repeat(np.arange(len(parts)), [len(chosen) for chosen in rows])
        held_out = np.concatenate([verdicts[chosen] != 0 for verdicts, chosen in zip(decisions.verdicts, rows, strict=True)])
        order = np.lexsort((row, part_of, held_out, key[:, 1], key[:, 0]))
        again = order[1:][(key[order[1:]] == key[order[:-1]]).all(axis=1)]
        for number in np.unique(part_of[again]).tolist():
            repeated[number][row[again[part_of[again] == number]]] = True
    for number, part in enumerate(parts):
        if repeated[number].any():
            decisions.drop(number, repeated[number], part.documents["letters"], EXACT)


def check_named(parts: Sequence[Part], settings: Settings) -> None:
    """Raise ConfigError for a record that `split` names and no source has."""
    wanted = {*settings.split.valid_records, *settings.split.test_records}
    found = {origin for part in parts if wanted for _, origin in part.records()}
    if missing := sorted(wanted - found):
        known = ", ".join(sorted(found)[:8])
        raise ConfigError(
            f"split names the record '{missing[0]}', which no source has", f"names of records, such as {known}", "Mend the name"
        )
