"""Second step of a corpus: which documents stay, and on which side; all parts are looked at together.

1. Clusters decide the split of the records that wait for one: a cluster goes whole to one side.
2. Records that are nearly identical to a longer one, or contained in it, are dropped (sketches, sequences/sketches.py).
3. Documents that hold an evaluation sequence are dropped.
4. Documents that repeat an earlier one exactly (either strand) are dropped; a training document comes before a held-out one, so that what
   is held out never repeats what is trained on.

Keys are compared bucket by bucket, a few million at a time from memory-mapped files, so memory does not grow with the corpus: a bit more
than one byte a document stays in memory (16 GB of DNA: 25 million documents).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_gene.data.documents import Part
from llama_gene.data.settings import MAX_CLUSTERED_LETTERS, SPLITS, UNDECIDED, Settings
from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.similarity import clusters, split_by_group
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


def _divide_clusters(parts: Sequence[Part], decisions: Decisions, settings: Settings, seed: int) -> None:
    """Give the records that wait for a split to one, cluster by cluster."""
    sequences: list[str] = []
    owners: list[tuple[int, int]] = []  # part, record
    waiting = [part_number for part_number, verdicts in enumerate(decisions.verdicts) if UNDECIDED in verdicts]
    num_letters = sum(int(parts[number].documents["letters"].sum()) for number in waiting)
    if num_letters > MAX_CLUSTERED_LETTERS:
        raise InputError(
            f"'{parts[waiting[0]].source.language}' is to be divided by clusters, and has {num_letters:,} letters",
            f"at most {MAX_CLUSTERED_LETTERS:,} for the built-in search",
            "Set split.protein: record (relatives may straddle), or hold out a source of its own with split: valid",
        )
    for number in waiting:
        documents = parts[number].documents
        undecided = decisions.verdicts[number] == UNDECIDED
        for row, text in enumerate(_texts(parts[number])):
            if undecided[row]:
                record = int(documents["record"][row])
                if owners and owners[-1] == (number, record):
                    sequences[-1] += text  # the next window of a long record
                else:
                    owners.append((number, record))
                    sequences.append(text)
    if not sequences:
        return
    groups = clusters(sequences, parts[waiting[0]].source.alphabet_name)
    decisions.num_clusters = len(set(groups))
    split = settings.split
    shares = {"train": 1 - split.valid_fraction - split.test_fraction, "valid": split.valid_fraction, "test": split.test_fraction}
    chosen = split_by_group(groups, {name: share for name, share in shares.items() if share > 0}, seed)
    splits = {owner: SPLITS.index(name) for owner, name in zip(owners, chosen, strict=True)}
    for number in waiting:
        documents, verdicts = parts[number].documents, decisions.verdicts[number]
        for row in np.flatnonzero(verdicts == UNDECIDED).tolist():
            verdicts[row] = splits[number, int(documents["record"][row])]


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
    tables = [part.documents for part in parts]
    num_buckets = 1 + sum(map(len, tables)) // BUCKET_DOCUMENTS
    repeated = [np.zeros(len(table), dtype=bool) for table in tables]
    for bucket in range(num_buckets):
        rows = [
            np.flatnonzero((table["key"][:, 0] % np.uint64(num_buckets) == bucket) & (verdicts != DROPPED))
            for table, verdicts in zip(tables, decisions.verdicts, strict=True)
        ]
        keys = np.concatenate([table["key"][chosen] for table, chosen in zip(tables, rows, strict=True)])
        if not len(keys):
            continue
        part = np.repeat(np.arange(len(parts)), [len(chosen) for chosen in rows])
        row = np.concatenate(rows)
        held_out = np.concatenate([verdicts[chosen] != 0 for verdicts, chosen in zip(decisions.verdicts, rows, strict=True)])
        order = np.lexsort((row, part, held_out, keys[:, 1], keys[:, 0]))
        again = np.flatnonzero((keys[order[1:]] == keys[order[:-1]]).all(axis=1)) + 1
        for number in range(len(parts)):
            mine = order[again][part[order[again]] == number]
            repeated[number][row[mine]] = True
    for number, table in enumerate(tables):
        decisions.drop(number, repeated[number], table["letters"], EXACT)


def _texts(part: Part) -> Any:
    """Yield the texts of a part's documents."""
    return (text for _, text in part.texts())


def check_named(parts: Sequence[Part], settings: Settings) -> None:
    """Raise ConfigError for a record that `split` names and no source has."""
    wanted = {*settings.split.valid_records, *settings.split.test_records}
    found = {name for part in parts if wanted for name, _ in part.records()}
    if missing := sorted(wanted - found):
        known = ", ".join(sorted(found)[:8])
        raise ConfigError(
            f"split names the record '{missing[0]}', which no source has", f"names of records, such as {known}", "Mend the name"
        )
