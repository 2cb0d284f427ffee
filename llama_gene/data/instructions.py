"""Task rows become instructions: one template for each of the five families of LLaMA-Gene (section 2.2.2), and English for replay.

    classification, structure, regression
        Determine the {title} of following {kind} sequence, The result will be one of the following: {labels}
    pair
        Determine the {title} of following {kind1} sequence and {kind2} sequence , The result will be one of the following: {labels}
    function
        Determine {title} of following {kind} sequence.

The input is the sequence (structure: a window that ends in the token asked about); for a pair `DNA sequence: ...`, a line `####` and
`protein sequence: ...`. The output is the label's name, the structure's name, the function or the name of the value's bin.

The texts are the papers' to the letter, odd spaces and all (classification with the full stop of its example and of the authors' own rows;
`dna` in small letters except in pairs and regression, as there), so that the authors' published test rows are asked in the same words.

An example is a plain dict, one line of JSON. It keeps its sequences beside the text, because over-long ones are shortened inside the
sequence when the example is encoded, and the closed list of labels, because answers are scored by the likelihood of each label.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from llama_gene.data.structure import STATE_NAMES, structure_examples, token_lengths, vote
from llama_gene.data.tasks import SPLITS, Task, TaskRow, TaskTable, max_rows
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.runtime import read_json, whole_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_RESULT = "The result will be one of the following: "
# Families whose template writes DNA and RNA in capitals.
_CAPITALS = ("pair", "regression")


class Example(TypedDict):
    """One instruction with its answer."""

    task: str
    family: str
    split: str
    instruction: str
    input: str
    output: str
    labels: list[str]
    """The closed list of answers, [] for free text."""
    sequences: list[str]
    """The sequences as they stand in `input`, in order."""
    kinds: list[str]
    group: str
    oracle: str | None
    """A simulator's noise-free answer."""
    value: float | None
    """The number behind a regression label."""


def render_instruction(task: Task, labels: Sequence[str]) -> str:
    """Return the instruction of a task, by its family's template.

    >>> promoter = Task(name="core", title="core promoter detection", family="classification", test=["t.csv"])
    >>> render_instruction(promoter, ["Non-promoter", "promoter"])[:59]
    'Determine the core promoter detection of following dna sequ'
    """
    kinds = [_kind_name(kind, task.family in _CAPITALS) for kind in task.kinds]
    if task.family == "function":
        return f"Determine {task.title} of following {kinds[0]} sequence."
    names = _RESULT + ", ".join(labels)
    if task.family == "pair":
        return f"Determine the {task.title} of following {kinds[0]} sequence and {kinds[1]} sequence , {names}"
    return f"Determine the {task.title} of following {kinds[0]} sequence, {names}" + ("." if task.family == "classification" else "")


def render_input(task: Task, sequences: Sequence[str]) -> str:
    """Return the input of a row: its sequence, or both of a pair under their kinds."""
    if task.family != "pair":
        return sequences[0]
    named = [f"{_kind_name(kind, True)} sequence: {sequence}" for kind, sequence in zip(task.kinds, sequences, strict=True)]
    return "\n####\n".join(named)


def _kind_name(kind: str, capitals: bool) -> str:
    return kind.upper() if capitals and kind in ("dna", "rna") else kind


def build_examples(table: TaskTable, tokenizer: PreTrainedTokenizerFast | None = None, seed: int = 0) -> dict[str, list[Example]]:
    """Return a task's examples by split. A structure task needs the tokenizer, whose tokens it asks about.

    Raises ConfigError for a structure task without one.
    """
    task = table.task
    if task.family == "structure" and tokenizer is None:
        raise ConfigError(f"task '{task.name}' asks about tokens and no tokenizer is given", "a tokenizer folder", "Set --tokenizer")
    instruction = render_instruction(task, table.labels)
    examples = {}
    for split in SPLITS:
        rows: Iterable[TaskRow] = table.splits[split]
        if task.family == "structure" and tokenizer is not None:
            rows = _structure_rows(table, split, tokenizer, random.Random(f"{seed}/{task.name}/{split}/structure"))
        examples[split] = [
            Example(
                task=task.name,
                family=task.family,
                split=split,
                instruction=instruction,
                input=render_input(task, row["sequences"]),
                output=row["label"],
                labels=table.labels,
                sequences=row["sequences"],
                kinds=task.kinds,
                group=row["group"],
                oracle=row["oracle"],
                value=row["value"],
            )
            for row in rows
        ]
    return examples


