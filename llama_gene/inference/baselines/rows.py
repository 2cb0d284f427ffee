"""What every baseline has in common: the answers of training rows as arrays, and the shape of a result.

N rows, K labels. A row is an instruction example. Its answer is one label ("output"), a set of labels ("answers", multi-label tasks), a
number ("value", regression; "output" is its bin), or free text (no list of labels).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Example = Mapping[str, Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Baseline:
    """What one baseline says of N rows, or why it says nothing."""

    name: str
    scores: Floats | None = None
    """(N, K) probabilities in the order of the labels; multi-label tasks: of each label by itself, rows do not add up to one."""
    numbers: Floats | None = None
    """(N,) predicted values of a regression, in the unit of the rows' "value"."""
    answers: list[str] | None = None
    """Free text: the answer for each row."""
    reason: str = ""
    """Why there is no result; empty where there is one."""
    note: str = ""
    """What the baseline was on this task, in words."""
    coverage: float | None = None
    """Share of the rows it had evidence for; the others got the majority."""

    @property
    def is_there(self) -> bool:
        """Whether there is a result."""
        return not self.reason


@dataclass(frozen=True)
class Target:
    """The answers of the training rows that have one: `rows` are their numbers, `marks` (N, K) is 1 where a row has a label."""

    labels: list[str]
    rows: list[int]
    marks: Floats
    is_multi: bool
    values: Floats | None

    @property
    def classes(self) -> Ints:
        """The label number of each row, of a task with one label a row."""
        numbers: Ints = self.marks.argmax(1)
        return numbers

    @property
    def shares(self) -> Floats:
        """Share of the rows that have each label, (K,)."""
        shares: Floats = self.marks.mean(0)
        return shares

    def bins_of(self, numbers: Floats) -> Floats | None:
        """Return (N, K) with 1 at the bin of each number, by the edges that the training rows' bins show; None where there are no bins."""
        if self.values is None or len(self.labels) < 2:
            return None
        edges = [float(self.values[self.classes >= k].min(initial=np.inf)) for k in range(1, len(self.labels))]
        return np.eye(len(self.labels))[np.searchsorted(edges, numbers, side="right")]

    def numbers_of(self, scores: Floats) -> Floats | None:
        """Return the expected value of each row of (N, K) bin probabilities: the mean training value of each bin; None without values."""
        if self.values is None or not self.labels:
            return None
        sums, counts = self.marks.T @ self.values, self.marks.sum(0)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), self.values.mean())
        numbers: Floats = scores @ means
        return numbers


def read_target(train_rows: Sequence[Example], labels: Sequence[str], family: str) -> Target:
    """Return the answers of the training rows; rows with another answer than the labels are left out (`rows` says which are in)."""
    column = {label: k for k, label in enumerate(labels)}
    is_multi = is_multi_label(train_rows)
    found = [_columns(row, column, is_multi) for row in train_rows]
    is_number = family == "regression" and all(row.get("value") is not None for row in train_rows)
    kept = [i for i, columns in enumerate(found) if columns is not None]
    marks = np.zeros((len(kept), len(labels)))
    for place, i in enumerate(kept):
        marks[place, found[i]] = 1.0
    values = np.array([float(train_rows[i]["value"]) for i in kept]) if is_number else None
    return Target(list(labels), kept, marks, is_multi, values)


def is_multi_label(rows: Sequence[Example]) -> bool:
    """Return whether rows carry sets of labels."""
    return any(row.get("answers") for row in rows)


def _columns(row: Example, column: Mapping[str, int], is_multi: bool) -> list[int] | None:
    """Return the label numbers of a row, None where it has none of these labels (multi-label rows may have an empty set)."""
    if is_multi:
        return [column[label] for label in row.get("answers") or [] if label in column]
    return [column[row["output"]]] if row["output"] in column else None


def majority_baseline(train_rows: Sequence[Example]) -> str | None:
    """Return the commonest answer of the training rows (the first in the alphabet among equals), None without rows."""
    counts = Counter(str(row["output"]) for row in train_rows)
    return min(counts, key=lambda answer: (-counts[answer], answer)) if counts else None


def shuffle_labels(rows: Sequence[Example], seed: int = 0) -> list[dict[str, Any]]:
    """Return rows whose answers were dealt out again among them: the control that every trained thing must fail.

    Output, answers, value and oracle of a row move together, so each answer is as frequent as before.
    """
    order = random.Random(f"{seed}/shuffled labels").sample(range(len(rows)), len(rows))
    moved = ("output", "answers", "value", "oracle")
    return [{**row, **{key: rows[other][key] for key in moved if key in rows[other]}} for row, other in zip(rows, order, strict=True)]
