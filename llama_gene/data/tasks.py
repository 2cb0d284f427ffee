"""Labelled tasks: one YAML a task, CSV tables in, clean and leakage-safe train, dev and test rows out.

What happens to a table, in this order, with every lost row counted under its reason:

1. rows are read and checked: no empty sequence, no letter outside the alphabet, a known label (regression: a finite number);
2. one file without splits (`files`) is divided by clusters of similar sequences, so that no relative of a test row is trained on;
3. train and dev rows that repeat a test row (for DNA also as reverse complement), or share its group, are dropped; so are train rows that
   repeat a dev row;
4. without a dev file, dev is cut from train, whole groups at a time;
5. regression values become bins whose edges are quantiles of the *train* rows (LLaMA-Gene, section 2.2.2.5);
6. each split is balanced if asked, then capped with a seed, keeping the share of each label.

Sequences stay whole here; what is too long for a model is shortened when it is encoded (`supervised`).
"""

from __future__ import annotations

import math
import random
import statistics
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, cast, get_args

import yaml

from llama_gene.data.derived.tables import check_derivation, derived_rows
from llama_gene.data.structure import STATE_NAMES, UNKNOWN, reduce_states
from llama_gene.errors import ConfigError, InputError, MissingFileError, did_you_mean
from llama_gene.sequences.alphabet import get_alphabet, reverse_complement
from llama_gene.sequences.records import read_table
from llama_gene.sequences.similarity import clusters, split_by_group

Family = Literal["classification", "structure", "pair", "function", "regression"]
FAMILIES: tuple[str, ...] = get_args(Family)
SPLITS = ("train", "dev", "test")
BIN_NAMES = {
    2: ["low", "high"],
    3: ["low", "medium", "high"],
    4: ["very low", "low", "high", "very high"],
    5: ["very low", "low", "medium", "high", "very high"],
}