def _structure_rows(table: TaskTable, split: str, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> list[TaskRow]:
    """Return one row a question about a token, from proteins drawn in random order, evenly many from each.

    Balanced splits take each structure up to a third of the cap (without a cap: as often as the rarest), so `left_out` counts the rest.
    """
    task, proteins = table.task, table.splits[split]
    limit, balanced = max_rows(task, split), task.balance_test if split == "test" else task.balance
    per_protein = min(task.per_protein, -(-limit // len(proteins))) if limit is not None and proteins else task.per_protein
    quota = limit // len(STATE_NAMES) if limit is not None and balanced else None
    taken: Counter[str] = Counter()
    rows: list[TaskRow] = []
    for number in rng.sample(range(len(proteins)), len(proteins)):
        wanted = [name for name in table.labels if quota is None or taken[name] < quota]
        if not wanted or (limit is not None and len(rows) >= limit):
            break
        protein = proteins[number]
        sequence, states = protein["sequences"][0], protein["label"]
        for question in structure_examples(sequence, states, token_lengths(tokenizer, sequence), per_protein, rng, wanted):
            if (quota is not None and taken[question.label] >= quota) or (limit is not None and len(rows) >= limit):
                continue
            taken[question.label] += 1
            oracle = vote(protein["oracle"][question.start : question.end]) if protein["oracle"] else None
            group = protein["group"] or f"{split}-{number}"  # questions about one protein are not independent rows
            rows.append(TaskRow(sequences=[question.window], label=question.label, group=group, oracle=oracle, value=None))
    if balanced:
        smallest = min(taken[name] for name in table.labels)
        surplus = {name: taken[name] - smallest for name in table.labels}
        table.left_out[f"{split} balance"] = sum(surplus.values())
        rows = [row for row in rows if not _take_one(surplus, row["label"])]
    return rows


def _take_one(counts: dict[str, int], key: str) -> bool:
    """Lower a positive count by one; return whether it was positive."""
    if counts[key] == 0:
        return False
    counts[key] -= 1
    return True


# --- files -----------------------------------------------------------------------------------------------------------------------


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as JSON Lines, whole or not at all; return how many."""
    count = 0
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for example in examples:
            handle.write(json.dumps(example, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_examples(path: Path) -> list[Example]:
    """Read the examples of `instruct`, or plain Alpaca rows (JSON or JSON Lines), which get task and family `english`.

    Raises MissingFileError, or InputError with the row that lacks instruction or output.
    """
    return [_complete(row, f"{path}, row {number}") for number, row in enumerate(_read_rows(path), start=1)]


def _read_rows(path: Path) -> Iterator[Any]:
    if path.suffix == ".json":
        rows = read_json(path)
        if not isinstance(rows, list):
            raise InputError(f"{path} holds a JSON {type(rows).__name__}", "a list of Alpaca rows")
        yield from rows
        return
    if not path.is_file():
        raise MissingFileError(path, "a file of instructions (JSON or JSON Lines)")
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise InputError(
                        f"{path}, line {number}: {error.msg}", "one JSON object a line", "The file may be cut short"
                    ) from error


def _complete(row: Any, where: str) -> Example:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) and row[key].strip() for key in ("instruction", "output")):
        raise InputError(f"{where} has no text in instruction or output", "an Alpaca row (instruction, input, output)")
    text = row.get("input") or ""
    if not isinstance(text, str):
        raise InputError(f"{where}: input is a {type(text).__name__}", "text")
    return Example(
        task=row.get("task") or "english",
        family=row.get("family") or "english",
        split=row.get("split") or "train",
        instruction=row["instruction"],
        input=text,
        output=row["output"],
        labels=row.get("labels") or [],
        sequences=row.get("sequences") or [],
        kinds=row.get("kinds") or [],
        group=row.get("group") or "",
        oracle=row.get("oracle"),
        value=row.get("value"),
    )
