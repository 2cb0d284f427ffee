"""What a visitor of the page gives becomes questions: a pasted text or an uploaded file, checked record by record.

A record that cannot be asked (a letter outside the alphabet, no partner in a pair, too long for the model) is refused with its reason and
counted, and the others are asked: nothing is shortened, repaired or left out unseen. What is wrong as a whole (no FASTA, too much of it)
is refused as a whole. An archive is unpacked no further than MAX_LETTERS_TOGETHER, whatever it claims to hold.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gene.data.askable import AskableTask, AskedRow, check_row
from llama_gene.errors import InputError
from llama_gene.inference.ask import LabelAnswer, encode_questions, too_long
from llama_gene.inference.scoring import context_length
from llama_gene.sequences.alphabet import get_alphabet
from llama_gene.sequences.files import open_bytes
from llama_gene.sequences.records import parse_records

SUFFIXES = (".fa", ".fasta", ".fna", ".ffn", ".faa", ".frn", ".txt", ".fa.gz", ".fasta.gz", ".fna.gz", ".ffn.gz", ".faa.gz", ".frn.gz")
MAX_UPLOAD_BYTES = 10 * 2**20
MAX_LETTERS_TOGETHER = 50 * 2**20  # characters of a file as it is unpacked

# Short sequences that many textbooks print: a start for whoever has none at hand.
_KNOWN = {
    "dna": (
        ("lac_promoter", "E. coli, the lac promoter and operator", "TTTACACTTTATGCTTCCGGCTCGTATGTTGTGTGGAATTGTGAGCGGATAACAATTTCACACAGGA"),
        ("alternating", "no gene: a repeat", "CA" * 33),
    ),
    "protein": (
        ("ubiquitin", "human ubiquitin", "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"),
        ("insulin_B", "human insulin, chain B", "FVNQHLCGSHLVEALYLVCGERGFFYTPKT"),
    ),
}


@dataclass(frozen=True)
class Refusal:
    """A record that is not asked, and why."""

    number: int
    """Its place among the questions, from 1."""
    name: str
    reason: str


@dataclass
class Questions:
    """The questions of one text or file, in order."""

    task: AskableTask
    rows: dict[int, AskedRow] = field(default_factory=dict)
    """Place among the questions, from 1 -> what is asked."""
    refused: list[Refusal] = field(default_factory=list)

    def refuse_too_long(self, model: Any, tokenizer: Any, template: str) -> None:
        """Refuse the rows that do not fit the model's context with their longest label."""
        numbers = list(self.rows)
        rows = [self.rows[number] for number in numbers]
        for place, need in too_long(model, *encode_questions(tokenizer, self.task, rows, template), rows).items():
            found = need.removeprefix(rows[place].name).strip()
            reason = f"{found}; the model reads {context_length(model):,}. It is never cut: give a shorter sequence."
            self.refused.append(Refusal(numbers[place], rows[place].name, reason))
            del self.rows[numbers[place]]
        self.refused.sort(key=lambda refusal: refusal.number)


def read_questions(task: AskableTask, text: str, path: Path | None, max_questions: int = 1000) -> Questions:
    """Return the questions of a pasted text or of an uploaded file.

    Raises InputError where both or neither are given, for a file of another type, for what is no FASTA, and for more than
    `max_questions`.
    """
    if path is not None and text.strip():
        raise InputError("a file is chosen and a text is pasted", "one of them", "Remove the file, or empty the box")
    if path is None and not text.strip():
        raise InputError("there is no sequence yet", "a FASTA file, or pasted sequences", "The button 'Example' puts one into the box")
    if path is not None:
        records = _records_of_file(path, max_questions * len(task.kinds))
    elif ">" in text:
        records = _records(text.strip().encode(), "the pasted text", max_questions * len(task.kinds))
    else:
        parts = [part for part in re.split(r"(?m)^\s*#{4,}\s*$", text) if part.strip()]
        records = [("pasted", part) for part in parts]
    return _questions(task, records, max_questions)


def example_text(task: AskableTask) -> str:
    """Return FASTA records that a task can be asked about: two sequences that textbooks print, or pairs of one of each kind."""
    choices = [_known(kind) for kind in task.kinds]
    records = [choice[(turn + place) % len(choice)] for turn in range(2) for place, choice in enumerate(choices)]
    return "\n".join(f">{name} {about}\n{sequence}" for name, about, sequence in records)


def is_accepted(name: str) -> bool:
    """Tell whether a file's name ends as one that may be uploaded.

    >>> is_accepted("Genes.FA"), is_accepted("genes.fa.gz"), is_accepted("genes.fa.html"), is_accepted("run.py")
    (True, True, False, False)
    """
    return name.lower().endswith(SUFFIXES)


