"""Labelled tasks: one YAML a task, tables in, clean and leakage-safe train, dev and test rows out.

What happens to a table, in this order, with every lost row counted under its reason:

1. rows are read and checked: no empty sequence, no letter outside the alphabet, a known label (regression: a finite number) (`task_rows`);
2. one file without splits (`files`) is divided by clusters of similar sequences, so that no relative of a test row is trained on;
3. train and dev rows that repeat a test row (for DNA also as reverse complement), or share its group, are dropped; so are train rows that
   repeat a dev row;
4. without a dev file, dev is cut from train, whole groups at a time (2 to 4: `task_splits`);
5. regression values become bins whose edges are fixed on the *train* rows (LLaMA-Gene, section 2.2.2.5); labels get their order;
6. each split is balanced if asked, then capped with a seed, keeping the share of each label (5 and 6: `task_labels`);
7. if asked, each train row of a task that either strand answers is followed by its reverse complement; pairs are told apart by how many of
   their members are trained on.

Sequences stay whole here; what is too long for a model is shortened when it is encoded (`supervised`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from llama_gene.data.derived.tables import check_derivation, derived_rows
from llama_gene.data.structure import STATE_NAMES, UNKNOWN
from llama_gene.data.tables import read_rows
from llama_gene.data.task_labels import balance, bin_names, bin_values, cap, closed_labels, low_and_high, order_answers, task_rng
from llama_gene.data.task_rows import SEVERAL, SPLITS, RowReader, TaskRow, with_other_strand
from llama_gene.data.task_splits import cut_dev, mark_seen_members, remove_repeats, row_key, sequence_key, split_by_similarity
from llama_gene.data.task_yaml import read_yaml
from llama_gene.data.templates import check_paraphrases
from llama_gene.errors import ConfigError, InputError, did_you_mean
from llama_gene.sequences.alphabet import get_alphabet

__all__ = [
    "FAMILIES",
    "SPLITS",
    "Task",
    "TaskRow",
    "TaskTable",
    "bin_names",
    "load_task",
    "max_rows",
    "read_task",
    "row_key",
    "sequence_key",
    "set_caps",
]

Family = Literal["classification", "structure", "pair", "function", "regression"]
FAMILIES: tuple[str, ...] = get_args(Family)
STRANDS = ("either", "sense")
FORMS = ("residue", "token")
# Keys that mean something in some families only: elsewhere they would do nothing.
_FAMILIES_OF_KEY = {
    **dict.fromkeys(("mask_column", "per_protein", "form", "window", "tie_order"), ("structure",)),
    **dict.fromkeys(("bins", "threshold"), ("regression",)),
    **dict.fromkeys(("multi_label", "ec_level", "label_separator"), ("classification", "function")),
    "max_closed_labels": ("function",),
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
    strand: str = ""
    """Must be said where all sequences are DNA or RNA: either (both strands have the same answer: TF peaks, histone marks, enhancers) or
    sense (one strand is meant: splice sites, promoters, coding sequences). Structure and pairs with protein are sense; protein has none."""
    label_column: str = "label"
    """Column of the answer: a label, free text, a number (regression) or a string of states (structure)."""
    labels: dict[str, str] = field(default_factory=dict)
    """Raw label -> name in the instruction, by meaning. Empty: the raw labels are the names. Structure: letter of a state -> its name
    (default: H alpha helix, E beta sheet, C random coil, to which DSSP's other letters are reduced)."""
    label_separator: str = ""
    """Where rows may carry several labels ('2;3'), their separator; without `multi_label`, rows with several different ones are rejected
    and counted."""
    multi_label: bool = False
    """Rows keep all their labels: the answer is their names in the order of the list, joined by ', '."""
    ec_level: int = 0
    """The labels are EC numbers, cut to this level (1 to 4); 0: they are not."""
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
    """Structure: a string of 0 and 1, residues at 0 have no known state: they are not asked about and do not vote."""
    subset_column: str = ""
    """Names of populations that are reported apart, separated by ';' (kinds of negatives, say)."""
    source_column: str = ""
    """Where each row comes from; default: FILE:ROW of the task's own table."""
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
    bins: int = 10
    """Regression: number of classes with equal shares of the training rows; 2 is the papers' median."""
    threshold: float | None = None
    """Regression: two classes instead, low below this value and high from it on."""
    form: str = "residue"
    """Structure: residue (one question a residue, in the middle of its window) or token (the papers': the vote of a token's residues)."""
    window: int = 15
    """Structure, form residue: residues on each side of the one that is asked about."""
    tie_order: list[str] = field(default_factory=list)
    """Structure, form token: letters of the states in the order that decides ties; default: the order of `labels` (H, E, C)."""
    per_protein: int = 10
    """Structure: at most this many residues or tokens of one protein are asked about."""
    augment_reverse_complement: bool = False
    """Add the reverse complement of every training row; refused unless strand is either."""
    balance: bool = False
    """Keep equally many train and dev rows of each label; what is dropped is counted."""
    balance_test: bool = False
    """The same for test rows. For simulated data; a published test set keeps its own balance."""
    max_closed_labels: int = 20
    """Function: with at most this many different answers, the list of answers is kept for scoring by likelihood."""
    positive: str = ""
    """Name of the label that AUROC and AUPR look for; empty: the one that the other denies, else the last."""
    prior: float | None = None
    """Share of positives where the task is used: AUPR is reported at it."""
    paper_instruction: str = ""
    """The instruction in the papers' own committed rows, to the letter, for the template `paper`."""
    paraphrases: list[str] = field(default_factory=list)
    """Other words for the instruction; {title}, {kind} (pairs: {kind1}, {kind2}) and {labels} are filled in. Train rows draw among them
    and the template's own words."""
    held_out_paraphrases: list[str] = field(default_factory=list)
    """Words that no train row is asked in, for `instruct --held_out_paraphrases true`."""
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
        for key, families in _FAMILIES_OF_KEY.items():
            if self.family not in families and getattr(self, key) != _default(key):
                raise ConfigError(f"{where} is a {self.family} task with {key}", f"a key of {' and '.join(families)}", f"Remove {key}")
        check_derivation(self.derive, self.derive_options, where)
        self.strand = _strand(self, where)
        _check_files(self, where)
        _check_labels(self, where)
        _check_numbers(self, where)
        check_paraphrases([*self.paraphrases, *self.held_out_paraphrases], len(self.kinds), where)

    def table_names(self) -> list[str]:
        """Return the names of all tables of the task, relative to the data folder."""
        derived_from = check_derivation(self.derive, self.derive_options, f"task '{self.name}'")
        return [*self.train, *self.dev, *self.test, *self.files, *([self.sequences_table] if self.sequences_table else []), *derived_from]

    def read_cells(self, path: Path, columns: Sequence[str], data_dir: Path, rejected: Counter[str] | None = None) -> list[dict[str, str]]:
        """Return the rows of one of the task's files as column -> text: of a table, or those that `derive` makes; `rejected` counts what it
        leaves out."""
        if self.derive:
            return derived_rows(self.derive, self.derive_options, path, columns, data_dir, rejected)
        return read_rows(path, columns, self.label_separator)

    def state_names(self) -> dict[str, str]:
        """Return letter -> name of the states of a structure task."""
        return self.labels or STATE_NAMES


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
    """Regression: names, edges, the median train value of each bin, and the shares of low and high (`low_high`)."""
    dropped_labels: dict[str, int] = field(default_factory=dict)
    """Reason -> labels taken out of rows that stay."""
    num_augmented: int = 0
    """Train rows that are the reverse complement of another."""
    vote_ceiling: dict[str, float] = field(default_factory=dict)
    """Structure, form token: split -> share of residues whose state is their token's vote; filled in by `build_examples`."""


# --- reading ---------------------------------------------------------------------------------------------------------------------


def read_task(path: Path) -> Task:
    """Return the task that a YAML file describes.

    Raises MissingFileError, or ConfigError with file and line for an unknown key (naming the nearest), a missing key or a wrong type.
    """
    return read_yaml(path, Task, "a task")


def set_caps(task: Task, caps: object) -> None:
    """Put the `max_train`, `max_dev` and `max_test` of a stage's settings in the place of the task's own; None keeps those.

    Raises ConfigError for a negative number, and for no test row.
    """
    for split in SPLITS:
        if (limit := getattr(caps, f"max_{split}")) is not None:
            setattr(task, f"max_{split}", limit)
    _check_caps(task, f"task '{task.name}'")


def load_task(task: Task, data_dir: Path, seed: int = 0) -> TaskTable:
    """Return the rows of a task by split; the module's docstring says what is done to them. The same seed gives the same rows.

    Raises MissingFileError, or InputError with file and line for a missing column or an unknown label.
    """
    reader = RowReader(task, data_dir)
    if task.files:
        splits = split_by_similarity(task, reader.read(task.files), seed)
    else:
        splits = {split: reader.read(getattr(task, split)) for split in SPLITS}
    for split in ("test", *(("train",) if task.train or task.files else ())):
        if not splits[split]:
            raise InputError(
                f"task '{task.name}' has no usable {split} row", "at least one", f"Rejected: {dict(reader.rejected) or 'none'}"
            )
    removed = remove_repeats(task, splits)
    if (task.train or task.files) and not splits["train"]:
        raise InputError(f"task '{task.name}' has no train row left", "rows that are not in dev or test", f"Dropped: {removed}")
    if not (task.dev or task.files):
        splits["train"], splits["dev"] = cut_dev(task, splits["train"], seed)
    bins = bin_values(task, splits) if task.family == "regression" else {}
    labels = bins["names"] if bins else closed_labels(task, splits)
    if task.multi_label:
        order_answers(labels, splits)
    left_out: dict[str, int] = {}
    if task.family != "structure":  # its rows are whole proteins; balance and caps concern the questions made of them
        for split in SPLITS:
            if task.balance_test if split == "test" else task.balance:
                splits[split] = balance(splits[split], task_rng(seed, task, split, "balance"), left_out, split)
            splits[split] = cap(splits[split], max_rows(task, split), task_rng(seed, task, split, "cap"), left_out, split)
    table = TaskTable(task, splits, labels, dict(reader.rejected), removed, left_out, bins, dict(reader.dropped_labels))
    if task.family == "pair":
        mark_seen_members(task, splits)
    if bins:
        bins["low_high"] = low_and_high(task, splits)
    if task.augment_reverse_complement:
        num_rows = len(splits["train"])
        splits["train"] = with_other_strand(task.kinds, splits["train"])
        table.num_augmented = len(splits["train"]) - num_rows
    return table


def max_rows(task: Task, split: str) -> int | None:
    """Return the cap of a split, None where there is none."""
    return cast("int | None", getattr(task, f"max_{split}"))


# --- checks of a task's values ---------------------------------------------------------------------------------------------------


def _default(key: str) -> Any:
    """Return the value that a key has where the YAML does not name it."""
    item = next(item for item in fields(Task) if item.name == key)
    return item.default_factory() if callable(item.default_factory) else item.default


def _strand(task: Task, where: str) -> str:
    """Return which strand of its sequences a task is about: either, sense, or "" where they have one only. Raises ConfigError."""
    stranded = [get_alphabet(kind).complement is not None for kind in task.kinds]
    fixed = "" if not any(stranded) else "sense" if task.family == "structure" or not all(stranded) else None
    strand = task.strand or fixed
    if strand is None:
        raise ConfigError(
            f"{where} does not say its strand",
            "either (both strands have one answer: TF peaks, histone marks, enhancers) or sense (splice, promoters, coding sequences)",
            "Set strand",
        )
    if strand and strand not in STRANDS:
        raise ConfigError(f"{where}: strand '{strand}'", " or ".join(STRANDS), did_you_mean(strand, STRANDS))
    if fixed is not None and strand != fixed:
        meant = "proteins have no other strand" if not fixed else "structure and pairs with protein are read on the strand as given"
        raise ConfigError(f"{where}: strand '{strand}'", meant, "Remove strand" if not fixed else "Set strand: sense, or leave it out")
    if task.augment_reverse_complement and strand != "either":
        raise ConfigError(
            f"{where} has augment_reverse_complement and strand '{strand or 'none'}'",
            "strand: either (the other strand of a row has another answer, or none)",
            "Remove augment_reverse_complement",
        )
    return strand


def _check_files(task: Task, where: str) -> None:
    if bool(task.files) == bool(task.test):
        raise ConfigError(
            f"{where} has {'both test and files' if task.files else 'no files'}", "test (and train), or files", "Set one of them"
        )
    if task.files and (task.train or task.dev):
        raise ConfigError(f"{where} has files beside train or dev", "either of them", "Remove one")
    if task.family == "regression" and not (task.train or task.files):
        raise ConfigError(f"{where} is a regression without train files", "train rows, which fix the bins", "Set train")


def _check_labels(task: Task, where: str) -> None:
    for name in task.labels.values():
        if not name.strip() or name != name.strip() or "\n" in name:
            raise ConfigError(f"{where}: label name {name!r}", "one line of text without spaces around it", "Change labels")
        if task.multi_label and SEVERAL in name:
            raise ConfigError(f"{where}: label name {name!r}", f"no {SEVERAL!r}, which separates the labels of a row", "Change labels")
    if task.multi_label and not task.label_separator:
        raise ConfigError(f"{where} has multi_label without label_separator", "what stands between the labels of a row", "Set it")
    if not 0 <= task.ec_level <= 4:
        raise ConfigError(f"{where}: ec_level {task.ec_level}", "1 to 4, or 0 where labels are no EC numbers", "Set ec_level")
    if task.positive and task.labels and task.positive not in task.labels.values():
        raise ConfigError(f"{where}: positive '{task.positive}'", f"one of {', '.join(task.labels.values())}", "Name a label")
    if task.family != "structure":
        return
    for letter in task.labels:
        if len(letter) != 1 or letter == UNKNOWN:
            raise ConfigError(f"{where}: state '{letter}'", f"one letter a state, and not '{UNKNOWN}', which is unknown", "Change labels")
    names = task.state_names()
    if len(set(names.values())) < 2:
        raise ConfigError(f"{where}: states {', '.join(names.values())}", "two different names or more", "Change labels")
    if task.tie_order and sorted(names.get(letter, "") for letter in task.tie_order) != sorted(set(names.values())):
        raise ConfigError(f"{where}: tie_order {', '.join(task.tie_order)}", f"each state of {', '.join(names)} once", "Mend it")


def _check_caps(task: Task, where: str) -> None:
    for split in SPLITS:
        limit, least = max_rows(task, split), 1 if split == "test" else 0
        if limit is not None and limit < least:
            raise ConfigError(f"{where}: max_{split} {limit}", f"{least} or more rows", f"Raise max_{split}, or leave it out")


def _check_numbers(task: Task, where: str) -> None:
    _check_caps(task, where)
    if task.threshold is not None:
        if task.bins not in (2, _default("bins")):
            raise ConfigError(f"{where} has a threshold and {task.bins} bins", "one of them: a threshold makes two classes", "Remove one")
        task.bins = 2
    if task.bins < 2:
        raise ConfigError(f"{where}: bins {task.bins}", "2 or more", "Set bins: 2")
    if not (0 < task.dev_fraction < 1 and 0 < task.test_fraction < 1 and task.dev_fraction + task.test_fraction < 1):
        raise ConfigError(
            f"{where}: dev_fraction {task.dev_fraction}, test_fraction {task.test_fraction}", "shares that leave some train rows"
        )
    if task.form not in FORMS:
        raise ConfigError(f"{where}: form '{task.form}'", " or ".join(FORMS), did_you_mean(task.form, FORMS))
    if task.window < 1:
        raise ConfigError(f"{where}: window {task.window}", "1 residue or more on each side", "Set window: 15")
    if task.prior is not None and not 0 < task.prior < 1:
        raise ConfigError(f"{where}: prior {task.prior}", "a share between 0 and 1", "Set prior")
