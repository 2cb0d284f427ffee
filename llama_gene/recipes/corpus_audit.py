"""corpus audit: the leaks of any existing split, as JSON and Markdown.

What is compared: each split with each other split of its task, both ways round, and with the splits of every other task but train with
train. `data/leaks.py` says what is counted. How to read the result depends on how a task was meant to be split:

- by similarity cluster (ours): nothing is found between train, dev and test;
- by chromosome or species: homologues are found as `similar`, by design; copies and runs are leaks;
- mutant libraries, by the number of mutations: every row is a relative of every other, so only copies are leaks;
- remote homology, by superfamily label: `similar` must be empty between train and test, and more distant relatives are the task itself;
- pairs, by protein: `found` counts rows of which either protein was seen, and must be 0; a random split of pairs finds nearly all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llama_gene import runtime
from llama_gene.data.leaks import RELATIONS, Indexed, Leak, Members, compare, kinds_of, report_of
from llama_gene.data.splits import SplitRows, evaluation_files, read_split, read_task_splits, read_tasks
from llama_gene.data.tasks import SPLITS
from llama_gene.errors import ConfigError
from llama_gene.sequences.shared_runs import RunIndex, default_length

STAGE = "corpus audit"
_EVALUATED = ("dev", "test", "files")


@dataclass
class Config:
    """corpus audit: what do the splits of one or of many tasks share?"""

    train: list[Path] = field(default_factory=list)
    """Training files of one split: CSV, TSV, FASTA, JSON Lines, or a folder of `instruct`."""
    dev: list[Path] = field(default_factory=list)
    """Its development files."""
    test: list[Path] = field(default_factory=list)
    """Its test files."""
    kinds: list[str] = field(default_factory=lambda: ["dna"])
    """Alphabet of each sequence of a row of these files: [dna], [protein], or two for a pair. Instructions state their own."""
    columns: list[str] = field(default_factory=lambda: ["sequence"])
    """Column (or JSON key) of each sequence."""
    tasks: list[Path] = field(default_factory=list)
    """YAML files of tasks, folders of them, or globs, instead of or beside the files above; tasks are compared with each other, too."""
    data_dir: Path | None = None
    """Folder that the paths in the YAML files are relative to; by default the folder of each YAML file."""
    length: int | None = None
    """Shortest exact run that counts, in letters; unset: 50 for DNA and RNA, 20 for proteins."""
    similar: Literal["none", "task", "all"] = "task"
    """Where relatives are also looked for by alignment, which takes minutes: nowhere, within each task, or between tasks, too."""
    examples: int = 3
    """So many rows of each relation are named."""
    out: Path | None = None
    """Folder for audit.json, audit.md and manifest.json."""


@dataclass(frozen=True)
class Comparison:
    """The rows of one split that another shares."""

    split: SplitRows
    other: SplitRows
    leak: Leak


def run(config: Config) -> Path:
    """Write the report; return its folder. Raises ConfigError when there are no two splits to compare; what the readers raise."""
    if config.out is None:
        raise ConfigError("out is not set", "a folder", "Set --out")
    inputs = [*config.train, *config.dev, *config.test, *config.tasks]
    if not inputs:
        raise ConfigError("there is nothing to audit", "files of splits, or YAML files of tasks", "Set --train and --test, or --tasks")
    runtime.check_inputs_outside(config.out, [*inputs, *evaluation_files(config.tasks, config.data_dir, with_train=True)])
    runtime.check_output(config.out, STAGE)
    started = time.perf_counter()
    splits = read_splits(config)
    found = sorted(audit(splits, config), key=lambda item: (item.split.task, item.split.split, item.other.task, item.other.split))
    if not found:
        names = ", ".join(split.name for split in splits) or "none"
        raise ConfigError(f"nothing to compare: {names}", "two splits of a kind, one of them not train", "Set train and test, or tasks")
    report = _report(splits, found, config) | {"seconds": round(time.perf_counter() - started, 1)}
    text = markdown(report)
    hashed = evaluation_files(inputs, config.data_dir, with_train=True)
    with runtime.whole_dir(config.out) as folder:
        runtime.write_json(folder / "audit.json", report)
        runtime.write_text(folder / "audit.md", text)
        runtime.write_manifest(folder, STAGE, config, files={str(path): runtime.file_hash(path) for path in hashed})
    print(text)
    runtime.get_logger().info("corpus audit: %s", config.out)
    return config.out


def read_splits(config: Config) -> list[SplitRows]:
    """Return the rows of all splits that a config names."""
    splits = []
    for split in SPLITS:
        if files := getattr(config, split):
            splits += read_split(files, split, config.kinds, config.columns)
    for task, folder in read_tasks(config.tasks, config.data_dir) if config.tasks else []:
        splits += read_task_splits(task, folder)
    return splits


def audit(splits: list[SplitRows], config: Config) -> Iterator[Comparison]:
    """Yield what each split shares with each other, both ways round; see the module's docstring for which."""
    members = {
        kind: {number: Members(split, kind) for number, split in enumerate(splits) if kind in split.kinds} for kind in kinds_of(splits)
    }
    numbers = range(len(splits))
    pairs = {two: [one for one in numbers if one != two and _is_compared(splits[one], splits[two])] for two in numbers}
    with runtime.progress("corpus audit", "comparisons", sum(map(len, pairs.values()))) as bar:
        for two, others in pairs.items():  # one index at a time: those of 48 splits would take 2 GB
            if not others:
                continue
            indexed = {
                kind: Indexed(members[kind][two], RunIndex(members[kind][two].sequences, kind, config.length))
                for kind in members
                if two in members[kind]
            }
            for one in others:
                kinds = [kind for kind in indexed if one in members[kind]]
                is_aligned = config.similar == "all" or (config.similar == "task" and splits[one].task == splits[two].task)
                own, other = [members[kind][one] for kind in kinds], [indexed[kind] for kind in kinds]
                leak = compare(own, other, is_aligned, config.examples)
                yield Comparison(splits[one], splits[two], leak)
                bar.update(1)


