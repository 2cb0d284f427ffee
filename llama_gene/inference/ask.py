"""Ask a task of sequences: the probability of each of its labels, the same numbers in chat, on the page and from the server.

N questions, K labels. Prompts are rendered by the template that the model was tuned with, labels are encoded with their EOS, and a label's
probability is the softmax of `score_labels` over the task's labels alone: an answer can never be off the list. A question that does not fit
the model's context with its longest label is refused with the numbers; it is never cut. With evidence (`with_citations`) its neighbours
stand behind the instruction, as many as fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from transformers import PreTrainedModel

from llama_gene.data.askable import AskableTask, AskedRow
from llama_gene.data.evidence import EvidenceSource, cite_for, prompt_fits
from llama_gene.data.prompts import encode_answer, encode_prompt
from llama_gene.errors import InputError
from llama_gene.inference.scoring import context_length, score_labels


class TooLongError(InputError):
    """Questions that do not fit the model's context: `rows` says of each, by its number, what it needs."""

    rows: dict[int, str]


@dataclass(frozen=True)
class LabelAnswer:
    """One question's answer."""

    row: AskedRow
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    """Of each label, in the task's order; their sum is 1."""
    log_likelihoods: tuple[float, ...]
    """Of each label with its EOS behind the prompt, in nats."""
    prompt_tokens: int

    @property
    def label(self) -> str:
        """The likeliest label (the first of equals)."""
        return self.labels[int(np.argmax(self.probabilities))]

    @property
    def probability(self) -> float:
        """The likeliest label's probability."""
        return max(self.probabilities)

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as JSON has it; `evidence` where an index was asked."""
        cited = {} if self.row.cited is None else {"evidence": list(self.row.cited.neighbours)}
        return {
            "name": self.row.name,
            "label": self.label,
            "probabilities": dict(zip(self.labels, self.probabilities, strict=True)),
            "log_likelihoods": dict(zip(self.labels, self.log_likelihoods, strict=True)),
            "prompt_tokens": self.prompt_tokens,
            "doubts": list(self.row.doubts),
            **cited,
        }


def ask(
    model: PreTrainedModel,
    tokenizer: Any,
    task: AskableTask,
    rows: Sequence[AskedRow],
    template: str = "alpaca",
    batch_tokens: int = 16384,
    progress: bool = False,
) -> list[LabelAnswer]:
    """Return the answer to each question, in order. `rows` come from `check_row`, `read_pasted` or `read_rows_of`.

    Raises TooLongError that names each question that does not fit the model's context: all are asked or none.
    """
    prompts, labels = check_room_for(model, tokenizer, task, rows, template)
    scores: NDArray[np.float64] = score_labels(model, prompts, labels, batch_tokens, vocab_size=len(tokenizer), progress=progress)
    chances = softmax(scores, axis=1) if len(rows) else scores
    return [
        LabelAnswer(row, task.labels, tuple(chances_K.tolist()), tuple(scores_K.tolist()), len(prompt))
        for row, chances_K, scores_K, prompt in zip(rows, chances, scores, prompts, strict=True)
    ]


def check_room_for(
    model: PreTrainedModel, tokenizer: Any, task: AskableTask, rows: Sequence[AskedRow], template: str = "alpaca"
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the token ids of prompts and labels. Raises as `ask`, before anything is asked."""
    prompts, labels = encode_questions(tokenizer, task, rows, template)
    if faults := too_long(model, prompts, labels, rows):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        found = next(iter(faults.values())) + more
        error = TooLongError(found, f"at most the model's {context_length(model):,}", "It is never cut: send less")
        error.rows = faults
        raise error
    return prompts, labels


def with_citations(
    model: PreTrainedModel,
    tokenizer: Any,
    task: AskableTask,
    rows: Sequence[AskedRow],
    source: EvidenceSource | None,
    template: str = "alpaca",
) -> list[AskedRow]:
    """Return the rows with what their prompts cite, the same as `evaluate --evidence` puts there; unchanged without a source.

    A row that fits the model's context fits it with its citations.
    """
    if source is None:
        return list(rows)
    limit = context_length(model)
    fits = prompt_fits(tokenizer, limit, template) if limit is not None else None
    return [
        replace(row, cited=cite_for(*task.words_for(row.sequences), row.sequences, task.kinds, source, fits, task.labels)) for row in rows
    ]


def encode_questions(
    tokenizer: Any, task: AskableTask, rows: Sequence[AskedRow], template: str = "alpaca"
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the token ids of the prompts (N) and of the labels (K), as `score_labels` takes them."""
    prompts = [encode_prompt(tokenizer, task.user_message(row.sequences, template, row.block), template) for row in rows]
    return prompts, [encode_answer(tokenizer, label, template) for label in task.labels]


def too_long(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], rows: Sequence[AskedRow]
) -> dict[int, str]:
    """Return question number -> what it needs, for those that do not fit the model's context with their longest label."""
    limit, longest = context_length(model), max(map(len, labels))
    return {
        number: (
            f"{row.name} ({sum(map(len, row.sequences)):,} letters) needs {len(prompt) + longest:,} tokens, {len(prompt):,} of prompt and "
            f"{longest:,} of the longest label"
        )
        for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
        if limit is not None and len(prompt) + longest > limit
    }
