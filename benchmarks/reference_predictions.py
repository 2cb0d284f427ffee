"""What the authors' committed predictions are worth: scored strictly, by MCC, and by the authors' own scorer, with 95 % intervals.

Two files, each 1,000 rows of four DNA tasks with the answers of one model: LLaMA-Gene's (the 7B after DNA) and DNAHLM's (GPT-2). And
DNAHLM's promoter against terminator run, where the authors' scorer differs most.

    strict     the answer begins with the label, whole and longest first (`semantic_match`); an off-list answer is wrong
    paper      the label stands anywhere in the answer, "Non" guarded (`paper_match`)
    MCC        of strict answers, off-list being a class

    python benchmarks/reference_predictions.py --data DATA        # seconds
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_gene.inference import intervals
from llama_gene.inference.judging import judge
from llama_gene.inference.metrics import OFF_LIST, paper_match, semantic_match
from llama_gene.web.results_table import with_interval

FILES = {
    "LLaMA-Gene": "llama_gene_dna_test_1000_with_predictions.json",
    "DNAHLM": "dnahlm_multitask_test_1000_with_predictions.json",
    "DNAHLM, promoter or terminator": "dnahlm_promoter_terminator_with_predictions.json.gz",
}
TASKS = {
    "core promoter": "Determine core promoter detection",
    "promoter": "Determine promoter  detection",
    "splice": "Determine the Splice Site Prediction",
    "TF": "Determine the Transcription Factor Prediction",
    "promoter or terminator": "Determine the following dna sequence is promoter or terminat",
}


@dataclass(frozen=True)
class Score:
    """One line of the table; intervals are (low, high)."""

    task: str
    n: int
    off_list: int
    strict: float
    strict_interval: Sequence[float]
    mcc: float | None
    mcc_interval: Sequence[float] | None
    paper: float
    paper_interval: Sequence[float]


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LLAMA_GENE_DATA"), help="data folder (LLAMA_GENE_DATA)")
    data = parser.parse_args().data
    print("| predictions | task | n | off the list | strict accuracy | paper scorer | MCC |\n|---|---|---:|---:|---:|---:|---:|")
    for name, file in FILES.items():
        for score in score_file(data / "instructions" / file):
            cells = [
                with_interval(score.strict, score.strict_interval),
                with_interval(score.paper, score.paper_interval),
                with_interval(score.mcc, score.mcc_interval),
            ]
            print(f"| {name} | {score.task} | {score.n:,} | {score.off_list} | {' | '.join(cells)} |")


def score_file(path: Path) -> list[Score]:
    """Return a line for all rows of a file, without MCC (its tasks have other labels), then one for each task."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
        rows = json.load(handle)
    by_task = {task: [row for row in rows if row["instruction"].startswith(start)] for task, start in TASKS.items()}
    scores = [score_task(task, kept) for task, kept in by_task.items() if kept]
    assert sum(score.n for score in scores) == len(rows), "a row belongs to no task"
    if len(scores) == 1:
        return scores
    right = round(sum(score.strict * score.n for score in scores))
    named = sum(paper_match(row["model_response"], row["output"]) for row in rows)
    strict, paper = (intervals.wilson_interval(k, len(rows)) for k in (right, named))
    off_list = sum(score.off_list for score in scores)
    return [Score("all", len(rows), off_list, right / len(rows), strict, None, None, named / len(rows), paper), *scores]


def score_task(task: str, rows: Sequence[dict[str, Any]]) -> Score:
    """Return the line of one task; its labels are the outputs that occur."""
    labels = sorted({row["output"] for row in rows})
    matches = [semantic_match(row["model_response"], labels) for row in rows]
    answers = np.array([OFF_LIST if match is None else labels.index(match) for match in matches])
    result = judge([{**row, "task": task, "family": "classification"} for row in rows], labels, answers)
    named = sum(paper_match(row["model_response"], row["output"]) for row in rows)
    paper = intervals.wilson_interval(named, len(rows))
    found = result["intervals"]
    return Score(
        task, len(rows), result["off_list"], result["accuracy"], found["accuracy"], result["mcc"], found["mcc"], named / len(rows), paper
    )  # fmt: skip


if __name__ == "__main__":
    main()
