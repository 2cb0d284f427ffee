"""Few-shot questions: K solved train rows in front of each dev and test question.

The shots of a question are drawn from the train rows of its task with the seed, one label after another in a drawn order, so that no label
is shown more than once more than another (free text: any rows). They stand in the instruction as whole turns of the prompt, so that every
reader of an example (training, scoring, an endpoint, the chat) sees them without knowing of them:

    {instruction}

    ### Input:
    {input of a train row}

    ### Response:
    {its answer}

    ### Instruction:
    {instruction}

With a tokenizer and a limit, shots are left out from the last on until question and longest answer fit; how many stay is counted.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llama_gene.data.instructions import Example
from llama_gene.data.prompts import encode_answer, encode_prompt, get_template, render_user
from llama_gene.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def add_shots(
    examples: dict[str, list[Example]],
    num_shots: int,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    max_tokens: int | None = None,
) -> dict[str, dict[int, int]]:
    """Put `num_shots` solved train rows in front of every dev and test question (in place); return {split: {shots: rows}}.

    `max_tokens` needs the tokenizer. Raises InputError for a task without train rows.
    """
    if not examples["train"]:
        names = {example["task"] for split in ("dev", "test") for example in examples[split]}
        raise InputError(f"task '{min(names, default='')}' has no train row to show", "train rows", "Set --shots 0, or give it train files")
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples["train"]:
        by_label[example["output"] if example["labels"] else ""].append(example)
    counts: dict[str, dict[int, int]] = {}
    for split in ("dev", "test"):
        rng = random.Random(f"{seed}/{examples['train'][0]['task']}/{split}/shots")
        shown: Counter[int] = Counter()
        for example in examples[split]:
            shots = _draw(by_label, num_shots, rng)
            instruction = _with_shots(example, shots)
            while shots and max_tokens is not None and tokenizer is not None and _length(tokenizer, example, instruction) > max_tokens:
                shots.pop()
                instruction = _with_shots(example, shots)
            example["instruction"] = instruction
            shown[len(shots)] += 1
        counts[split] = dict(sorted(shown.items()))
    return counts


def _draw(by_label: dict[str, list[Example]], num_shots: int, rng: random.Random) -> list[Example]:
    """Return train rows, label by label in a drawn order, no row twice; fewer where train has no more."""
    labels = sorted(by_label)
    rng.shuffle(labels)
    wanted: Counter[str] = Counter()
    while sum(wanted.values()) < num_shots:
        free = [label for label in labels if wanted[label] < len(by_label[label])]
        if not free:
            break
        wanted.update(free[: num_shots - sum(wanted.values())])
    shots = [shot for label in labels for shot in rng.sample(by_label[label], wanted[label])]
    rng.shuffle(shots)
    return shots


def _with_shots(example: Example, shots: Sequence[Example]) -> str:
    """Return the instruction of an example behind solved ones, asked in its own words where these do not hold the sequence."""
    template = get_template()
    turn = template.before[template.before.rindex("\n\n") :]  # what opens an instruction, without the prompt's first lines
    parts = []
    for shot in shots:
        asked = example["instruction"] if shot["input"] else shot["instruction"]
        parts.append(render_user(asked, shot["input"]) + template.after + shot["output"] + turn)
    return "".join(parts) + example["instruction"]


def _length(tokenizer: PreTrainedTokenizerFast, example: Example, instruction: str) -> int:
    """Return the tokens of a question and its longest answer."""
    answers = example["labels"] or [example["output"]]
    longest = max(len(encode_answer(tokenizer, answer)) for answer in answers)
    return len(encode_prompt(tokenizer, render_user(instruction, example["input"]))) + longest