@dataclass
class Task:
    """One task, as its YAML file describes it; paths are relative to the data folder."""

    name: str
    """Short name, used in tables and files."""
    title: str
    """The words of the instruction: 'Determine the {title} of following dna sequence, ...'."""
    family: Family
    """classification, structure, pair, function or regression."""
    kinds: list[str] = field(default_factory=lambda: ["dna"])
    """Alphabet of each sequence of a row: [dna], [protein], or two for a pair."""
    columns: list[str] = field(default_factory=lambda: ["sequence"])
    """Column of each sequence; with `sequences_table`, columns of identifiers."""
    label_column: str = "label"
    """Column of the answer: a label, free text, a number (regression) or a string of states (structure)."""
    labels: dict[str, str] = field(default_factory=dict)
    """Raw label -> name in the instruction. Empty: the raw labels are the names."""
    label_separator: str = ""
    """Where rows may carry several labels ('2;3'), their separator; rows with several different ones are rejected and counted."""
    train: list[str] = field(default_factory=list)
    """Training files. Empty: the task is only evaluated."""
    dev: list[str] = field(default_factory=list)
    """Development files. Empty: dev is cut from train."""
    test: list[str] = field(default_factory=list)
    """Test files; never trained on, nothing is chosen by them."""
    files: list[str] = field(default_factory=list)
    """Files without splits, instead of train, dev and test: divided here by clusters of similar sequences (or by group_column)."""
    derive: str = ""
    """The files are no tables of labelled rows: make the rows from them, by this name of `llama_gene.data.derived.tables`."""
    derive_options: dict[str, str] = field(default_factory=dict)
    """Options of `derive`; each derivation says which it has."""
    sequences_table: str = ""
    """Table of identifiers (first column) and sequences (column `sequence`), where the rows name sequences only."""
    group_column: str = ""
    """Rows of one group (a gene, a family) never straddle a split."""
    oracle_column: str = ""
    """A simulator's noise-free answer, for the ceiling."""
    mask_column: str = ""
    """Structure: a string of 0 and 1, residues at 0 have no known state and do not vote."""
    max_train: int | None = None
    """At most this many training rows."""
    max_dev: int | None = None
    """At most this many development rows."""
    max_test: int | None = None
    """At most this many test rows."""
    dev_fraction: float = 0.1
    """Share of the training rows that becomes dev where there is no dev file."""
    test_fraction: float = 0.1
    """Share of `files` that becomes test."""
    bins: int = 2
    """Regression: number of classes with equal shares of the training rows."""
    per_protein: int = 10
    """Structure: at most this many tokens of one protein are asked about."""
    balance: bool = False
    """Keep equally many train and dev rows of each label; what is dropped is counted."""
    balance_test: bool = False
    """The same for test rows. For simulated data; a published test set keeps its own balance."""
    max_closed_labels: int = 20
    """Function: with at most this many different answers, the list of answers is kept for scoring by likelihood."""
    published: str = ""
    """Published results to print beside ours."""
    simulated: bool = False
    """The rows come from a simulator; every table says so."""

    def __post_init__(self) -> None:
        """Check the values against each other. Raises ConfigError."""
        where = f"task '{self.name}'"
        if self.family not in FAMILIES:
            raise ConfigError(f"{where}: family '{self.family}'", f"one of {', '.join(FAMILIES)}", did_you_mean(self.family, FAMILIES))
        if len(self.kinds) != len(self.columns) or len(self.kinds) != (2 if self.family == "pair" else 1):
            raise ConfigError(
                f"{where}: {len(self.kinds)} kinds and {len(self.columns)} columns",
                "two of each for a pair, one of each for every other family",
                "Set kinds and columns",
            )
        for kind in self.kinds:
            get_alphabet(kind)
        if bool(self.files) == bool(self.test):
            raise ConfigError(
                f"{where} has {'both test and files' if self.files else 'no files'}", "test (and train), or files", "Set one of them"
            )
        if self.files and (self.train or self.dev):
            raise ConfigError(f"{where} has files beside train or dev", "either of them", "Remove one")
        if self.family == "regression" and not (self.train or self.files):
            raise ConfigError(f"{where} is a regression without train files", "train rows, which fix the bins", "Set train")
        if self.family == "regression" and self.bins < 2:
            raise ConfigError(f"{where}: bins {self.bins}", "2 or more", "Set bins: 2")
        if not (0 < self.dev_fraction < 1 and 0 < self.test_fraction < 1 and self.dev_fraction + self.test_fraction < 1):
            raise ConfigError(
                f"{where}: dev_fraction {self.dev_fraction}, test_fraction {self.test_fraction}", "shares that leave some train rows"
            )
        for name in self.labels.values():
            if not name.strip() or name != name.strip() or "\n" in name:
                raise ConfigError(f"{where}: label name {name!r}", "one line of text without spaces around it", "Change labels")

        check_derivation(self.derive, self.derive_options, where)

    def table_names(self) -> list[str]:
        """Return the names of all tables of the task, relative to the data folder."""
        derived_from = check_derivation(self.derive, self.derive_options, f"task '{self.name}'")
        return [*self.train, *self.dev, *self.test, *self.files, *([self.sequences_table] if self.sequences_table else []), *derived_from]

    def read_cells(self, path: Path, columns: Sequence[str], data_dir: Path, rejected: Counter[str] | None = None) -> list[dict[str, str]]:
        """Return the rows of one of the task's files: of a table, or those that `derive` makes; `rejected` counts what it leaves out."""
        if self.derive:
            return derived_rows(self.derive, self.derive_options, path, columns, data_dir, rejected)
        return read_table(path, columns)


class TaskRow(TypedDict):
    """One labelled row."""

    sequences: list[str]
    label: str
    """A label name, free text, or (structure) three-state letters and '-', one a residue."""
    group: str
    oracle: str | None
    value: float | None
    """The number behind a regression label."""


@dataclass
class TaskTable:
    """The rows of a task by split, its labels, and the count of what was left out."""

    task: Task
    splits: dict[str, list[TaskRow]]
    labels: list[str]
    """The closed list of label names, in the order of the instruction; empty for free text."""
    rejected: dict[str, int]
    """Reason -> rows."""
    duplicates_removed: dict[str, int]
    """Which overlap between splits -> rows dropped from the training side."""
    left_out: dict[str, int]
    """'train balance', 'train cap' and so on -> rows not used."""
    bins: dict[str, Any]
    """Regression: edges, and the median train value of each bin."""


Row = TypeVar("Row")


# --- reading the YAML ------------------------------------------------------------------------------------------------------------