def table_of(questions: Questions, answers: dict[int, LabelAnswer]) -> tuple[list[str], list[list[Any]]]:
    """Return the header and the rows of a batch: place, name, letters, tokens, answer, each label's probability, remark."""
    head = ["#", "record", "letters", "prompt tokens", "answer", *(f"p({label})" for label in questions.task.labels), "remark"]
    lines: list[list[Any]] = []
    for number, answer in answers.items():
        row = answer.row
        letters = "+".join(str(len(sequence)) for sequence in row.sequences)
        chances = [round(probability, 6) for probability in answer.probabilities]
        remarks = [*row.doubts, *(f"cites {words}" for words in (row.cited.neighbours if row.cited is not None else ()))]
        lines.append([number, row.name, letters, answer.prompt_tokens, answer.label, *chances, "; ".join(remarks)])
    empty = [""] * len(questions.task.labels)
    lines += [[refusal.number, refusal.name, "", "", "(refused)", *empty, refusal.reason] for refusal in questions.refused]
    return head, sorted(lines, key=lambda line: int(line[0]))


def write_table(path: Path, head: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    """Write a table as CSV. A cell that a spreadsheet would take for a formula gets a ' in front: a header of a file must not run there."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([_harmless(cell) for cell in head])
        writer.writerows([_harmless(cell) for cell in line] for line in lines)


def _harmless(cell: Any) -> Any:
    """Return a cell that no spreadsheet calculates."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _records_of_file(path: Path, limit: int) -> list[tuple[str, str]]:
    """Return (name, letters) of the records of an uploaded file."""
    if not is_accepted(path.name):
        raise InputError(
            f"'{path.name}' is not a FASTA file by its name", f"a name that ends in {', '.join(SUFFIXES)}", "Rename or convert it"
        )
    with open_bytes(path) as handle:
        content = handle.read(MAX_LETTERS_TOGETHER + 1)
    if len(content) > MAX_LETTERS_TOGETHER:
        raise InputError(
            f"'{path.name}' holds more than {MAX_LETTERS_TOGETHER // 2**20} MiB of text",
            "a smaller file",
            "Split it, or use `llama-gene evaluate`",
        )
    return _records(content, f"'{path.name}'", limit)


def _records(content: bytes, where: str, limit: int) -> list[tuple[str, str]]:
    """Return (name, letters) of the records of a FASTA text, of a long one those up to the first beyond `limit`.

    Raises InputError for anything else, FASTQ included.
    """
    if content.lstrip()[:1] == b"@":
        raise InputError(f"{where} is FASTQ", "FASTA", "Convert the reads to FASTA first")
    handle: Any = io.BufferedReader(io.BytesIO(content))
    records = []
    for record in parse_records(handle, where):
        records.append((record.id or "record without a name", record.sequence))
        if len(records) > limit:
            break
    return records


def _questions(task: AskableTask, records: Iterable[tuple[str, str]], max_questions: int) -> Questions:
    """Return records as questions, as many at a time as the task asks about."""
    given = list(records)
    size = len(task.kinds)
    groups = [given[start : start + size] for start in range(0, len(given), size)]
    if len(groups) > max_questions:
        raise InputError(f"there are more than {max_questions:,} questions", f"at most {max_questions:,} at a time", "Split the file")
    found = Questions(task)
    for number, group in enumerate(groups, start=1):
        name = " + ".join(dict.fromkeys(name for name, _ in group))
        if len(group) < size:
            reason = f"has no partner: task '{task.name}' asks about {size} sequences ({' and '.join(task.kinds)}), one after the other"
            found.refused.append(Refusal(number, name, reason))
            continue
        try:
            found.rows[number] = check_row(task, [sequence for _, sequence in group], name)
        except InputError as error:
            found.refused.append(Refusal(number, name, str(error).removeprefix(f"{name}: ").removeprefix(f"{name} ")))
    return found


def _known(kind: str) -> Sequence[tuple[str, str, str]]:
    """Return sequences of a kind: known ones, or, of an alphabet of the user's, its letters."""
    if kind in _KNOWN:
        return _KNOWN[kind]
    if kind == "rna":
        return [(name, f"{about}, as RNA", sequence.replace("T", "U")) for name, about, sequence in _KNOWN["dna"]]
    letters = get_alphabet(kind).letters
    return [("letters", f"the letters of {kind}, no real sequence", letters * 3), ("reversed", "the same, backwards", letters[::-1] * 3)]
