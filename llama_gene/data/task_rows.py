"""From the cells of a task's tables to checked rows; what cannot be used is counted under its reason.

A row is rejected (and counted) for an empty sequence, a letter outside the alphabet, an identifier without a sequence, no label, a value
that is no finite number, several different labels where one is asked for, or states and sequence of different length. A label that the
YAML does not list is an error with file and line: more likely the list is wrong than the row.

EC numbers are cut to `ec_level` parts ("2.7.1.17" at level 2 is "2.7"); a number that is not known so far ("3.4.-.-" at level 3) is left
out and counted, and a row that keeps none is rejected.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

from llama_gene.data.structure import UNKNOWN, read_states
from llama_gene.data.tables import place_of, read_rows
from llama_gene.errors import InputError, MissingFileError
from llama_gene.sequences.alphabet import get_alphabet, reverse_complement

if TYPE_CHECKING:
    from llama_gene.data.tasks import Task

SPLITS = ("train", "dev", "test")
SEVERAL = ", "
"""What stands between the names of a row with several labels."""


class TaskRow(TypedDict):
    """One labelled row."""

    sequences: list[str]
    label: str
    """A label name (several: joined by ", "), free text, or (structure) the letter of each residue's state, '-' for unknown."""
    group: str
    oracle: str | None
    value: float | None
    """The number behind a regression label."""
    answers: NotRequired[list[str]]
    """Tasks with several labels a row: their names, in the order of the task's labels."""
    subsets: NotRequired[list[str]]
    """Populations that are reported apart."""
    source: NotRequired[str]
    """Where the row comes from, "FILE:ROW"."""


class RowReader:
    """Reads a task's tables into rows and counts what it rejects."""

    def __init__(self, task: Task, data_dir: Path) -> None:
        self.task = task
        self.data_dir = data_dir
        self.rejected: Counter[str] = Counter()
        self.dropped_labels: Counter[str] = Counter()
        """Reason -> single labels that were taken out of rows that stay."""
        self.letters = [frozenset(alphabet.letters + alphabet.ambiguous) for alphabet in map(get_alphabet, task.kinds)]
        self.states = task.state_names() if task.family == "structure" else {}
        self.sequences = self._read_sequences() if task.sequences_table else None

    def read(self, names: Sequence[str]) -> list[TaskRow]:
        """Return the usable rows of some files."""
        task = self.task
        optional = (task.group_column, task.oracle_column, task.mask_column, task.subset_column, task.source_column)
        columns = [*task.columns, task.label_column, *filter(None, optional)]
        rows = []
        for name in names:
            path = self._path(name)
            for number, cells in enumerate(task.read_cells(path, columns, self.data_dir, self.rejected), start=1):
                row = self._row(cells, place_of(path, number))
                if isinstance(row, str):
                    self.rejected[row] += 1
                    continue
                row["source"] = cells[task.source_column] if task.source_column else f"{name}:{number}"
                if task.subset_column:
                    row["subsets"] = [part.strip() for part in cells[task.subset_column].split(";") if part.strip()]
                rows.append(row)
        return rows

    def _path(self, name: str) -> Path:
        path = self.data_dir / name
        if not path.exists():
            raise MissingFileError(path, f"a table of task '{self.task.name}'", "Check the path and data_dir")
        return path

    def _read_sequences(self) -> dict[str, str]:
        """Return identifier -> sequence; the identifiers are the first column that is not `sequence`."""
        table = read_rows(self._path(self.task.sequences_table), ["sequence"])
        key = next((column for column in table[0] if column != "sequence"), None)
        if key is None:
            raise InputError(f"{self.task.sequences_table} has one column", "identifiers beside `sequence`")
        return {row[key]: row["sequence"] for row in table}

    def _row(self, cells: Mapping[str, str], where: str) -> TaskRow | str:
        """Return the row, or the reason why it is rejected."""
        task = self.task
        sequences = []
        for column, kind, letters in zip(task.columns, task.kinds, self.letters, strict=True):
            sequence = (cells[column] or "").strip()
            if self.sequences is not None:
                if sequence not in self.sequences:
                    return "identifier without a sequence"
                sequence = self.sequences[sequence]
            sequence = sequence.upper()
            if not sequence:
                return "empty sequence"
            if not letters.issuperset(sequence):
                return f"letters outside the {kind} alphabet"
            sequences.append(sequence)
        raw = (cells[task.label_column] or "").strip()
        if not raw:
            return "no label"
        group = cells[task.group_column].strip() if task.group_column else ""
        oracle = (cells[task.oracle_column] or "").strip() if task.oracle_column else ""
        if task.family == "structure":
            return self._structure_row(cells, sequences, raw, oracle, group, where)
        if task.family == "regression":
            value = number_of(raw)
            if value is None:
                return "value is not a number"
            return TaskRow(sequences=sequences, label="", group=group, oracle=oracle or None, value=value)
        names = self._names(raw, where)
        if isinstance(names, str):
            return names
        known = self._names(oracle, where) if oracle else []
        row = TaskRow(
            sequences=sequences,
            label=SEVERAL.join(names),
            group=group,
            oracle=SEVERAL.join(known) if known and not isinstance(known, str) else None,
            value=None,
        )
        if task.multi_label:
            row["answers"] = names
        return row

    def _names(self, raw: str, where: str) -> list[str] | str:
        """Return the names of a row's labels, one where `multi_label` is not set; or the reason why the row is rejected."""
        task = self.task
        parts = [raw]
        if task.label_separator:
            parts = list(dict.fromkeys(part for item in raw.split(task.label_separator) if (part := item.strip())))
        if task.ec_level:
            cut = [".".join(part.split(".")[: task.ec_level]) for part in parts]
            known = [part for part in dict.fromkeys(cut) if part.count(".") == task.ec_level - 1 and "-" not in part]
            if not known:
                return f"no EC number that is known at level {task.ec_level}"
            if lost := sum(part.count(".") < task.ec_level - 1 or "-" in part for part in cut):
                self.dropped_labels[f"EC number not known at level {task.ec_level}"] += lost
            parts = known
        if not parts:
            return "no label"
        if len(parts) > 1 and not task.multi_label:
            return "several different labels"
        return list(dict.fromkeys(self._label_name(part, where) for part in parts))

    def _label_name(self, raw: str, where: str) -> str:
        if not self.task.labels:
            return raw
        if raw not in self.task.labels:
            raise InputError(f"{where}: label '{raw}'", f"one of {', '.join(self.task.labels)}", "Add it to labels in the task's YAML")
        return self.task.labels[raw]

    def _structure_row(
        self, cells: Mapping[str, str], sequences: list[str], raw: str, raw_oracle: str, group: str, where: str
    ) -> TaskRow | str:
        """Return a sequence with the letter of each place's state, masked ones as unknown."""
        try:
            states = read_states(raw, self.states)
            oracle = read_states(raw_oracle, self.states) if raw_oracle else None
        except InputError as error:
            raise InputError(f"{where}: {error.found}", error.expected, error.action) from error
        mask = (cells[self.task.mask_column] or "").strip() if self.task.mask_column else "1" * len(states)
        if not len(states) == len(mask) == len(sequences[0]) == len(oracle or states):
            return "states, mask and sequence differ in length"
        states = "".join(UNKNOWN if known == "0" else state for state, known in zip(states, mask, strict=True))
        if set(states) == {UNKNOWN}:
            return "no known state"
        return TaskRow(sequences=sequences, label=states, group=group, oracle=oracle, value=None)