def read_task(path: Path) -> Task:
    """Return the task that a YAML file describes.

    Raises MissingFileError, or ConfigError with file and line for an unknown key (naming the nearest), a missing key or a wrong type.
    """
    if not path.is_file():
        raise MissingFileError(path, "a task's YAML file")
    text = path.read_text(encoding="utf-8")
    try:
        values = yaml.load(text, Loader=_StringKeyLoader)
        lines = _key_lines(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or 'not YAML'}", "YAML (key: value)") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no keys", "a task (name, title, family, ...)")
    known = {item.name: item for item in fields(Task)}
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{path}, line {lines.get(key, 1)}: key '{key}' is not known",
                "a key of a task",
                did_you_mean(str(key), known) or f"Known: {', '.join(known)}",
            )
    for item in known.values():
        if item.default is MISSING and item.default_factory is MISSING and item.name not in values:
            raise ConfigError(f"{path} has no key '{item.name}'", "name, title and family", f"Add '{item.name}: ...'")
    try:
        return Task(**{key: _coerce(known[key].type, value) for key, value in values.items() if value is not None})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.found}", error.expected, error.action) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}", "the types of llama_gene.data.tasks.Task") from error


class _StringKeyLoader(yaml.SafeLoader):
    """YAML whose scalars stay text, so that a label `0`, `No` or `1.10` is not turned into a number or a boolean."""


_StringKeyLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:null") and first]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _key_lines(text: str) -> dict[str, int]:
    """Return the line of each top-level key."""
    node = yaml.compose(text, Loader=_StringKeyLoader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {str(key.value): int(key.start_mark.line) + 1 for key, _ in pairs}


def _coerce(type_name: Any, value: Any) -> Any:
    """Turn YAML text into the type of a Task field (annotations are strings here)."""
    name = str(type_name)
    if name.startswith("list["):
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in items):
            raise ValueError(f"{value!r} is not a list of texts")
        return [str(item) for item in items]
    if name.startswith("dict["):
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise ValueError(f"{value!r} is not a mapping of raw label to name")
        return {str(key): str(item) for key, item in value.items()}
    if isinstance(value, (list, dict)):
        raise ValueError(f"{value!r} is not one value")
    if name.startswith("int"):
        return int(str(value).replace("_", ""))
    if name == "float":
        return float(value)
    if name == "bool":
        if str(value).lower() not in ("true", "false", "yes", "no"):
            raise ValueError(f"{value!r} is not true or false")
        return str(value).lower() in ("true", "yes")
    return str(value)


# --- reading the tables ----------------------------------------------------------------------------------------------------------


def load_task(task: Task, data_dir: Path, seed: int = 0) -> TaskTable:
    """Return the rows of a task by split; the module's docstring says what is done to them. The same seed gives the same rows.

    Raises MissingFileError, or InputError with file and line for a missing column or an unknown label.
    """
    reader = _RowReader(task, data_dir)
    if task.files:
        splits = _split_by_similarity(task, reader.read(task.files), seed)
    else:
        splits = {split: reader.read(getattr(task, split)) for split in SPLITS}
    for split in ("test", *(("train",) if task.train or task.files else ())):
        if not splits[split]:
            raise InputError(
                f"task '{task.name}' has no usable {split} row", "at least one", f"Rejected: {dict(reader.rejected) or 'none'}"
            )
    removed = _remove_repeats(task, splits)
    if not (task.dev or task.files):
        splits["train"], splits["dev"] = _cut_dev(task, splits["train"], seed)
    bins = _bin_values(task, splits) if task.family == "regression" else {}
    labels = bins["names"] if bins else _closed_labels(task, splits)
    left_out: dict[str, int] = {}
    if task.family != "structure":  # its rows are whole proteins; balance and caps concern the questions made of them
        for split in SPLITS:
            if task.balance_test if split == "test" else task.balance:
                splits[split] = _balance(splits[split], _rng(seed, task, split, "balance"), left_out, split)
            splits[split] = _cap(splits[split], max_rows(task, split), _rng(seed, task, split, "cap"), left_out, split)
    return TaskTable(task, splits, labels, dict(reader.rejected), removed, left_out, bins)


def max_rows(task: Task, split: str) -> int | None:
    """Return the cap of a split, None where there is none."""
    return cast("int | None", getattr(task, f"max_{split}"))


