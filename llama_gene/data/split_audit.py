"""What a task's test rows share with its train rows: `corpus audit` for the rows that an instruction set trains on and tests.

`tasks` has dropped exact repeats by then (DNA on either strand); what is counted here is what remains: rows that lie in one another,
share a run of 50 bases or 20 residues, and with `is_aligned` rows that have a significant alignment (0.3 to 10 s a task for 4,000 train
rows, where exact runs take tenths of a second). How to read the counts depends on how the split was meant (see `llama-gene corpus audit`):
in a library of mutants every row is a relative of every other, by design.
"""

from __future__ import annotations

from typing import Any

from llama_gene.data.leaks import Indexed, Members, compare, report_of
from llama_gene.data.splits import SplitRows
from llama_gene.data.tasks import TaskTable
from llama_gene.sequences.shared_runs import RunIndex


def train_relatives(table: TaskTable, is_aligned: bool = False, num_examples: int = 1) -> dict[str, Any] | None:
    """Return how many test rows have a relative in train, by relation, as `corpus audit` reports it; None without train rows.

    Rows of a structure task are whole sequences. A row of a pair counts when either member has a relative.
    """
    train, test = _rows_of(table, "train"), _rows_of(table, "test")
    if not train.rows or not test.rows:
        return None
    kinds = list(dict.fromkeys(table.task.kinds))
    own = [Members(test, kind) for kind in kinds]
    theirs = [Members(train, kind) for kind in kinds]
    indexed = [Indexed(members, RunIndex(members.sequences, members.kind)) for members in theirs]
    return report_of(compare(own, indexed, is_aligned, num_examples))


def _rows_of(table: TaskTable, split: str) -> SplitRows:
    rows = SplitRows(table.task.name, split, tuple(table.task.kinds))
    for number, row in enumerate(table.splits[split], start=1):
        file, _, place = row.get("source", "").rpartition(":")
        rows.add(row["sequences"], (file, int(place)) if place.isdigit() else (row.get("source", ""), number))
    return rows