def number_of(text: str) -> float | None:
    """Return a finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def with_other_strand(kinds: Sequence[str], rows: Iterable[TaskRow]) -> list[TaskRow]:
    """Return rows, each followed by its reverse complement (unless that is the same): for tasks whose answer no strand changes."""
    both: list[TaskRow] = []
    for row in rows:
        turned = other_strand(row, kinds)
        both.append(row)
        if turned["sequences"] != row["sequences"]:
            both.append(cast("TaskRow", turned))
    return both


def other_strand(row: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """Return a row with the reverse complement of each of its sequences that has one; an instruction example's text turns with them.

    The sequences stand in its input, or (template `dnahlm`) in its instruction, behind solved ones. Raises InputError where in neither.
    """
    turned = [
        sequence if get_alphabet(kind).complement is None else reverse_complement(sequence, kind)
        for kind, sequence in zip(kinds, row["sequences"], strict=True)
    ]
    changes: dict[str, Any] = {"sequences": turned}
    if "input" in row:
        key = "input" if row["input"] else "instruction"
        changes[key] = _replace_in_order(str(row[key]), row["sequences"], turned)
    return {**row, **changes}


def _replace_in_order(text: str, old: Sequence[str], new: Sequence[str]) -> str:
    """Return a text with its last mention of each sequence, in their order, replaced."""
    end, parts = len(text), []
    for sequence, other in zip(reversed(old), reversed(new), strict=True):
        place = text.rfind(sequence, 0, end)
        if place < 0:
            raise InputError(f"'{sequence[:20]}...' does not stand in the text of its row", "the row's sequence", "Write the rows again")
        parts += [text[place + len(sequence) : end], other]
        end = place
    return text[:end] + "".join(reversed(parts))