class _RowReader:
    """Reads a task's tables into rows and counts what it rejects."""

    def __init__(self, task: Task, data_dir: Path) -> None:
        self.task = task
        self.data_dir = data_dir
        self.rejected: Counter[str] = Counter()
        self.letters = [frozenset(alphabet.letters + alphabet.ambiguous) for alphabet in map(get_alphabet, task.kinds)]
        self.sequences = self._read_sequences() if task.sequences_table else None

    def read(self, names: Sequence[str]) -> list[TaskRow]:
        """Return the usable rows of some files."""
        task = self.task
        optional = [column for column in (task.group_column, task.oracle_column, task.mask_column) if column]
        rows = []
        for name in names:
            path = self._path(name)
            for number, cells in enumerate(
                task.read_cells(path, [*task.columns, task.label_column, *optional], self.data_dir, self.rejected), start=2
            ):
                row = self._row(cells, f"{path}, line {number}")
                if isinstance(row, str):
                    self.rejected[row] += 1
                else:
                    rows.append(row)
        return rows

    def _path(self, name: str) -> Path:
        path = self.data_dir / name
        if not path.is_file():
            raise MissingFileError(path, f"a table of task '{self.task.name}'", "Check the path and data_dir")
        return path

    def _read_sequences(self) -> dict[str, str]:
        """Return identifier -> sequence; the identifiers are the first column that is not `sequence`."""
        table = read_table(self._path(self.task.sequences_table), ["sequence"])
        if not table:
            raise InputError(f"{self.task.sequences_table} has no row", "identifiers and sequences")
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
        raw_oracle = (cells[task.oracle_column] or "").strip() if task.oracle_column else ""
        if task.family == "structure":
            return self._structure_row(cells, sequences, raw, raw_oracle, group, where)
        if task.family == "regression":
            value = _number(raw)
            if value is None:
                return "value is not a number"
            return TaskRow(sequences=sequences, label="", group=group, oracle=raw_oracle or None, value=value)
        if task.label_separator:
            several = dict.fromkeys(part.strip() for part in raw.split(task.label_separator))
            if len(several) > 1:
                return "several different labels"
            raw = next(iter(several))
        label = self._label_name(raw, where)
        return TaskRow(
            sequences=sequences, label=label, group=group, oracle=self._label_name(raw_oracle, where) if raw_oracle else None, value=None
        )

    def _label_name(self, raw: str, where: str) -> str:
        if not self.task.labels:
            return raw
        if raw not in self.task.labels:
            raise InputError(f"{where}: label '{raw}'", f"one of {', '.join(self.task.labels)}", "Add it to labels in the task's YAML")
        return self.task.labels[raw]

    def _structure_row(
        self, cells: Mapping[str, str], sequences: list[str], raw: str, raw_oracle: str, group: str, where: str
    ) -> TaskRow | str:
        """Return a protein with its three-state string, masked residues as unknown."""
        try:
            states = reduce_states(raw)
            oracle = reduce_states(raw_oracle) if raw_oracle else None
        except InputError as error:
            raise InputError(f"{where}: {error.found}", error.expected, error.action) from error
        mask = (cells[self.task.mask_column] or "").strip() if self.task.mask_column else "1" * len(states)
        if not len(states) == len(mask) == len(sequences[0]) == len(oracle or states):
            return "states, mask and sequence differ in length"
        states = "".join(UNKNOWN if known == "0" else state for state, known in zip(states, mask, strict=True))
        if set(states) == {UNKNOWN}:
            return "no known state"
        return TaskRow(sequences=sequences, label=states, group=group, oracle=oracle, value=None)


