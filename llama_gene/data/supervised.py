"""Instructions become token rows: the loss is on the answer, and what is too long is shortened inside its sequences, never at the answer.

The reference code cut prompt + answer at 512 tokens on the right, so that long rows lost their answer and taught nothing (C16 of the
faults), and a pair lost its second sequence first. Here each sequence of a row keeps the same share of its letters, the largest share
that fits (found by interpolation, since tokens are not letters). The beginning of a sequence is kept; in structure questions the end, or by
residue the middle, which is what the question is about. Every shortened row says how many letters it lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llama_gene.data.instructions import Example
from llama_gene.data.prompts import encode_answer, encode_prompt, render_user
from llama_gene.data.structure import show_middle
from llama_gene.errors import InputError
from llama_gene.tokenization.tokenizer import encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
"""Hugging Face's label for tokens without loss."""
Loss = Literal["response", "full"]


@dataclass(frozen=True)
class EncodedExample:
    """One training row; `labels` are the ids where there is loss and -100 elsewhere, `num_shortened` the letters that were cut."""

    input_ids: list[int]
    labels: list[int]
    num_shortened: int


@dataclass(frozen=True)
class EncodedPrompt:
    """One question for evaluation; `num_shortened` is the number of letters that were cut."""

    input_ids: list[int]
    num_shortened: int


@dataclass(frozen=True)
class EncodedExamples:
    """Training rows and what happened to the rest: rows shortened, and rows that no shortening makes fit."""

    rows: list[EncodedExample]
    num_shortened: int
    num_rejected: int


def encode_example(
    tokenizer: PreTrainedTokenizerFast, example: Example, max_length: int, template: str = "alpaca", loss: Loss = "response"
) -> EncodedExample:
    """Return prompt + answer of at most `max_length` tokens, with loss on the answer (and EOS), or on every token with loss="full".

    Raises InputError when instruction and answer alone are too long, or the answer is empty: a row without a target teaches nothing.
    """
    row = _encode(tokenizer, example, max_length, template, loss)
    if row is None:
        raise InputError(
            f"a row of task '{example['task']}' does not fit {max_length} tokens even with its sequences cut away",
            "room for prompt and answer",
            "Raise max_length",
        )
    return row


def encode_examples(
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    max_length: int,
    template: str = "alpaca",
    loss: Loss = "response",
) -> EncodedExamples:
    """Return the training rows of many examples; rows that cannot fit are left out and counted."""
    fitting = [_encode(tokenizer, example, max_length, template, loss) for example in examples]
    rows = [row for row in fitting if row is not None]
    if examples and not rows:
        raise InputError(f"none of {len(examples)} examples fits {max_length} tokens", "room for prompt and answer", "Raise max_length")
    return EncodedExamples(rows, sum(row.num_shortened > 0 for row in rows), len(fitting) - len(rows))


def encode_for_evaluation(
    tokenizer: PreTrainedTokenizerFast, example: Example, max_length: int, template: str = "alpaca", shorten: bool = False
) -> EncodedPrompt | None:
    """Return the prompt of an example such that it and its longest label fit `max_length` tokens.

    Without `shorten`, a longer one gives None; with it, the sequences are shortened (None only if that is not enough). The caller counts.
    """
    answers = example["labels"] or [example["output"]]
    room = max_length - max(len(encode_answer(tokenizer, answer, template)) for answer in answers)
    prompt = _fit(tokenizer, example, room, template)
    return prompt if prompt is not None and (shorten or prompt.num_shortened == 0) else None


def encode_sequences(
    tokenizer: PreTrainedTokenizerFast, example: Example, max_length: int, encode_input: Callable[[str], list[int]] | None = None
) -> EncodedPrompt | None:
    """Return [BOS] sequences EOS, a pair joined by a newline, in at most `max_length` tokens: what a classification head reads.

    Longer ones are shortened as in a prompt (None if even that does not fit); the caller counts, or rejects by `num_shortened`.
    `encode_input` gives the ids of the joined sequences another way (an encoder's).
    """
    before = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    bare: Example = {**example, "input": "\n".join(example["sequences"])}
    encode = encode_input or (lambda text: [*before, *encode_text(tokenizer, text), tokenizer.eos_token_id])
    return _fit_input(bare, max_length, encode, _asks_about_middle(example))


def _encode(tokenizer: PreTrainedTokenizerFast, example: Example, max_length: int, template: str, loss: Loss) -> EncodedExample | None:
    """Return the training row, None where no shortening makes it fit."""
    if not example["output"]:
        raise InputError(f"a row of task '{example['task']}' has an empty output", "an answer")
    answer = encode_answer(tokenizer, example["output"], template)
    prompt = _fit(tokenizer, example, max_length - len(answer), template)
    if prompt is None:
        return None
    ids = prompt.input_ids + answer
    labels = list(ids) if loss == "full" else [IGNORED] * len(prompt.input_ids) + answer
    return EncodedExample(ids, labels, prompt.num_shortened)


