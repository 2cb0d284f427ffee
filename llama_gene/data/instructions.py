"""Task rows become instructions: by the template of their family (`templates`), and English for replay.

The input is the sequence (structure: the window of the residue, or one that ends in the token, that is asked about); the output is the
label's name, the structure's name, the function or the name of the value's bin; of a row with several labels their names, joined by ", ".

An example is a plain dict, one line of JSON. It keeps its sequences beside the text, because over-long ones are shortened inside the
sequence when the example is encoded, and the closed list of labels, because answers are scored by the likelihood of each label.

Train rows are asked in the template's words or, where the task has paraphrases, in words drawn with the seed; dev and test rows in the
template's, or all in held-out paraphrases that no train row was asked in.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from llama_gene.data.structure import (
    STATE_ORDER,
    StructureExample,
    residue_examples,
    show_middle,
    structure_examples,
    token_lengths,
    vote,
    vote_ceiling,
)
from llama_gene.data.task_rows import TaskRow
from llama_gene.data.tasks import SPLITS, Task, TaskTable, max_rows
from llama_gene.data.templates import render_input, render_instruction, render_paraphrase
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.runtime import read_json, whole_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Example", "build_examples", "read_examples", "render_input", "render_instruction", "write_examples"]


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
    """The sequences as they stand in `input` (by residue: without the blanks; template `dnahlm`: in `instruction`), in order."""
    kinds: list[str]
    group: str
    oracle: str | None
    """A simulator's noise-free answer."""
    value: float | None
    """The number behind a regression label."""
    answers: NotRequired[list[str]]
    """Rows with several labels: their names in the order of `labels`; `output` is these, joined by ", "."""
    strand: NotRequired[str]
    """"either" or "sense" for DNA and RNA, "" where no sequence has another strand."""
    subsets: NotRequired[list[str]]
    """Populations that are reported apart: "C1", "C2", "C3" of pairs, kinds of negatives."""
    source: NotRequired[str]
    """Where the row comes from, "FILE:ROW"; a question about a structure adds its residues, ":12" or ":12-14"."""
    evidence: NotRequired[list[str]]
    """Rows with neighbours in their instruction (`data.evidence`): what it cites; no field where nothing was asked."""


def build_examples(
    table: TaskTable,
    tokenizer: PreTrainedTokenizerFast | None = None,
    seed: int = 0,
    template: str = "default",
    held_out_paraphrases: bool = False,
) -> dict[str, list[Example]]:
    """Return a task's examples by split. A structure task by token needs the tokenizer, whose tokens it asks about.

    With `held_out_paraphrases` dev and test rows are asked in those of the task, where it has any. Paraphrases belong to the template
    `default`: `paper` and `dnahlm` are the papers' text alone. Raises ConfigError for a task by token without a tokenizer.
    """
    task = table.task
    if task.family == "structure" and task.form == "token" and tokenizer is None:
        raise ConfigError(f"task '{task.name}' asks about tokens and no tokenizer is given", "a tokenizer folder", "Set --tokenizer")
    examples = {}
    for split in SPLITS:
        rows: Iterable[TaskRow] = table.splits[split]
        if task.family == "structure":
            rows = _structure_rows(table, split, tokenizer, random.Random(f"{seed}/{task.name}/{split}/structure"))
        ask = _words(task, table.labels, split, template, held_out_paraphrases, random.Random(f"{seed}/{task.name}/{split}/words"))
        examples[split] = [_example(table, split, row, ask(row), template) for row in rows]
    return examples


def _example(table: TaskTable, split: str, row: TaskRow, instruction: str, template: str) -> Example:
    task = table.task
    text = render_input(task, row["sequences"], template)
    return Example(
        task=task.name,
        family=task.family,
        split=split,
        instruction=instruction,
        input=show_middle(text) if task.family == "structure" and task.form == "residue" else text,
        output=row["label"],
        labels=table.labels,
        sequences=row["sequences"],
        kinds=task.kinds,
        group=row["group"],
        oracle=row["oracle"],
        value=row["value"],
        answers=row.get("answers", []),
        strand=task.strand,
        subsets=row.get("subsets", []),
        source=row.get("source", ""),
    )


