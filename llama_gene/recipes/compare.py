"""compare: two models' results on the same rows -> the difference of their scores, its interval, and p of a paired test.

A side is one folder of `evaluate` or `classify`, or several: the same model trained with other seeds (three or more tell how far a score
moves by chance). Their scores are given as mean and standard deviation, and averaged before sides are compared. Rows that a folder
rejected are left out for all, and counted. Interval and p speak of the rows (would other rows say the same?), the standard deviation of
the training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, MismatchError, MissingFileError
from llama_gene.recipes.evaluate import PREDICTIONS_NAME, RESULTS_NAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPARISON_NAME, TABLE_NAME = "comparison.json", "comparison.md"
Lines = dict[int, dict[str, Any]]


@dataclass
class Config:
    """Two models on the same rows."""

    ours: list[Path] = field(default_factory=list)
    """Folder written by `evaluate` or `classify`; several are seeds of one model."""
    theirs: list[Path] = field(default_factory=list)
    """The folders of the other model: one, or as many as ours (or any number against one of ours)."""
    tasks: list[str] = field(default_factory=list)
    """Names of the tasks to compare; empty: all that every folder holds."""
    num_resamples: int = 2000
    """Resamples of an interval, and permutations of a test."""
    seed: int = 0
    """Seed of the resamples."""
    output_dir: Path | None = None
    """Folder to write: comparison.json, comparison.md, manifest.json."""


def run(config: Config) -> list[dict[str, Any]]:
    """Compare, write the folder, and return an entry for each task and metric."""
    if not config.ours or not config.theirs or config.output_dir is None:
        raise ConfigError("ours, theirs or output_dir is not given", "--ours FOLDERS, --theirs FOLDERS and --output_dir")
    if len(config.ours) != len(config.theirs) and 1 not in (len(config.ours), len(config.theirs)):
        found = f"{len(config.ours)} folders of ours and {len(config.theirs)} of theirs"
        raise ConfigError(found, "as many on both sides, or one on one of them", "Leave some out")
    folders = [*config.ours, *config.theirs]
    reports = {folder: _read_results(folder) for folder in dict.fromkeys(folders)}
    predictions = {folder: _read_predictions(folder) for folder in reports}
    common = [name for name in reports[folders[0]] if all(name in report for report in reports.values())]
    for name in config.tasks:
        if name not in common:
            raise ConfigError(f"task '{name}' is not in every folder", f"one of {', '.join(common) or 'none'}", "Check --tasks")
    if not common:
        raise InputError("the folders have no task in common", "results of the same tasks", "Check --ours and --theirs")
    entries = [
        entry
        for name in config.tasks or common
        for entry in _compare_task(name, reports[folders[0]][name], [predictions[folder].get(name, {}) for folder in folders], config)
    ]
    table = comparison_table(entries)
    with runtime.whole_dir(config.output_dir) as folder:
        runtime.write_json(folder / COMPARISON_NAME, entries)
        runtime.write_text(folder / TABLE_NAME, table)
        runtime.write_manifest(folder, "compare", config, tasks=config.tasks or common)
    runtime.get_logger().info("compare: written to %s\n\n%s", config.output_dir, table)
    return entries


def comparison_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown table of differences."""
    from llama_gene.web.results_table import p_value, with_interval

    def side(facts: Mapping[str, Any]) -> str:
        seeds = f" +- {facts['sd']:.3f} ({len(facts['scores'])} seeds)" if facts["sd"] is not None else ""
        return f"{facts['mean']:.3f}{seeds}"

    lines = ["| task | metric | n | ours | theirs | ours less theirs [95 %] | p | test |", "|---|---|---:|---:|---:|---:|---:|---|"]
    for entry in entries:
        n = f"{entry['n']:,}" + (f" ({entry['left_out']} left out)" if entry["left_out"] else "")
        difference = with_interval(entry["difference"], entry["interval"], sign=True)
        scores = f"{side(entry['ours'])} | {side(entry['theirs'])}"
        cells = [entry["task"], entry["metric"], n, scores, difference, p_value(entry["p"]), entry["test"] or "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _compare_task(name: str, result: Mapping[str, Any], sides: Sequence[Lines], config: Config) -> list[dict[str, Any]]:
    """Return the entries of one task; `sides` holds the lines of ours, then of theirs."""
    from llama_gene.inference.judging import TaskFacts, compare, compare_text

    kept = [i for i in sides[0] if all(i in lines and "rejected" not in lines[i] for lines in sides)]
    if not kept:
        raise InputError(f"no row of task '{name}' is answered in every folder", "rows that none rejected", "Evaluate with one max_length")
    truths = [[{key: lines[i].get(key) for key in ("output", "group", "value", "answers")} for i in kept] for lines in sides]
    for number, truth in enumerate(truths):
        if truth != truths[0]:
            folder = [*config.ours, *config.theirs][number]
            raise MismatchError(f"the rows of task '{name}' in {folder}", f"those of {config.ours[0]}", "Evaluate both on the same rows")
    rows = [{"task": name, "family": result["family"], **truth} for truth in truths[0]]
    labels, num_ours = result["labels"], len(config.ours)
    facts = {"n": len(kept), "left_out": len(set().union(*sides)) - len(kept)}
    settings = (config.seed, config.num_resamples)
    if labels:
        answers = [_answers([lines[i] for i in kept], labels) for lines in sides]
        found = compare(rows, labels, answers[:num_ours], answers[num_ours:], TaskFacts(**result["facts"]), *settings)
    else:
        texts = [[lines[i]["answer"] for i in kept] for lines in sides]
        found = compare_text(rows, texts[:num_ours], texts[num_ours:], *settings)
    return [{"task": name, **facts, **entry} for entry in found]


def _answers(lines: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> NDArray[Any]:
    """Return the scores of the labels (several labels a row: yes and no), or the numbers of the answers where there are no scores."""
    import numpy as np

    from llama_gene.inference.metrics import OFF_LIST

    if all("chosen" in line for line in lines):
        return np.array([[label in line["chosen"] for label in labels] for line in lines])
    for key in ("log_likelihood", "probability"):
        if all(key in line for line in lines):
            return np.array([[line[key][label] for label in labels] for line in lines], float)
    return np.array([OFF_LIST if line["answer"] is None else list(labels).index(line["answer"]) for line in lines], np.int64)


def _read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {task: result} of a results folder."""
    return {result["task"]: result for result in runtime.read_json(folder / RESULTS_NAME)["tasks"]}


def _read_predictions(folder: Path) -> dict[str, Lines]:
    """Return {task: {row: line}} of a results folder."""
    path = folder / PREDICTIONS_NAME
    if not path.is_file():
        raise MissingFileError(path, "the predictions that `llama-gene evaluate` writes", "Evaluate tasks first")
    found: dict[str, Lines] = {}
    # not splitlines: an answer may hold a U+2028, which JSON leaves as it is
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            found.setdefault(line["task"], {})[line["row"]] = line
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            expected = "a line of `llama-gene evaluate` with task and row"
            raise InputError(f"{path}, line {number}: {text[:40]!r}", expected, "The file may be cut short; evaluate again") from error
    if not found:
        raise InputError(f"{path} holds no prediction", "a line for each row", "Evaluate again")
    return found
