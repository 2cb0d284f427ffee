"""Stage 5, `instruct`: task tables become Alpaca instructions for train, dev and test, with a manifest that counts everything."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llama_gene.data.few_shot import add_shots
from llama_gene.data.instructions import Example, build_examples, read_examples, render_instruction, write_examples
from llama_gene.data.split_audit import train_relatives
from llama_gene.data.tables import table_files, table_hash
from llama_gene.data.tasks import SPLITS, Task, TaskTable, load_task, read_task, sequence_key, set_caps
from llama_gene.data.templates import check_template
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.runtime import get_logger, whole_dir, write_manifest
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
    """Tokenizer folder; needed for structure tasks by token, whose questions are about its tokens. With one, the manifest says how many
    tokens the rows have."""
    seed: int = 0
    """Seed of splits, caps, drawn residues and tokens, words and shots."""
    template: str = "default"
    """Words of the instructions: default, paper (the papers' own rows to the letter) or dnahlm (a choice of two, the sequence inside the
    instruction). The prompt around an instruction is chosen in `sft` and `evaluate`."""
    held_out_paraphrases: bool = False
    """Ask dev and test rows in the paraphrases that the tasks hold out, to measure whether a model knows the task or the words."""
    shots: int = 0
    """So many solved train rows in front of each dev and test question, evenly many of each label."""
    shots_max_tokens: int | None = None
    """At most so many tokens of question, shots and answer; shots beyond are left out and counted. Needs the tokenizer."""
    audit: Literal["none", "exact", "similar"] = "exact"
    """Count the test rows that share exact runs with a train row of their task, or also those with a relative by alignment (up to ten
    seconds a task for 4,000 train rows)."""
    evidence: Path | None = None
    """Folder written by `llama-gene index`: the nearest annotated sequences of each row stand behind its instruction, in every split."""
    evidence_max_identity: float = 1.0
    """Records with an alignment above this share of equal letters are passed over, so that no row is answered by its own copy."""
    evidence_hits: int = 3
    """At most so many neighbours a sequence."""
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
    check_template(config.template)
    tasks = _read_tasks(config)
    _check_words(config, [task for task, _ in tasks])
    tokenizer = _load_tokenizer(config, [task for task, _ in tasks])
    add = _evidence(config)
    logger = get_logger(__name__)
    by_split: dict[str, list[Example]] = {split: [] for split in SPLITS}
    entries: dict[str, Any] = {}
    for task, data_dir in tasks:
        table = load_task(task, data_dir, config.seed)
        examples = build_examples(table, tokenizer, config.seed, config.template, config.held_out_paraphrases)
        if not examples["test"]:
            raise InputError(f"task '{task.name}' has no test example left", "at least one", "Raise max_test or give more rows")
        shots = add_shots(examples, config.shots, config.seed, tokenizer, config.shots_max_tokens) if config.shots else None
        told = {split: add(examples, split) for split in SPLITS} if add is not None else None
        entries[task.name] = _describe(table, examples, data_dir, config, tokenizer) | ({"shots": shots} if shots is not None else {})
        entries[task.name] |= {"evidence": told} if told is not None else {}
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
            template=config.template,
            vocabulary=vocabulary_fingerprint(tokenizer) if _by_token(tasks) else None,  # whose tokens are asked about
        )  # fmt: skip
    logger.info("wrote %s", output_dir)
    return output_dir


def input_files(config: Config) -> list[Path]:
    """Return every file that a run reads: YAML files, tables, English instructions. Raises MissingFileError for a missing one."""
    files = [path for path in expand_paths(config.tasks) if path.suffix in _YAML_SUFFIXES]
    for task, data_dir in _read_tasks(config):
        for name in task.table_names():
            if not (data_dir / name).exists():
                raise MissingFileError(data_dir / name, f"a table of task '{task.name}'", "Check the path and data_dir")
            files += table_files(data_dir / name)
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
        set_caps(task, config)
        found[task.name] = (task, config.data_dir or path.parent)
    if not found:
        raise MissingFileError(", ".join(map(str, config.tasks)), "YAML files of tasks", "Check --tasks")
    return list(found.values())


def _check_words(config: Config, tasks: list[Task]) -> None:
    """Raise ConfigError for settings of words and shots that could not do anything."""
    if config.held_out_paraphrases and config.template != "default":
        raise ConfigError(f"held_out_paraphrases with template {config.template}", "template default", "Leave one of them out")
    if config.held_out_paraphrases and not any(task.held_out_paraphrases for task in tasks):
        names = ", ".join(task.name for task in tasks)
        raise ConfigError(f"no held-out paraphrases in {names}", "held_out_paraphrases in a task's YAML", "Leave held_out_paraphrases out")
    if config.max_english is not None and config.max_english < 0:
        raise ConfigError(f"max_english {config.max_english}", "0 or more", "Leave it out to take all")
    if config.shots < 0:
        raise ConfigError(f"shots {config.shots}", "0 or more", "Set --shots 0")
    if config.shots_max_tokens is not None and (config.tokenizer is None or not config.shots):
        raise ConfigError("shots_max_tokens without shots or without a tokenizer", "both", "Set --shots and --tokenizer")


def _evidence(config: Config) -> Callable[[dict[str, list[Example]], str], dict[str, int]] | None:
    """Return what puts neighbours into the rows of a split and says its counts; None where no index is given."""
    from llama_gene.data.evidence import check_choice, with_evidence

    choice = check_choice(config.evidence, config.evidence_max_identity, config.evidence_hits)
    if config.evidence is None:
        return None
    if config.shots:
        raise ConfigError("shots with evidence", "one of them", "Set --shots 0")
    from llama_gene.data.evidence_index import open_index

    index = open_index(config.evidence)

    def add(examples: dict[str, list[Example]], split: str) -> dict[str, int]:
        examples[split], counts = with_evidence(examples[split], index, choice)
        return vars(counts)

    return add


def _by_token(tasks: Iterable[tuple[Task, Path]]) -> list[str]:
    """Return the names of the tasks that ask about tokens."""
    return [task.name for task, _ in tasks if task.family == "structure" and task.form == "token"]


def _load_tokenizer(config: Config, tasks: Iterable[Task]) -> Any:
    """Return the tokenizer, None where none is given and no task asks about tokens."""
    by_token = _by_token([(task, Path()) for task in tasks])
    if config.tokenizer is None:
        if by_token:
            raise ConfigError(f"task '{by_token[0]}' asks about tokens and no tokenizer is given", "a tokenizer folder", "Set --tokenizer")
        return None
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


def _describe(table: TaskTable, examples: dict[str, list[Example]], data_dir: Path, config: Config, tokenizer: Any) -> dict[str, Any]:
    """Return a task's entry in the manifest."""
    task = table.task
    test = Counter(example["output"] for example in examples["test"])
    answered = [example for example in examples["test"] if example["oracle"] is not None]
    held_out = config.held_out_paraphrases and bool(task.held_out_paraphrases)
    entry: dict[str, Any] = {
        "family": task.family,
        "title": task.title,
        "kinds": task.kinds,
        "strand": task.strand,
        "instruction": render_instruction(task, table.labels, config.template),
        "paraphrases": {"train": len(task.paraphrases) if config.template == "default" else 0, "held_out": held_out},
        "labels": table.labels,
        "multi_label": task.multi_label,
        "num_rows": {split: len(examples[split]) for split in SPLITS},
        "class_balance": {split: _balance(examples[split]) for split in SPLITS},
        "subsets": {split: dict(_count_subsets(examples[split])) for split in ("dev", "test")},
        "majority": max(test.values()) / len(examples["test"]),
        "ceiling": sum(example["oracle"] == example["output"] for example in answered) / len(answered) if answered else None,
        "published": task.published,
        "positive": task.positive or None,
        "prior": task.prior,
        "simulated": task.simulated,
        "rejected": table.rejected,
        "dropped_labels": table.dropped_labels,
        "duplicates_removed": table.duplicates_removed,
        "left_out": table.left_out,
        "reverse_complements_added": table.num_augmented,
        "bins": table.bins,
        "files": {name: table_hash(data_dir / name) for name in task.table_names()},
    }
    if task.family == "structure":
        entry |= {"unit": task.form, "vote_ceiling": table.vote_ceiling or None}
    if tokenizer is not None:
        from llama_gene.data.supervised import count_tokens

        entry["tokens"] = {split: count_tokens(tokenizer, examples[split]) for split in SPLITS}
    if config.audit != "none":
        entry["test_rows_with_train_relatives"] = train_relatives(table, is_aligned=config.audit == "similar")
    return entry


def _balance(examples: Iterable[Example]) -> dict[str, int]:
    """Return the commonest answers and how many rows have each; rows with several labels count for each of theirs."""
    return dict(Counter(name for example in examples for name in example.get("answers") or [example["output"]]).most_common(50))


def _count_subsets(examples: Iterable[Example]) -> Counter[str]:
    """Return how many rows each subset has."""
    return Counter(sorted(name for example in examples for name in example.get("subsets") or []))


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
