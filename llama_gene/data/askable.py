"""Tasks as a user asks them: sequences in, one of a closed list of labels out; what chat, its page and the server have in common.

A task comes from its YAML file, or from the manifest of a folder that `llama-gene instruct` wrote, which also knows labels that stand in
the tables alone; an exported model carries the entries of the tasks that it was tuned on (`carry_tasks`). Tasks whose answer is no single
choice from a list are refused by name, with the reason: single residues (structure), several labels a row, free text.

What is pasted, loaded or sent is checked at one border, `check_row`: blanks are left out, letters become capitals, and every letter must be
one that the task's own rows may hold. Nothing is shortened and nothing is replaced; one stop sign at the end of a protein is left out and
said aloud. A protein is no DNA, so a letter outside the alphabet is an error; DNA *is* spelled in letters of proteins, so that is a doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.data.prompts import render_user
from llama_gene.data.task_labels import bin_names
from llama_gene.data.tasks import Task, read_task
from llama_gene.data.templates import render_input, render_instruction
from llama_gene.errors import ConfigError, InputError, MissingFileError, did_you_mean
from llama_gene.runtime import MANIFEST_NAME, read_manifest
from llama_gene.sequences.alphabet import Alphabet, first_fault, get_alphabet
from llama_gene.sequences.files import open_bytes, spoken_path
from llama_gene.sequences.records import parse_records

if TYPE_CHECKING:
    from llama_gene.data.evidence import Cited

MAX_LETTERS = 1_000_000
"""Letters of one sequence: no context holds more, and a chromosome is refused before it is held in memory."""
MIN_DOUBTED = 20
"""A protein of so many letters that are all bases is doubted; shorter ones say too little."""


@dataclass(frozen=True)
class AskableTask:
    """A task with a closed list of labels, of which one is the answer."""

    name: str
    title: str
    family: str
    kinds: tuple[str, ...]
    """Alphabet of each sequence of a question: one, or two for a pair."""
    labels: tuple[str, ...]
    instruction: str
    """With `{sequence}` in it where the words put the sequence inside the instruction."""
    inputs: str
    """The input of a question, `{0}` and `{1}` for its sequences; empty where the instruction holds them."""

    def user_message(self, row: Sequence[str], template: str = "alpaca", block: str = "") -> str:
        """Return what the user says: instruction (with evidence the block behind it) and input, as in training."""
        instruction, inputs = self.words_for(row)
        return render_user(instruction + block, inputs, template)

    def words_for(self, row: Sequence[str]) -> tuple[str, str]:
        """Return (instruction, input) of a question's sequences."""
        return self.instruction.replace("{sequence}", row[0]), self.inputs.format(*row)

    def describe(self) -> dict[str, Any]:
        """Return what `/tasks` says about it."""
        return {
            "name": self.name, "title": self.title, "family": self.family, "kinds": list(self.kinds), "labels": list(self.labels),
            "instruction": self.instruction,
        }  # fmt: skip


@dataclass(frozen=True)
class AskableTasks:
    """The tasks of some files and folders: those that can be asked, and why the others cannot."""

    by_name: Mapping[str, AskableTask] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> AskableTask:
        """Return a task. Raises InputError that names the nearest one, or why this one cannot be asked."""
        if name in self.by_name:
            return self.by_name[name]
        if name in self.refused:
            raise InputError(f"task '{name}' cannot be asked for one label: {self.refused[name]}", f"one of {_listed(self.by_name)}")
        raise InputError(f"there is no task '{name}'", f"one of {_listed(self.by_name)}", did_you_mean(name, self.by_name))


@dataclass(frozen=True)
class AskedRow:
    """One question's sequences as they stand in the prompt, with the name that the user knows them by."""

    name: str
    sequences: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    """What was changed, or looks wrong and is asked nevertheless."""
    cited: Cited | None = None
    """The annotated sequences near it that its prompt cites; None where no index is asked."""

    @property
    def block(self) -> str:
        """What stands behind the instruction."""
        return self.cited.block if self.cited is not None else ""