def _words(task: Task, labels: Sequence[str], split: str, template: str, held_out: bool, rng: random.Random) -> Callable[[TaskRow], str]:
    """Return what gives the instruction of each row of a split, in the order of the rows."""
    if template == "dnahlm":
        return lambda row: render_instruction(task, labels, template, row["sequences"][0])
    own = render_instruction(task, labels, template)
    if template != "default":
        return lambda row: own
    if split != "train":
        texts = [render_paraphrase(task, labels, text) for text in task.held_out_paraphrases] if held_out else []
    else:
        texts = [own, *(render_paraphrase(task, labels, text) for text in task.paraphrases)]
    return (lambda row: rng.choice(texts)) if len(texts) > 1 else (lambda row: texts[0] if texts else own)


def _structure_rows(table: TaskTable, split: str, tokenizer: PreTrainedTokenizerFast | None, rng: random.Random) -> list[TaskRow]:
    """Return one row a question about a residue or a token, from proteins drawn in random order, evenly many from each.

    Balanced splits take each structure up to its share of the cap (without a cap: as often as the rarest), so `left_out` counts the rest.
    """
    task, proteins = table.task, table.splits[split]
    limit, balanced = max_rows(task, split), task.balance_test if split == "test" else task.balance
    per_protein = min(task.per_protein, -(-limit // len(proteins))) if limit is not None and proteins else task.per_protein
    quota = limit // len(table.labels) if limit is not None and balanced else None
    taken: Counter[str] = Counter()
    rows: list[TaskRow] = []
    for number in rng.sample(range(len(proteins)), len(proteins)):
        wanted = [name for name in table.labels if quota is None or taken[name] < quota]
        if not wanted or (limit is not None and len(rows) >= limit):
            break
        protein = proteins[number]
        for question in _questions(task, protein, tokenizer, per_protein, rng, wanted):
            if (quota is not None and taken[question.label] >= quota) or (limit is not None and len(rows) >= limit):
                continue
            taken[question.label] += 1
            oracle = vote(protein["oracle"][question.start : question.end], *_naming(task)) if protein["oracle"] else None
            group = protein["group"] or f"{split}-{number}"  # questions about one protein are not independent rows
            row = TaskRow(sequences=[question.window], label=question.label, group=group, oracle=oracle, value=None)
            place = f"{question.start + 1}-{question.end}" if task.form == "token" else str(question.start + 1)
            row["source"], row["subsets"] = f"{protein.get('source', '')}:{place}", protein.get("subsets", [])
            rows.append(row)
    if balanced:
        smallest = min(taken[name] for name in table.labels)
        surplus = {name: taken[name] - smallest for name in table.labels}
        table.left_out[f"{split} balance"] = sum(surplus.values())
        rows = [row for row in rows if not _take_one(surplus, row["label"])]
    if task.form == "token" and split != "train" and tokenizer is not None:
        ceiling = vote_ceiling(((row["label"], token_lengths(tokenizer, row["sequences"][0])) for row in proteins), *_naming(task))
        table.vote_ceiling |= {split: ceiling} if ceiling is not None else {}
    return rows


def _questions(
    task: Task, protein: TaskRow, tokenizer: PreTrainedTokenizerFast | None, per_protein: int, rng: random.Random, wanted: list[str]
) -> list[StructureExample]:
    """Return the questions about one protein in the task's form."""
    sequence, states = protein["sequences"][0], protein["label"]
    names, order = _naming(task)
    if task.form == "residue" or tokenizer is None:
        return residue_examples(sequence, states, task.window, per_protein, rng, wanted, names, task.kinds[0])
    return structure_examples(sequence, states, token_lengths(tokenizer, sequence), per_protein, rng, wanted, names, order)


def _naming(task: Task) -> tuple[dict[str, str], Sequence[str]]:
    """Return the names of a structure task's states and the order that decides ties."""
    names = task.state_names()
    return names, task.tie_order or (list(names) if task.labels else STATE_ORDER)


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
    example = Example(
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
        answers=row.get("answers") or [],
        strand=row.get("strand") or "",
        subsets=row.get("subsets") or [],
        source=row.get("source") or "",
    )
    return example if row.get("evidence") is None else {**example, "evidence": row["evidence"]}
