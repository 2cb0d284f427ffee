"""Instructions -> a folder of task files for EleutherAI's lm-evaluation-harness, so that anyone can ask any model our questions.

One closed task gives two files: NAME.jsonl, a row {"prompt", "choices", "gold", "row", "group"} for each question, and NAME.yaml, which
tells `lm_eval --include_path FOLDER --tasks llama_gene` to score every choice behind the prompt (multiple_choice, accuracy, no examples).

The harness splits a question at the seam between context and continuation, and its seam has three traps. The text is cut such that none
of them is met (measured in tests/test_inference_harness.py):

1. It moves blanks at the end of the context to the front of the continuation, encodes context and whole apart, and takes
   ids(whole)[len(ids(context)):] as the continuation. A prompt that ends in ":\\n" loses its newline where ":\\n" is one token (LLaMA-3).
   So `prompt` ends with the last letter of the input, and each choice begins with the fixed text between input and answer
   ("\\n\\n### Response:\\n"). That adds the same log-likelihood to all choices of a row: the argmax and differences are ours.
2. It gives BOS only where the tokenizer's own post-processor does, and no EOS. With a tokenizer, BOS is written into the prompt and EOS
   into each choice, as the prompt contract has them (`prompts.py`): the ids are then ours. Without EOS a label that begins another
   ("EC 1.1" and "EC 1.1.2") would always be the likelier one, so such labels are refused.
3. What is longer than the model is cut off at the left, without a word in the results. With `max_length` such rows are left out and
   counted.

The texts are read from the columns as they stand (doc_to_text: prompt), never as Jinja templates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from llama_gene.data.prompts import encode_answer, encode_prompt, get_template, prompt_fingerprint, render_prompt, render_user
from llama_gene.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from llama_gene.data.instructions import Example

TAG = "llama_gene"
"""The harness's name for all our tasks together; each one is called llama_gene_NAME."""


@dataclass(frozen=True)
class HarnessTask:
    """A task as the harness reads it, and what was left out on the way."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    too_long: int = 0
    """Rows that do not fit max_length with their longest label."""
    other_ids: int = 0
    """Rows kept whose token ids, cut the harness's way, are not those of the prompt contract (counted with a tokenizer only)."""


def harness_task(
    name: str,
    examples: Sequence[Example],
    template: str = "alpaca",
    tokenizer: PreTrainedTokenizerFast | None = None,
    max_length: int | None = None,
) -> HarnessTask:
    """Return the rows of one closed task.

    Raises InputError for a task without a closed list of single answers, an answer that is not on the list, and, without a tokenizer, for
    a label that begins another one.
    """
    labels = closed_labels(name, examples)
    if tokenizer is None:
        _check_prefixes(name, labels)
    elif tokenizer.eos_token is None:
        raise InputError("the tokenizer has no end-of-sequence token", "an eos_token", "Set eos_token in its tokenizer_config.json")
    resolved = get_template(template)
    bos = "" if tokenizer is None else tokenizer.bos_token or ""
    eos = "" if tokenizer is None else str(tokenizer.eos_token)
    choices = [resolved.after + label + eos for label in labels]
    rows, too_long, other_ids = [], 0, 0
    for number, example in enumerate(examples):
        message = render_user(example["instruction"], example["input"], template)
        prompt = bos + render_prompt(message, template).removesuffix(resolved.after)
        if tokenizer is not None:
            ours = encode_prompt(tokenizer, message, template)
            answers = [encode_answer(tokenizer, label, template) for label in labels]
            if max_length is not None and len(ours) + max(map(len, answers)) > max_length:
                too_long += 1
                continue
            other_ids += any(split_ids(tokenizer, prompt, choice) != ours + answer for choice, answer in zip(choices, answers, strict=True))
        rows.append(
            {
                "prompt": prompt,
                "choices": choices,
                "gold": labels.index(example["output"]),
                "row": number,
                "group": example["group"],
            }
        )
    if not rows:
        raise InputError(f"no row of task '{name}' fits {max_length} tokens", "at least one", "Raise max_length")
    return HarnessTask(name, rows, too_long, other_ids)


def closed_labels(name: str, examples: Sequence[Example]) -> list[str]:
    """Return the list of labels that all rows of a closed, single-label task share. Raises InputError where there is none."""
    if not examples:
        raise InputError(f"task '{name}' has no row", "held-out rows", "Leave it out or choose another split")
    labels = list(examples[0]["labels"])
    if not labels or any(example.get("answers") for example in examples):
        raise InputError(f"task '{name}' has no closed list of single answers", "a multiple-choice task", "Leave it out with --tasks")
    for example in examples:
        if list(example["labels"]) != labels:
            raise InputError(f"rows of task '{name}' have different lists of labels", "one list a task", "Write the instructions again")
        if example["output"] not in labels:
            raise InputError(f"a row of task '{name}' has the answer '{example['output']}'", f"one of {', '.join(labels)}")
    return labels


def split_ids(tokenizer: PreTrainedTokenizerFast, context: str, continuation: str) -> list[int]:
    """Return the ids that the harness scores for a context and a continuation: ids(context) + ids(whole)[len(ids(context)):]."""
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    head: list[int] = tokenizer.encode(stripped, add_special_tokens=False)
    whole: list[int] = tokenizer.encode(stripped + continuation, add_special_tokens=False)
    return head + whole[len(head) :]


def write_task(task: HarnessTask, folder: Path, final: Path, facts: dict[str, Any]) -> None:
    """Write NAME.jsonl and NAME.yaml into `folder`; the YAML names the rows where they will lie, in `final`.

    The path is absolute, because the harness reads relative ones from where it is started.
    """
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in task.rows)
    (folder / f"{task.name}.jsonl").write_text(lines, encoding="utf-8")
    config = {
        "tag": TAG,
        "task": f"{TAG}_{task.name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(final.resolve() / f"{task.name}.jsonl")}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "num_fewshot": 0,
        # Not acc_norm: it divides by the letters of a choice, and ours share the text in front of the label.
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0, **facts},
    }
    (folder / f"{task.name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")


def template_facts(template: str) -> dict[str, str]:
    """Return what names the prompt in a task file."""
    return {"template": template, "prompt": prompt_fingerprint(template)}


def _check_prefixes(name: str, labels: Sequence[str]) -> None:
    """Raise InputError where one label begins another: without an end of sequence it could not lose."""
    for label in labels:
        for other in labels:
            if label != other and other.startswith(label):
                raise InputError(
                    f"label '{label}' of task '{name}' begins '{other}'",
                    "a tokenizer, whose end-of-sequence token closes each answer",
                    "Give --tokenizer",
                )
