"""What `evaluate` refuses before a model is loaded: numbers that mean nothing, models that are not there, rows that contradict themselves.

Rows come from a folder that a person may have written or changed. A wrong label in one row of a million would surface hours later, or (in
a training row) only as a weaker baseline; here it is one line that names the row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.errors import ConfigError, InputError, did_you_mean

if TYPE_CHECKING:
    from llama_gene.recipes.evaluate import Config

_SMALLEST = {"num_resamples": 2, "calibrate": 0, "max_length": 1, "max_new_tokens": 1, "batch_tokens": 1, "max_documents": 1}
_WRITTEN = "Write the instructions again"


def check_config(config: Config) -> None:
    """Raise ConfigError for what no evaluation can be done with."""
    if config.model is None or config.output_dir is None:
        raise ConfigError("model or output_dir is not given", "--model and --output_dir")
    if config.instructions is None and config.corpus is None and not config.english:
        raise ConfigError("none of instructions, corpus and english is given", "--instructions FOLDER, --corpus FOLDER or --english TASK")
    for name, smallest in _SMALLEST.items():
        if getattr(config, name) < smallest:
            raise ConfigError(f"{name} is {getattr(config, name)}", f"{smallest} or more", f"Raise --{name}")
    from llama_gene.data.evidence import check_choice

    check_choice(config.evidence, config.evidence_max_identity, config.evidence_hits)
    if config.lora_baseline and config.baseline_seeds < 3:
        raise ConfigError(
            f"baseline_seeds is {config.baseline_seeds}", "3 or more: a training with a random start has a spread", "Raise it"
        )


def check_baselines(config: Config) -> None:
    """Raise for a baseline that is neither a built-in name nor a model that can be read. Imports torch where one is a model."""
    from llama_gene.inference.baselines.panel import NAMES

    for name in config.baseline if config.instructions is not None else []:
        hint = "" if name in NAMES or "/" in name or Path(name).exists() else did_you_mean(name, NAMES)
        if hint:
            raise ConfigError(f"there is no baseline '{name}'", f"one of {', '.join(NAMES)}, or a model's folder or hub id", hint)
    models = [name for name in config.baseline if name not in NAMES] + config.lora_baseline
    if models:
        from llama_gene.models.encoders import load_config, model_name

        for name in models:
            load_config(model_name(name))


def check_rows(task: str, splits: Mapping[str, Any], wants_sequences: bool) -> None:
    """Raise InputError, naming split and row of the task, for rows that cannot be evaluated or trained on."""
    for split, rows in splits.items():
        if split == "facts" or not rows:
            continue
        _check_labels(task, rows)
        for number, row in enumerate(rows, start=1):
            if fault := _fault(row, wants_sequences):
                raise InputError(f"{split} row {number} of task '{task}' {fault[0]}", fault[1], _WRITTEN)


def _check_labels(task: str, rows: Sequence[Mapping[str, Any]]) -> None:
    labels = rows[0]["labels"]
    if any(row["labels"] != labels for row in rows):
        raise InputError(f"rows of task '{task}' have different lists of labels", "one list a task", _WRITTEN)
    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        raise InputError(f"task '{task}' lists the label '{twice[0]}' twice", "each label once", "Mend the labels in the task's YAML")
    if len(labels) == 1:
        raise InputError(f"task '{task}' has one label, '{labels[0]}'", "two or more to choose from", "Leave it out with --tasks")


def _fault(row: Mapping[str, Any], wants_sequences: bool) -> tuple[str, str] | None:
    """Return (what a row is, what was expected), None for a good one."""
    sequences, value = row["sequences"], row.get("value")
    if not all(sequences) or len(sequences) != len(row["kinds"]):
        return f"has {sum(map(bool, sequences))} sequences that are not empty", f"{len(row['kinds']) or 'some'}, as its kinds say"
    if wants_sequences and not sequences:
        return "has no sequence", "one for the baselines, or --baseline []"
    if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value)):
        return f"has the value '{value}'", "a finite number"
    answers = row.get("answers") or [row["output"]]
    strangers = [answer for answer in answers if answer not in row["labels"]] if row["labels"] else []
    return (f"has the answer '{strangers[0]}'", f"one of {', '.join(row['labels'])}") if strangers else None
