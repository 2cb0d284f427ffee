"""Stage 5, `instruct`: task tables become Alpaca instructions for train, dev and test, with a manifest that counts everything."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gene.data.instructions import Example, build_examples, read_examples, render_instruction, write_examples
from llama_gene.data.tasks import SPLITS, Task, TaskTable, load_task, read_task, sequence_key
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.runtime import file_hash, get_logger, whole_dir, write_manifest
from llama_gene.sequences.files import expand_paths

_YAML_SUFFIXES = (".yaml", ".yml")


@dataclass
class Config:
    """Labelled tables to instructions."""

    tasks: list[Path] = field(default_factory=list)
    """YAML files of tasks, folders of them, or globs."""
    output_dir: Path | None = None
    """Folder for train.jsonl, dev.jsonl, test.jsonl and manifest.json."""
    data_dir: Path | None = None
    """Folder that the paths in the YAML files are relative to; by default the folder of each YAML file."""
    tokenizer: Path | None = None
    """Tokenizer folder; needed when a structure task is among the tasks, because its questions are about tokens."""
    seed: int = 0
    """Seed of splits, caps and drawn tokens."""
    max_train: int | None = None
    """At most this many training rows a task, whatever the task's YAML says."""
    max_dev: int | None = None
    """The same for development rows."""
    max_test: int | None = None
    """The same for test rows."""
    english_inputs: list[Path] = field(default_factory=list)
    """Alpaca files (JSON or JSON Lines) of English instructions that are mixed into train, so that English is not forgotten."""
    max_english: int | None = None
    """At most this many English instructions, drawn with the seed."""


def run(config: Config) -> Path:
    """Write the instructions of all tasks and return the output folder.

    The same config gives the same bytes. Raises ConfigError for a missing flag, two tasks of one name, or a structure task without a
    tokenizer; InputError and MissingFileError for tables that cannot be read. Nothing is left behind by a run that fails.
    """
    from llama_gene.tokenization.tokenizer import vocabulary_fingerprint

    output_dir = _require(config.output_dir, "output_dir")
    if not config.tasks:
        raise ConfigError("no tasks are given", "YAML files of tasks", "Set --tasks")
    tasks = _read_tasks(config)
    tokenizer = _load_tokenizer(config, [task for task, _ in tasks])
    logger = get_logger(__name__)
    by_split: dict[str, list[Example]] = {split: [] for split in SPLITS}
    entries: dict[str, Any] = {}
    for task, data_dir in tasks:
        table = load_task(task, data_dir, config.seed)
        examples = build_examples(table, tokenizer, config.seed)
        if not examples["test"]:
            raise InputError(f"task '{task.name}' has no test example left", "at least one", "Raise max_test or give more rows")
        entries[task.name] = _describe(table, examples, data_dir)
        for split in SPLITS:
            by_split[split] += examples[split]
        counts = ", ".join(f"{split} {len(examples[split])}" for split in SPLITS)
        logger.info("%s (%s): %s", task.name, task.family, counts)
    for name, shared in _shared_with_tests(by_split).items():
        entries[name]["train_sequences_in_other_tests"] = shared
    english = _read_english(config)
    by_split["train"] += english
    with whole_dir(output_dir) as folder:
        for split in SPLITS:
            write_examples(folder / f"{split}.jsonl", by_split[split])
        write_manifest(
            folder, "instruct", config,
            tasks=entries,
            num_english=len(english),
            num_rows={split: len(by_split[split]) for split in SPLITS},
            vocabulary=None if tokenizer is None else vocabulary_fingerprint(tokenizer),  # whose tokens the structure questions are about
        )  # fmt: skip
    logger.info("wrote %s", output_dir)
    return output_dir


def input_files(config: Config) -> list[Path]:
    """Return every file that a run reads: YAML files, tables, English instructions. Raises MissingFileError for a missing one."""
    files = [path for path in expand_paths(config.tasks) if path.suffix in _YAML_SUFFIXES]
    for task, data_dir in _read_tasks(config):
        files += expand_paths([data_dir / name for name in task.table_names()])
    return files + (expand_paths(config.english_inputs) if config.english_inputs else [])