def _is_compared(one: SplitRows, two: SplitRows) -> bool:
    """Return whether two splits hold sequences of one kind, and one of them is evaluated on."""
    if not set(one.kinds) & set(two.kinds):
        return False
    return one.task == two.task or one.split in _EVALUATED or two.split in _EVALUATED


# --- the report ------------------------------------------------------------------------------------------------------------------


def _report(splits: list[SplitRows], found: list[Comparison], config: Config) -> dict[str, Any]:
    """Return the report as JSON has it."""
    lengths = {kind: config.length or default_length(kind) for kind in kinds_of(splits)}
    return {
        "run_length": lengths,
        "similar": config.similar,
        "splits": [
            {
                "task": split.task,
                "split": split.split,
                "kinds": list(split.kinds),
                "rows": len(split.rows),
                "rejected": dict(split.rejected),
                "rows_shorter_than_a_run": sum(
                    any(len(sequence) < lengths[kind] for kind, sequence in zip(split.kinds, row, strict=True)) for row in split.rows
                ),
            }
            for split in splits
        ],
        "comparisons": [
            {
                "task": item.split.task,
                "split": item.split.split,
                "other_task": item.other.task,
                "other_split": item.other.split,
                **report_of(item.leak),
            }
            for item in found
        ],
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the report as a page: leaks within each task, leaks between tasks, what was read."""
    within = [item for item in report["comparisons"] if item["task"] == item["other_task"]]
    between = [item for item in report["comparisons"] if item["task"] != item["other_task"]]
    runs = ", ".join(f"{length} letters of {kind}" for kind, length in report["run_length"].items())
    looked = {"none": "not looked for", "task": "looked for within each task", "all": "looked for everywhere"}[report["similar"]]
    lines = [
        "# Audit of splits",
        "",
        f"Exact runs from {runs}; relatives by alignment {looked}. A row is counted once, under its first column.",
    ]
    for title, items in (("Within a task", within), ("Between tasks", between)):
        leaks = [item for item in items if item["found"]]
        if items:
            lines += ["", f"## {title}", "", f"{len(items) - len(leaks)} of {len(items)} comparisons found nothing."]
        if leaks:
            heads = [
                "rows of",
                "found in",
                "rows",
                "found",
                "share",
                *(name.replace("_", " ") for name in RELATIONS),
                "most frequent place",
            ]
            lines += ["", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *map(_line, leaks)]
    examples = [(item, example) for item in report["comparisons"] for example in item["examples"][:1]]
    if examples:
        lines += ["", "## One example each", "", *(f"- {_spoken(item, example)}" for item, example in examples)]
    lines += ["", "## What was read", "", "| rows of | kinds | rows | rejected | shorter than a run |", "|---|---|---|---|---|"]
    for split in report["splits"]:
        rejected = ", ".join(f"{reason} {count}" for reason, count in split["rejected"].items()) or "0"
        cells = [
            _name(split, "task", "split"),
            ", ".join(split["kinds"]),
            f"{split['rows']:,}",
            rejected,
            f"{split['rows_shorter_than_a_run']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _line(item: dict[str, Any]) -> str:
    """Return one comparison as a row of the table."""
    notes = []
    if item.get("offsets") and item["offsets"][0]["rows"] > 1:
        top = item["offsets"][0]
        notes.append(f"{top['rows']:,} rows at {top['offset']} ({'+' if top['strand'] == 1 else '-'})")
    notes += [f"{what} {item[name]:,}" for name, what in (("all_members", "both members"), ("same_pair", "same pair")) if name in item]
    cells = [
        _name(item, "task", "split"),
        _name(item, "other_task", "other_split"),
        f"{item['rows']:,}",
        f"{item['found']:,}",
        f"{item['share']:.1%}",
    ]
    return f"| {' | '.join([*cells, *(f'{item.get(name, 0):,}' for name in RELATIONS), '; '.join(notes)])} |"


def _spoken(item: dict[str, Any], example: dict[str, Any]) -> str:
    """Return one example as a sentence."""
    (file, row), (other_file, other_row) = example["row"], example["other"]
    text = (
        f"{_name(item, 'task', 'split')} ({file}, row {row}) and {_name(item, 'other_task', 'other_split')} ({other_file}, row {other_row})"
    )
    text += f": {example['relation'].replace('_', ' ')}"
    if example["length"]:
        strand = "" if example["strand"] == 1 else " on the other strand"
        text += f", {example['length']} letters at {example['position']} and {example['other_position']}{strand}"
    return text


def _name(item: dict[str, Any], task: str, split: str) -> str:
    """Return the task and the split as one name."""
    return f"{item[task]} {item[split]}".strip()
