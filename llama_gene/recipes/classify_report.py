"""What every head of `classify` reports: its test rows judged beside their floor, a line for each, and the results in three forms.

`evaluate` judges with the same functions and writes the same files, so that the two can be laid side by side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene import runtime
from llama_gene.recipes.evaluate import PAGE_NAME, PREDICTIONS_NAME, RESULTS_NAME, TABLE_NAME
from llama_gene.recipes.evaluate_tasks import task_baselines, truth_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llama_gene.data.tasks import Task, TaskTable
    from llama_gene.recipes.classify import Config


@dataclass(frozen=True)
class ScoredRows:
    """Which test rows were scored, by their number, how many letters each of them lost, and which were too long."""

    scored: Sequence[int]
    letters_cut: Sequence[int]
    rejected: Sequence[int]

    def counts(self) -> dict[str, int]:
        """Return what a result says of them."""
        return {"n": len(self.scored), "rejected": len(self.rejected), "shortened": sum(cut > 0 for cut in self.letters_cut)}


def judge_test(
    examples: Mapping[str, Sequence[Any]],
    rows: ScoredRows,
    answers: NDArray[np.float64],
    labels: Sequence[str],
    table: TaskTable,
    config: Config,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the result of the test rows and a line for each of them, rejected ones included.

    `answers` are logits (N, K) of the labels, or numbers (N,) of a regression.
    """
    from llama_gene.inference import metrics
    from llama_gene.inference.judging import TaskFacts, judge

    task = table.task
    tested = [examples["test"][i] for i in rows.scored]
    facts = TaskFacts.of({"bins": table.bins, "positive": task.positive or None, "prior": task.prior})
    baselines, _ = task_baselines(["kmer"], tested, list(labels), examples, config)
    if answers.ndim == 1:
        said: list[dict[str, Any]] = [{"answer": round(float(answer), 6)} for answer in answers]
    else:
        answers = metrics.probabilities(answers)
        said = [
            {
                "answer": labels[int(chances.argmax())],
                "probability": {label: round(float(value), 6) for label, value in zip(labels, chances, strict=True)},
            }
            for chances in answers
        ]
    result = judge(tested, labels, answers, examples["train"], baselines, facts, None, config.seed, config.num_resamples)
    lines = [
        {"task": task.name, "row": i, **truth_of(row), **words, "letters_cut": cut}
        for i, row, words, cut in zip(rows.scored, tested, said, rows.letters_cut, strict=True)
    ]
    lines += [{"task": task.name, "row": i, "output": examples["test"][i]["output"], "rejected": "row too long"} for i in rows.rejected]
    return {"task": task.name, "family": task.family, **rows.counts(), **result}, sorted(lines, key=lambda line: int(line["row"]))


def write_report(
    folder: Path, task: Task, result: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], outcome: Any, config: Config
) -> str:
    """Write results.json, results.md, results.html and predictions.jsonl into `folder`; return results.md.

    `outcome` is what `train_classifier` says of the training.
    """
    from llama_gene.web.results_page import results_page

    report = {
        "model": config.model,
        "head": config.head,
        "split": "test",
        "seed": config.seed,
        "simulated": task.simulated,
        "tasks": [{**result, "title": task.title, "published": task.published or None}],
        "dev": outcome.looks,
        "chosen_step": outcome.chosen_step,
    }
    table = _render(report, outcome.steps, config)
    runtime.write_json(folder / RESULTS_NAME, report)
    runtime.write_text(folder / TABLE_NAME, table)
    runtime.write_text(folder / PAGE_NAME, results_page(report))
    runtime.write_text(folder / PREDICTIONS_NAME, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return table


_HEADS = {"sequence": "Classification head", "residue": "Residue head", "regression": "Regression head"}


def _render(report: Mapping[str, Any], steps: int, config: Config) -> str:
    """Return results.md: how the head was made, the table, and what dev said."""
    from llama_gene.web.results_table import results_table

    way = "all weights trained" if config.full else f"LoRA of rank {config.lora.rank} and the head trained"
    parts = [f"{_HEADS[config.head]} on `{report['model']}`, {way}, split `{report['split']}`."]
    if report["simulated"]:
        parts.append("**The data is simulated**: scores say that the route works, nothing about real genes.")
    parts.append(results_table(report["tasks"]).rstrip("\n"))
    if report["dev"]:
        looks = ", ".join(f"step {look['step']} {look['score']:.3f}" for look in report["dev"])
        parts.append(f"Chosen by dev: step {report['chosen_step']} of {steps} ({looks}).")
    else:
        parts.append(f"No dev row: the weights of the last step, {steps}.")
    return "\n\n".join(parts) + "\n"