def _require(path: Path | None, flag: str) -> Path:
    if path is None:
        raise ConfigError(f"{flag} is not set", "a folder", f"Set --{flag}")
    return path


def _read_tasks(config: Config) -> list[tuple[Task, Path]]:
    """Return each task with the folder that its paths are relative to."""
    found: dict[str, tuple[Task, Path]] = {}
    for path in expand_paths(config.tasks):
        if path.suffix not in _YAML_SUFFIXES:
            continue
        task = read_task(path)
        if task.name in found:
            raise ConfigError(f"{path}: a second task is called '{task.name}'", "one name a task", "Rename one")
        for split in SPLITS:
            if (limit := getattr(config, f"max_{split}")) is not None:
                setattr(task, f"max_{split}", limit)
        found[task.name] = (task, config.data_dir or path.parent)
    if not found:
        raise MissingFileError(", ".join(map(str, config.tasks)), "YAML files of tasks", "Check --tasks")
    return list(found.values())


def _load_tokenizer(config: Config, tasks: Iterable[Task]) -> Any:
    """Return the tokenizer if a task asks about tokens; None if none does."""
    structure = [task.name for task in tasks if task.family == "structure"]
    if not structure:
        return None
    if config.tokenizer is None:
        raise ConfigError(f"task '{structure[0]}' asks about tokens and no tokenizer is given", "a tokenizer folder", "Set --tokenizer")
    from llama_gene.tokenization.tokenizer import load_tokenizer  # transformers takes seconds to import

    return load_tokenizer(config.tokenizer)


def _read_english(config: Config) -> list[Example]:
    """Return the English instructions for replay, a seeded draw where there are more than max_english."""
    rows: list[Example] = []
    for path in expand_paths(config.english_inputs) if config.english_inputs else []:
        rows += read_examples(path)
    if config.max_english is not None and len(rows) > config.max_english:
        rows = random.Random(f"{config.seed}/english").sample(rows, config.max_english)
    return rows


def _describe(table: TaskTable, examples: dict[str, list[Example]], data_dir: Path) -> dict[str, Any]:
    """Return a task's entry in the manifest."""
    task = table.task
    test = Counter(example["output"] for example in examples["test"])
    answered = [example for example in examples["test"] if example["oracle"] is not None]
    return {
        "family": task.family,
        "title": task.title,
        "kinds": task.kinds,
        "instruction": render_instruction(task, table.labels),
        "labels": table.labels,
        "num_rows": {split: len(examples[split]) for split in SPLITS},
        "class_balance": {split: dict(Counter(example["output"] for example in examples[split]).most_common(50)) for split in SPLITS},
        "majority": max(test.values()) / len(examples["test"]),
        "ceiling": sum(example["oracle"] == example["output"] for example in answered) / len(answered) if answered else None,
        "published": task.published,
        "simulated": task.simulated,
        "rejected": table.rejected,
        "duplicates_removed": table.duplicates_removed,
        "left_out": table.left_out,
        "bins": table.bins,
        "files": {name: file_hash(data_dir / name) for name in task.table_names()},
    }


def _shared_with_tests(by_split: dict[str, list[Example]]) -> dict[str, int]:
    """Return, for each task, how many of its train sequences stand in another task's test (under another question, so they are kept)."""
    keys: dict[str, dict[str, set[str]]] = {}
    for split in ("train", "test"):
        for example in by_split[split]:
            own = keys.setdefault(example["task"], {"train": set(), "test": set()})[split]
            own.update(sequence_key(kind, sequence) for kind, sequence in zip(example["kinds"], example["sequences"], strict=True))
    return {
        name: len(own["train"] & set().union(*(other["test"] for other_name, other in keys.items() if other_name != name)))
        for name, own in keys.items()
    }
