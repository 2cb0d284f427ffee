"""Which rows of a task are trained on and which are not: repeats, groups, clusters of relatives, and what a pair's members have seen."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llama_gene.data.task_rows import SPLITS, TaskRow
from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import get_alphabet, reverse_complement
from llama_gene.sequences.similarity import clusters, split_by_group

if TYPE_CHECKING:
    from llama_gene.data.tasks import Task

Row = TypeVar("Row")
SEEN_MEMBERS = {2: "C1", 1: "C2", 0: "C3"}
"""Members of a pair that occur in train -> the name of the subset (Park and Marcotte 2012)."""


def row_key(kinds: Sequence[str], sequences: Sequence[str]) -> tuple[str, ...]:
    """Return what two rows share exactly when they repeat each other.

    A sequence and its reverse complement are the same where the alphabet has complements; the order of a pair of one kind does not count.

    >>> row_key(["dna"], ["TTTG"]) == row_key(["dna"], ["CAAA"])
    True
    """
    keys = [sequence_key(kind, sequence) for kind, sequence in zip(kinds, sequences, strict=True)]
    return tuple(sorted(keys) if len(set(kinds)) == 1 else keys)


def sequence_key(kind: str, sequence: str) -> str:
    """Return the smaller of a sequence and its reverse complement; the sequence itself where the alphabet has no complements."""
    if get_alphabet(kind).complement is None:
        return sequence
    return min(sequence, reverse_complement(sequence, kind))


def remove_repeats(task: Task, splits: dict[str, list[TaskRow]]) -> dict[str, int]:
    """Drop what train and dev share with test, and train with dev; return the counts."""
    removed: dict[str, int] = {}
    keys = {split: [row_key(task.kinds, row["sequences"]) for row in splits[split]] for split in SPLITS}

    def drop(split: str, other: str, reason: str, own: Sequence[Hashable], theirs: Iterable[Hashable]) -> None:
        taken = set(theirs)
        keep = [item not in taken for item in own]
        if not all(keep):
            removed[f"{split} row {reason} {other}"] = keep.count(False)
            splits[split] = [row for row, kept in zip(splits[split], keep, strict=True) if kept]
            keys[split] = [key for key, kept in zip(keys[split], keep, strict=True) if kept]

    for split, other in (("dev", "test"), ("train", "test"), ("train", "dev")):
        drop(split, other, "repeats", keys[split], keys[other])
        if task.group_column:
            drop(split, other, "shares a group with", [row["group"] for row in splits[split]], [row["group"] for row in splits[other]])
    return removed


def cut_dev(task: Task, rows: list[TaskRow], seed: int) -> tuple[list[TaskRow], list[TaskRow]]:
    """Cut dev from train, whole groups (or repeated rows) at a time."""
    if not rows:
        return [], []
    groups = [row["group"] if task.group_column else row_key(task.kinds, row["sequences"]) for row in rows]
    names = split_by_group(groups, {"train": 1 - task.dev_fraction, "dev": task.dev_fraction}, seed)
    return _take(rows, names, "train"), _take(rows, names, "dev")


def split_by_similarity(task: Task, rows: list[TaskRow], seed: int) -> dict[str, list[TaskRow]]:
    """Divide one table into train, dev and test, whole groups or clusters at a time."""
    if not rows:
        raise InputError(f"task '{task.name}': {', '.join(task.files)} has no usable row", "labelled rows")
    groups: list[Any] = [row["group"] for row in rows] if task.group_column else _row_clusters(task, rows)
    fractions = {"train": 1 - task.dev_fraction - task.test_fraction, "dev": task.dev_fraction, "test": task.test_fraction}
    names = split_by_group(groups, fractions, seed)
    if missing := [split for split in fractions if split not in names]:
        raise InputError(
            f"task '{task.name}': {len(rows)} rows fall into {len(set(groups))} groups of relatives, none left for {' and '.join(missing)}",
            "groups enough for train, dev and test",
            "Give more rows, or name train and test files of your own",
        )
    return {split: _take(rows, names, split) for split in fractions}


def _row_clusters(task: Task, rows: list[TaskRow]) -> list[int]:
    """Return a group per row such that rows of two groups share no cluster of similar sequences (pairs: on neither side)."""
    parents: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    num_rows = len(rows)
    for kind in dict.fromkeys(task.kinds):
        places = [place for place, other in enumerate(task.kinds) if other == kind]
        ids = clusters([row["sequences"][place] for place in places for row in rows], kind)
        for index, cluster in enumerate(ids):
            parents[root((kind, cluster))] = root(index % num_rows)
    order: dict[Hashable, int] = {}
    return [order.setdefault(root(index), len(order)) for index in range(num_rows)]


def _take(rows: Sequence[Row], names: Sequence[str], name: str) -> list[Row]:
    return [row for row, own in zip(rows, names, strict=True) if own == name]


def mark_seen_members(task: Task, splits: dict[str, list[TaskRow]]) -> None:
    """Add C1, C2 or C3 to the subsets of dev and test pairs: both, one or none of the members occur in train (DNA on either strand)."""
    if not splits["train"]:
        return
    seen = {
        (kind, sequence_key(kind, sequence)) for row in splits["train"] for kind, sequence in zip(task.kinds, row["sequences"], strict=True)
    }
    for row in (row for split in ("dev", "test") for row in splits[split]):
        members = [(kind, sequence_key(kind, sequence)) in seen for kind, sequence in zip(task.kinds, row["sequences"], strict=True)]
        row["subsets"] = [SEEN_MEMBERS[sum(members)], *row.get("subsets", [])]