def _fit(tokenizer: PreTrainedTokenizerFast, example: Example, room: int, template: str) -> EncodedPrompt | None:
    """Return the prompt in at most `room` tokens, its sequences shortened no more than needed; None if that is not possible."""
    instruction = example["instruction"]
    if example["input"] or not example["sequences"]:
        is_middle = _asks_about_middle(example)
        return _fit_input(
            example, room, lambda text: encode_prompt(tokenizer, render_user(instruction, text, template), template), is_middle
        )
    inside: Example = {**example, "input": instruction}  # the template that leaves the input empty holds the sequence in its instruction
    return _fit_input(inside, room, lambda text: encode_prompt(tokenizer, text, template))


def _fit_input(example: Example, room: int, encode_input: Callable[[str], list[int]], is_middle: bool = False) -> EncodedPrompt | None:
    """Return the ids of the input, shortened no more than needed for `room` tokens; None if that is not possible.

    With `is_middle` the letter in the middle of its one sequence is what stays longest.
    """
    sequences = example["sequences"] or ([example["input"]] if example["input"] else [])
    num_letters = sum(map(len, sequences))

    def encode(num_kept: int) -> list[int]:
        return encode_input(_shorten_input(example, sequences, num_kept, is_middle))

    ids = encode(num_letters)
    if len(ids) <= room:
        return EncodedPrompt(ids, 0)
    fits, fitting = len(sequences), encode(len(sequences))  # one letter of each is the least
    too_long, num_too_long = num_letters, len(ids)
    if not sequences or len(fitting) > room:
        return None
    # Tokens grow almost in proportion to letters, so interpolating between a length that fits and one that does not takes about four
    # encodings where halving takes a dozen (7 ms a row for proteins of 500 residues).
    while too_long - fits > 1 and len(fitting) < room:
        share = (room - len(fitting)) / (num_too_long - len(fitting))
        guess = min(max(fits + int(share * (too_long - fits)), fits + 1), too_long - 1)
        ids = encode(guess)
        if len(ids) <= room:
            fits, fitting = guess, ids
        else:
            too_long, num_too_long = guess, len(ids)
    return EncodedPrompt(fitting, num_letters - fits)


def _asks_about_middle(example: Example) -> bool:
    """Return whether an example asks about one residue: its window stands in the input with blanks around the middle."""
    return example["family"] == "structure" and bool(example["sequences"]) and example["sequences"][0] not in example["input"]


def _shorten_input(example: Example, sequences: Sequence[str], num_kept: int, is_middle: bool) -> str:
    """Return the input with `num_kept` letters left of its sequences, each keeping the same share (rounded, at least one letter)."""
    num_letters = sum(map(len, sequences))
    text = example["input"]
    if num_kept >= num_letters:
        return text
    if is_middle:
        return text.replace(*_around_middle(sequences[0], num_kept, is_shown=sequences[0] not in text))
    lengths: list[int] = []
    letters_before = 0
    for sequence in sequences:
        letters_before += len(sequence)
        lengths.append(max(1, num_kept * letters_before // num_letters - sum(lengths)))  # cumulative, so the parts add up to num_kept
    end = len(text)
    for sequence, length in zip(reversed(sequences), reversed(lengths), strict=True):  # from the end: solved examples may stand in front
        start = text.rindex(sequence, 0, end)
        kept = sequence[-length:] if example["family"] == "structure" else sequence[:length]
        text = text[:start] + kept + text[start + len(sequence) :]
        end = start
    return text


def _around_middle(window: str, num_kept: int, is_shown: bool) -> tuple[str, str]:
    """Return a window and its `num_kept` letters around the middle one, both with blanks around that where they are shown.

    >>> _around_middle("XXMKQDK", 4, is_shown=True)
    ('XXM K QDK', 'M K QD')
    """
    middle = len(window) // 2
    first = middle - (num_kept - 1) // 2
    kept = window[first : first + num_kept]
    if not is_shown:
        return window, kept
    return show_middle(window), f"{kept[: middle - first]} {window[middle]} {kept[middle - first + 1 :]}"


def count_tokens(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example], template: str = "alpaca") -> dict[str, int]:
    """Return min, median, p95 and max of the tokens of prompt and answer, uncut; {} without examples."""
    lengths = sorted(
        len(encode_prompt(tokenizer, render_user(example["instruction"], example["input"], template), template))
        + len(encode_answer(tokenizer, example["output"], template))
        for example in examples
    )
    if not lengths:
        return {}
    last = len(lengths) - 1
    return {"min": lengths[0], "median": lengths[last // 2], "p95": lengths[math.ceil(0.95 * last)], "max": lengths[-1]}