def _number(text: str) -> float | None:
    """Return a finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# --- splits ----------------------------------------------------------------------------------------------------------------------


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


def _remove_repeats(task: Task, splits: dict[str, list[TaskRow]]) -> dict[str, int]:
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


def _cut_dev(task: Task, rows: list[TaskRow], seed: int) -> tuple[list[TaskRow], list[TaskRow]]:
    """Cut dev from train, whole groups (or repeated rows) at a time."""
    if not rows:
        return [], []
    groups = [row["group"] if task.group_column else row_key(task.kinds, row["sequences"]) for row in rows]
    names = split_by_group(groups, {"train": 1 - task.dev_fraction, "dev": task.dev_fraction}, seed)
    return _take(rows, names, "train"), _take(rows, names, "dev")


def _split_by_similarity(task: Task, rows: list[TaskRow], seed: int) -> dict[str, list[TaskRow]]:
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


# --- labels and numbers ----------------------------------------------------------------------------------------------------------


def _closed_labels(task: Task, splits: dict[str, list[TaskRow]]) -> list[str]:
    """Return the list of label names; empty for free text."""
    if task.family == "structure":
        return list(STATE_NAMES.values())
    if task.labels:
        return list(dict.fromkeys(task.labels.values()))
    known = {row["label"] for row in splits["train"] + splits["dev"] or splits["test"]}
    unseen = {row["label"] for row in splits["test"]} - known
    if task.family == "function":
        return sorted(known) if len(known) <= task.max_closed_labels and not unseen else []
    if unseen:
        raise InputError(
            f"task '{task.name}': label '{min(unseen)}' is in test but not in train",
            f"one of {', '.join(sorted(known))}",
            "Name the labels in the task's YAML, or check the label column",
        )
    return sorted(known)


def bin_names(num_bins: int) -> list[str]:
    """Return the label names of a regression, lowest first.

    >>> bin_names(2), bin_names(6)[-1]
    (['low', 'high'], 'bin 6')
    """
    return BIN_NAMES.get(num_bins) or [f"bin {number}" for number in range(1, num_bins + 1)]


def _bin_values(task: Task, splits: dict[str, list[TaskRow]]) -> dict[str, Any]:
    """Give every row the name of its value's bin (in place); return edges and the median train value of each bin."""
    values = sorted(cast("float", row["value"]) for row in splits["train"])
    edges = statistics.quantiles(values, n=task.bins, method="inclusive") if len(values) > 1 else []
    if len(edges) + 1 != task.bins or len(set(edges)) != len(edges) or edges[0] == values[0]:
        raise InputError(
            f"task '{task.name}': {len(set(values))} different values in {len(values)} train rows do not make {task.bins} bins",
            "values spread enough for every bin",
            "Lower bins",
        )
    names = bin_names(task.bins)

    def name_of(value: float) -> str:
        return names[bisect_right(edges, value)]  # a value on an edge is in the upper bin: "greater than or equal to: high"

    for row in (row for split in SPLITS for row in splits[split]):
        row["label"] = name_of(cast("float", row["value"]))
        oracle = _number(row["oracle"]) if row["oracle"] else None
        row["oracle"] = None if oracle is None else name_of(oracle)
    medians = {name: statistics.median(value for value in values if name_of(value) == name) for name in names}
    return {"names": names, "edges": edges, "medians": medians}


def _rng(seed: int, task: Task, *words: str) -> random.Random:
    """Return a generator that depends on the seed, the task and the purpose only, not on what was drawn before."""
    return random.Random("/".join([str(seed), task.name, *words]))


def _balance(rows: list[TaskRow], rng: random.Random, left_out: dict[str, int], split: str) -> list[TaskRow]:
    """Keep equally many rows of each label that occurs."""
    by_label = _by_label(rows)
    smallest = min((len(members) for members in by_label.values()), default=0)
    return _keep(rows, {label: smallest for label in by_label}, rng, left_out, f"{split} balance")


def _cap(rows: list[TaskRow], limit: int | None, rng: random.Random, left_out: dict[str, int], split: str) -> list[TaskRow]:
    """Keep at most `limit` rows with the labels' shares of the whole (free text with many answers: a plain draw)."""
    if limit is None or len(rows) <= limit:
        return rows
    by_label = _by_label(rows)
    if len(by_label) > limit:
        left_out[f"{split} cap"] = len(rows) - limit
        chosen = sorted(rng.sample(range(len(rows)), limit))
        return [rows[index] for index in chosen]
    return _keep(rows, _shares({label: len(members) for label, members in by_label.items()}, limit), rng, left_out, f"{split} cap")


def _by_label(rows: Sequence[TaskRow]) -> dict[str, list[int]]:
    by_label: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_label[row["label"]].append(index)
    return by_label


def _keep(rows: list[TaskRow], quotas: Mapping[str, int], rng: random.Random, left_out: dict[str, int], reason: str) -> list[TaskRow]:
    """Draw each label's quota; the rows stay in the order of the file."""
    by_label = _by_label(rows)
    chosen = sorted(index for label in sorted(by_label) for index in rng.sample(by_label[label], quotas[label]))
    if len(chosen) < len(rows):
        left_out[reason] = len(rows) - len(chosen)
    return [rows[index] for index in chosen]


def _shares(counts: Mapping[str, int], limit: int) -> dict[str, int]:
    """Divide `limit` in proportion to the counts by largest remainders.

    >>> _shares({"a": 70, "b": 30}, 9)
    {'a': 6, 'b': 3}
    """
    total = sum(counts.values())
    quotas = {label: limit * count // total for label, count in counts.items()}
    by_remainder: Callable[[str], tuple[int, str]] = lambda label: (-(limit * counts[label] % total), label)  # noqa: E731
    for label in sorted(counts, key=by_remainder)[: limit - sum(quotas.values())]:
        quotas[label] += 1
    return quotas