# --- tasks -----------------------------------------------------------------------------------------------------------------------


def askable_task(task: Task, labels: Sequence[str] | None = None, instruction: str | None = None, words: str = "default") -> AskableTask:
    """Return a task as it is asked. Labels and instruction are those of the task's YAML unless they are given.

    `words` is the template of the instruction (default, paper, dnahlm). Raises InputError that says why it has no single label.

    >>> task = Task(name="core", title="core promoter detection", family="classification", strand="sense", test=["t.csv"],
    ...             labels={"0": "Non-promoter", "1": "promoter"})
    >>> askable_task(task).user_message(["ACGT"])[-18:]
    '.\\n\\n### Input:\\nACGT'
    """
    closed = list(labels) if labels is not None else _labels_of(task)
    if reason := _no_single_label(task, closed):
        raise InputError(f"task '{task.name}' cannot be asked for one label: {reason}", "a closed list of labels, one of them the answer")
    places = ["{0}", "{1}"][: len(task.kinds)]
    return AskableTask(
        name=task.name,
        title=task.title,
        family=task.family,
        kinds=tuple(task.kinds),
        labels=tuple(closed),
        instruction=instruction if instruction is not None else render_instruction(task, closed, words),
        inputs=render_input(task, places, words),
    )


def read_askable_tasks(paths: Iterable[Path | str], words: str = "default") -> AskableTasks:
    """Return the tasks of YAML files, of folders of them, and of folders that `llama-gene instruct` wrote (whose words are their own).

    Raises MissingFileError for a path that is not there, ConfigError for a file that describes no task, two tasks of one name, and where
    no task at all can be asked.
    """
    found: dict[str, AskableTask] = {}
    refused: dict[str, str] = {}
    given = [Path(path).expanduser() for path in paths]
    for name, task in (pair for path in given for pair in _tasks_at(path, words)):
        if name in found or name in refused:
            raise ConfigError(f"two tasks are called '{name}'", "one name a task", "Name one of their files only")
        if isinstance(task, AskableTask):
            found[name] = task
        else:
            refused[name] = task
    if given and not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ConfigError(
            f"no task of {', '.join(map(str, given))} can be asked" + (f" ({reasons})" if reasons else ""),
            "a task with a closed list of labels",
        )
    return AskableTasks(found, refused)


TASK_FACTS = ("family", "title", "kinds", "strand", "labels", "instruction")
"""What of a task's entry in the manifest of `instruct` is needed to ask it."""


def carry_tasks(instructions: Path) -> dict[str, Any]:
    """Return the tasks of a folder of `llama-gene instruct` that can be asked, and their words, as a model's manifest carries them."""
    manifest = read_manifest(instructions, "instruct")
    words = manifest.get("template", "default")
    entries = {
        name: {fact: entry.get(fact) for fact in TASK_FACTS}
        for name, entry in manifest["tasks"].items()
        if isinstance(_of_manifest(name, entry, words), AskableTask)
    }
    return {"words": words, "by_name": entries}


