"""instruct harness: the closed tasks of an instruction folder as task files of lm-evaluation-harness, with everything left out counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError

if TYPE_CHECKING:
    from llama_gene.data.instructions import Example

STAGE = "instruct harness"


@dataclass
class Config:
    """instruct harness: our questions for anyone's harness."""

    instructions: Path | None = None
    """Folder written by `llama-gene instruct`."""
    output_dir: Path | None = None
    """Folder to write, for `lm_eval --include_path`. Do not move it: the task files name their rows by absolute paths."""
    tasks: list[str] = field(default_factory=list)
    """Names of the tasks to export; empty: all closed ones."""
    split: Literal["test", "dev"] = "test"
    """Rows to export."""
    template: str = "alpaca"
    """Prompt template."""
    tokenizer: str | None = None
    """Tokenizer folder of the model that will be asked: its BOS and EOS are written into the texts, and the token ids are compared with
    ours. Unset: plain text for any model, without EOS."""
    max_length: int | None = None
    """Leave out (and count) rows longer than this many tokens, with the tokenizer's; the harness would cut them off at the left."""


def run(config: Config) -> Path:
    """Write the folder and return it. Raises ConfigError, InputError and MissingFileError for what cannot be exported."""
    if config.instructions is None or config.output_dir is None:
        raise ConfigError("instructions or output_dir is not given", "--instructions and --output_dir")
    if config.max_length is not None and config.tokenizer is None:
        raise ConfigError("max_length is given without a tokenizer", "both: tokens are counted with it", "Add --tokenizer")
    from llama_gene.data.harness_tasks import harness_task, template_facts, write_task
    from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint

    runtime.check_inputs_outside(config.output_dir, [config.instructions])
    chosen, left_out = _read(config, config.instructions)
    tokenizer = load_tokenizer(config.tokenizer) if config.tokenizer is not None else None
    vocabulary = None if tokenizer is None else vocabulary_fingerprint(tokenizer)
    entries: dict[str, Any] = {}
    with runtime.whole_dir(config.output_dir) as folder:
        for name, examples in chosen.items():
            task = harness_task(name, examples, config.template, tokenizer, config.max_length)
            write_task(
                task, folder, config.output_dir, {**template_facts(config.template), "split": config.split, "vocabulary": vocabulary}
            )
            entries[name] = {"rows": len(task.rows), "too_long": task.too_long, "other_ids": task.other_ids}
            if task.other_ids:
                runtime.get_logger().warning("%s: %s rows have other token ids in the harness than here", name, f"{task.other_ids:,}")
        runtime.write_manifest(
            folder, STAGE, config, tasks=entries, left_out=left_out, vocabulary=vocabulary, **template_facts(config.template)
        )
    counts = ", ".join(f"{name} {facts['rows']:,}" for name, facts in entries.items())
    runtime.get_logger().info("%s: %s rows; left out: %s; written to %s", STAGE, counts, ", ".join(left_out) or "none", config.output_dir)
    return config.output_dir


def _read(config: Config, instructions: Path) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """Return the rows of the tasks to export, and why the other ones are left out. A task asked for by name is never left out."""
    from llama_gene.data.instructions import read_examples

    known: dict[str, Any] = runtime.read_manifest(instructions, "instruct")["tasks"]
    for name in config.tasks:
        if name not in known:
            raise ConfigError(f"there is no task '{name}' in {instructions}", f"one of {', '.join(known)}", "Check --tasks")
    chosen: dict[str, list[Example]] = {name: [] for name in config.tasks or known}
    for example in read_examples(instructions / f"{config.split}.jsonl"):
        if example["task"] in chosen:
            chosen[example["task"]].append(example)
    left_out: dict[str, str] = {}
    if not config.tasks:
        for name, examples in chosen.items():
            if not examples:
                left_out[name] = f"no {config.split} row"
            elif not examples[0]["labels"]:
                left_out[name] = "free text"
            elif any(example.get("answers") for example in examples):
                left_out[name] = "several answers to a question"
    chosen = {name: examples for name, examples in chosen.items() if name not in left_out}
    if not chosen:
        raise InputError(f"{instructions} has no task with a closed list of answers", "at least one", "Choose another folder")
    return chosen, left_out
