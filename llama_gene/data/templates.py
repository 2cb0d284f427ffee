"""The words of an instruction: named templates for the five families, and paraphrases.

`default`: the template lines of LLaMA-Gene 2.2.2 (classification with the full stop of its example and of most of the authors' own rows):

    classification, structure, regression
        Determine the {title} of following {kind} sequence, The result will be one of the following: {labels}
    pair
        Determine the {title} of following {kind1} sequence and {kind2} sequence , The result will be one of the following: {labels}
    function
        Determine {title} of following {kind} sequence.

A classification whose rows may carry several labels says "one or more of the following" (ours). The input is the sequence; for a pair
`DNA sequence: ...`, a line `####` and `protein sequence: ...`; for a residue of a structure its window (see `structure`).

`paper`: where the paper's template and its example differ, the authors' committed rows decide. They are not alike (core promoter has no
"the", splice no full stop, promoter two blanks), so the text of those tasks is data: `paper_instruction` in the YAML, to the letter.
Tasks without a committed row keep the template line. A pair's input has the blanks of the template line.

`dnahlm`: the second form of DNAHLM 2.2, for a choice of two, with the sequence inside the instruction and an empty input:

    Determine whether the {title} of following DNA sequence {sequence} answer with {label1} or {label2}

All texts are the papers' to the letter, odd spaces and all (`dna` in small letters except in pairs, regression and `dnahlm`, as there),
so that the authors' published test rows are asked in the same words. The *prompt* around an instruction (Alpaca's) is another thing:
`prompts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llama_gene.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from llama_gene.data.tasks import Task

TEMPLATES = ("default", "paper", "dnahlm")
_RESULT = "The result will be one of the following: "
_RESULTS = "The result will be one or more of the following: "
"""Several labels a row: ours, the papers have none."""
# Families whose template writes DNA and RNA in capitals.
_CAPITALS = ("pair", "regression")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


def check_template(name: str) -> None:
    """Raise ConfigError for a template that does not exist, naming the nearest."""
    if name not in TEMPLATES:
        raise ConfigError(f"template '{name}' is not known", f"one of {', '.join(TEMPLATES)}", did_you_mean(name, TEMPLATES))


def check_paraphrases(texts: Sequence[str], num_kinds: int, where: str) -> None:
    """Raise ConfigError for an empty paraphrase, one that stands twice (held-out words would be trained on), or an unknown placeholder."""
    known = {"title", "labels", *(("kind",) if num_kinds == 1 else ("kind1", "kind2"))}
    for text in texts:
        if not text.strip():
            raise ConfigError(f"{where} has an empty paraphrase", "a text", "Remove it")
        if texts.count(text) > 1:
            raise ConfigError(f"{where} has the paraphrase '{text}' twice", "each once, trained on or held out", "Remove one")
        if unknown := sorted(set(_PLACEHOLDER.findall(text)) - known):
            raise ConfigError(
                f"{where}: paraphrase '{text}' has {{{unknown[0]}}}", f"{', '.join(f'{{{name}}}' for name in sorted(known))}", "Mend it"
            )


def render_instruction(task: Task, labels: Sequence[str], template: str = "default", sequence: str = "{sequence}") -> str:
    """Return the instruction of a task, by a template and its family; `sequence` is what `dnahlm` holds.

    Raises ConfigError for `dnahlm` where the task is no choice of two about one sequence.

    >>> from llama_gene.data.tasks import Task
    >>> promoter = Task(name="core", title="core promoter detection", family="classification", strand="sense", test=["t.csv"])
    >>> render_instruction(promoter, ["Non-promoter", "promoter"])[:59]
    'Determine the core promoter detection of following dna sequ'
    >>> render_instruction(promoter, ["Non-promoter", "promoter"], "dnahlm", "ACGT")[-57:]
    'ng DNA sequence ACGT answer with Non-promoter or promoter'
    """
    check_template(template)
    if template == "dnahlm":
        return _choice_of_two(task, labels, sequence)
    if template == "paper" and task.paper_instruction:
        return task.paper_instruction
    kinds = _kind_names(task)
    if task.family == "function":
        return f"Determine {task.title} of following {kinds[0]} sequence."
    names = (_RESULTS if task.multi_label else _RESULT) + ", ".join(labels)
    if task.family == "pair":
        return f"Determine the {task.title} of following {kinds[0]} sequence and {kinds[1]} sequence , {names}"
    return f"Determine the {task.title} of following {kinds[0]} sequence, {names}" + ("." if task.family == "classification" else "")


def render_paraphrase(task: Task, labels: Sequence[str], text: str) -> str:
    """Return a paraphrase with its placeholders filled in. Raises ConfigError for {labels} where the answers are no closed list."""
    if "{labels}" in text and not labels:
        raise ConfigError(
            f"task '{task.name}': paraphrase '{text}' has {{labels}} and the answers are free text", "words without {labels}", "Mend it"
        )
    kinds = _kind_names(task)
    values = {"title": task.title, "labels": ", ".join(labels), "kind": kinds[0], "kind1": kinds[0], "kind2": kinds[-1]}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def render_input(task: Task, sequences: Sequence[str], template: str = "default") -> str:
    """Return the input of a row: its sequence, or both of a pair under their kinds; nothing with `dnahlm`, whose instruction holds it."""
    if template == "dnahlm":
        return ""
    if task.family != "pair":
        return sequences[0]
    named = [f"{_spoken(kind, True)} sequence: {sequence}" for kind, sequence in zip(task.kinds, sequences, strict=True)]
    return f" {named[0]} \n####\n{named[1]} " if template == "paper" else "\n####\n".join(named)


def _choice_of_two(task: Task, labels: Sequence[str], sequence: str) -> str:
    """Return DNAHLM's second form."""
    if task.family not in ("classification", "regression") or task.multi_label or len(labels) != 2:
        what = f"a {task.family} task" if task.family not in ("classification", "regression") else f"{len(labels)} labels"
        raise ConfigError(
            f"task '{task.name}': {what} with template dnahlm", "one sequence and two labels", "Use template default or paper"
        )
    kind = _spoken(task.kinds[0], True)
    return f"Determine whether the {task.title} of following {kind} sequence {sequence} answer with {labels[0]} or {labels[1]}"


def _kind_names(task: Task) -> list[str]:
    return [_spoken(kind, task.family in _CAPITALS) for kind in task.kinds]


def _spoken(kind: str, capitals: bool) -> str:
    return kind.upper() if capitals and kind in ("dna", "rna") else kind