def read_carried_tasks(carried: Mapping[str, Any]) -> AskableTasks:
    """Return the tasks that a model's manifest carries. Raises InputError for what `carry_tasks` does not write."""
    try:
        found = {name: _of_manifest(name, entry, carried["words"]) for name, entry in carried["by_name"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the tasks of the model's manifest cannot be read ({error!r})", "those of `llama-gene export`") from error
    return AskableTasks(
        {name: task for name, task in found.items() if isinstance(task, AskableTask)},
        {name: task for name, task in found.items() if isinstance(task, str)},
    )


def _tasks_at(path: Path, words: str) -> Iterator[tuple[str, AskableTask | str]]:
    """Yield (name, the task, or why it cannot be asked)."""
    if not path.exists():
        raise MissingFileError(path, "a task's YAML file, a folder of them, or one written by `llama-gene instruct`")
    if path.is_dir() and (path / MANIFEST_NAME).is_file():
        manifest = read_manifest(path, "instruct")
        for name, entry in manifest["tasks"].items():
            yield name, _of_manifest(name, entry, manifest.get("template", "default"))
        return
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    if not files:
        raise MissingFileError(path / "*.yaml", "YAML files of tasks", f"Does {path} hold tasks?")
    for file in files:
        task = read_task(file)
        reason = _no_single_label(task, _labels_of(task))
        yield task.name, reason or askable_task(task, words=words)


def _of_manifest(name: str, entry: Mapping[str, Any], words: str) -> AskableTask | str:
    """Return a task from its entry in the manifest of `instruct`, which holds its words and labels but not its tables."""
    kinds = list(entry["kinds"])
    rows = ["train.jsonl"]  # the task's rows are the folder's: a Task wants to know some
    task = Task(
        name=name, title=entry["title"], family=entry["family"], kinds=kinds, columns=["sequence"] * len(kinds),
        strand=entry.get("strand") or "", train=rows, test=rows,
    )  # fmt: skip
    reason = "a row has several labels" if entry.get("multi_label") else _no_single_label(task, entry["labels"])
    return reason or askable_task(task, entry["labels"], entry["instruction"], words)


def _labels_of(task: Task) -> list[str]:
    """Return the labels that a task's YAML names."""
    if task.family == "regression":
        return bin_names(2 if task.threshold is not None else task.bins)
    return list(dict.fromkeys(task.labels.values()))


def _no_single_label(task: Task, labels: Sequence[str]) -> str:
    """Return why a task's answer is not one of a closed list of labels, an empty string where it is."""
    if task.family == "structure":
        return "it is asked of single residues"
    if task.multi_label:
        return "a row has several labels"
    if len(labels) < 2:
        free = task.family == "function"
        return "its answers are free text" if free else "its YAML names no labels (name them, or give the folder of `instruct`)"
    return ""


def _listed(names: Iterable[str], limit: int = 12) -> str:
    """Return names for a message, not all of a hundred."""
    known = list(names)
    return ", ".join(known[:limit]) + (f" and {len(known) - limit} more" if len(known) > limit else "") or "none"


# --- sequences -------------------------------------------------------------------------------------------------------------------


def check_row(task: AskableTask, sequences: Sequence[str], name: str = "sequence") -> AskedRow:
    """Return one question's sequences in capitals, without blanks and line breaks.

    Raises InputError that begins with `name` for another number of sequences than the task's, an empty or too long one, and a letter
    that the alphabet lacks, saying which task would fit it.

    >>> dna = AskableTask("p", "promoter", "classification", ("dna",), ("no", "yes"), "Determine.", "{0}")
    >>> check_row(dna, ["ac gt\\nNN"]).sequences
    ('ACGTNN',)
    """
    if len(sequences) != len(task.kinds):
        wanted = f"{len(task.kinds)} ({' and '.join(task.kinds)})"
        raise InputError(f"{name} has {len(sequences)} sequences", f"{wanted}, as task '{task.name}' asks about")
    checked: list[str] = []
    doubts: list[str] = []
    for number, (text, kind) in enumerate(zip(sequences, task.kinds, strict=True), start=1):
        where = name if len(task.kinds) == 1 else f"{name}, sequence {number}"
        sequence = _written(text, get_alphabet(kind), where, doubts)
        if kind == "protein" and len(sequence) >= MIN_DOUBTED and set(sequence) <= set("ACGTUN"):
            doubts.append(f"{where} is asked as a protein and holds letters of DNA alone")
        checked.append(sequence)
    return AskedRow(name, tuple(checked), tuple(doubts))


def _written(text: str, alphabet: Alphabet, where: str, doubts: list[str]) -> str:
    """Return a sequence as the task's rows write theirs. Raises InputError."""
    sequence = "".join(text.split()).upper()
    if alphabet.stop and sequence.endswith(tuple(alphabet.stop)):
        sequence = sequence[:-1]
        doubts.append(f"{where}: the stop sign at its end is left out")
    if not sequence:
        raise InputError(f"{where} is empty", f"a {_spoken(alphabet.name)} sequence")
    if len(sequence) > MAX_LETTERS:
        raise InputError(f"{where} has {len(sequence):,} letters", f"at most {MAX_LETTERS:,}", "Cut a window out of it")
    known = alphabet.letters + alphabet.ambiguous
    place = next((place for place, letter in enumerate(sequence) if letter not in known), None)
    if place is None:
        return sequence
    fitting = [kind for kind in ("dna", "rna", "protein") if kind != alphabet.name and first_fault(sequence, get_alphabet(kind)) is None]
    raise InputError(
        f"{where}: {sequence[place]!r} (letter {place + 1:,}) is not a {_spoken(alphabet.name)} letter",
        f"{alphabet.letters}" + (f" and the ambiguity codes {alphabet.ambiguous}" if alphabet.ambiguous else ""),
        f"It could be {_spoken(fitting[0])}: choose a task about {_spoken(fitting[0])}" if fitting else "Remove or replace the letter",
    )


def _spoken(kind: str) -> str:
    """Return a kind as a sentence has it."""
    return kind.upper() if kind in ("dna", "rna") else kind


def read_rows_of(path: Path | str, task: AskableTask, max_rows: int = 1000, max_letters: int = MAX_LETTERS) -> list[AskedRow]:
    """Return the questions of a FASTA or FASTQ file, plain or compressed: one a record, for a pair one of each two records.

    Raises MissingFileError, and InputError for a file that is no FASTA, more than `max_rows` questions, a record of more than
    `max_letters` letters, a single record at the end of pairs, and what `check_row` refuses; nothing is left out.
    """
    where = spoken_path(path)
    with open_bytes(path) as handle:
        records = ((record.id, record.sequence) for record in parse_records(handle, where, max_record_length=max_letters))
        return _rows(records, task, where, max_rows)


def read_pasted(text: str, task: AskableTask, max_rows: int = 1000) -> list[AskedRow]:
    """Return the questions of pasted text: FASTA records, or lines of one bare sequence (pairs: both, a line of `####` between them).

    Raises as `read_rows_of`.

    >>> dna = AskableTask("p", "promoter", "classification", ("dna",), ("no", "yes"), "Determine.", "{0}")
    >>> [(row.name, *row.sequences) for row in read_pasted(">a first\\nAC\\nGT\\n>b\\nTTTT", dna)]
    [('a', 'ACGT'), ('b', 'TTTT')]
    >>> read_pasted("acgt", dna)[0].name
    'pasted sequence'
    """
    if ">" not in text:
        parts = [part for part in re.split(r"(?m)^\s*#{4,}\s*$", text) if part.strip()] or [""]
        return [check_row(task, parts, "pasted sequence")]
    before, *records = re.split(r"(?m)^\s*>", text)
    if before.strip():
        raise InputError(f"'{before.split()[0][:40]}' stands before the first '>'", "FASTA records, or one bare sequence")
    headers = [record.partition("\n") for record in records]
    return _rows([((header.split() or ["record"])[0], body) for header, _, body in headers], task, "the pasted text", max_rows)


def _rows(records: Iterable[tuple[str, str]], task: AskableTask, where: str, max_rows: int) -> list[AskedRow]:
    """Return questions of named sequences, `len(task.kinds)` at a time."""
    rows: list[AskedRow] = []
    waiting: list[tuple[str, str]] = []
    for record in records:
        waiting.append(record)
        if len(waiting) < len(task.kinds):
            continue
        if len(rows) == max_rows:
            raise InputError(f"{where} holds more than {max_rows:,} questions", f"at most {max_rows:,} at a time", "Split it")
        rows.append(check_row(task, [sequence for _, sequence in waiting], " + ".join(name for name, _ in waiting)))
        waiting = []
    if waiting:
        raise InputError(f"{where}: '{waiting[0][0]}' has no partner", f"two records for each question of task '{task.name}'", "Add it")
    return rows
