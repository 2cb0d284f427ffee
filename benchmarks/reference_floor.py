"""How far simple models come on the 1,000 test rows that the authors published with their own models' answers.

The baselines are trained on the public GUE files of the same tasks (train and, where there is one, dev; the authors' rows were taken out of
them beforehand), and asked the authors' rows. "k-mer" is our floor, logistic regression on dampened counts of 3-5-mers; "plain counts" is
the same on counts over their largest (C = 0.1) and the train files alone, without dev. Beside them: the published model's answers to the
same rows, strictly matched. The four transcription-factor files are one training set, since the instruction does not say which factor is
meant. The authors' names of the splice classes are permuted: GUE's classes 0 (acceptor), 1 (donor) and 2 (none) are called "Non-Splice
Sites", "Acceptor Sites" and "Donor Sites" there, so they are mapped by number, not by meaning.

    LLAMA_GENE_DATA=FOLDER python benchmarks/reference_floor.py [--names NAME ...] [--max_train 0] [--rows llama_gene dnahlm]

Prints a Markdown table for each of the two models: accuracy a task and in all, rows, training rows, seconds.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_gene.inference.baselines.panel import NAMES, TITLES, run_baselines
from llama_gene.inference.metrics import semantic_match

PROMOTER = ("Non-promoter", "promoter")
TASKS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "core promoter": ("core promoter", ("gue_prom_core_all",), PROMOTER),
    "promoter": ("promoter ", ("gue_prom_300_all",), PROMOTER),
    "TF binding": (
        "Transcription Factor",
        ("gue_tf_0", "gue_tf_1", "gue_tf_2", "gue_tf_4"),
        ("Background Sequences", "Binding Sites"),
    ),
    "splice": ("Splice Site", ("gue_splice",), ("Non-Splice Sites", "Acceptor Sites", "Donor Sites")),
}
"""Task -> words of its instructions, training folders, and the authors' names of classes 0, 1, ... of the files."""
FILES = {
    "llama_gene": "llama_gene_dna_test_1000_with_predictions.json",
    "dnahlm": "dnahlm_multitask_test_1000_with_predictions.json",
}


PLAIN = "plain counts"


def read_training(
    data: Path, folders: Sequence[str], labels: Sequence[str], max_train: int, seed: int, splits: Sequence[str] = ("train", "dev")
) -> list[dict[str, Any]]:
    """Return the rows of train and dev, at most `max_train` of them (0: all), once each."""
    rows: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for path in sorted((data / "tasks" / folder).iterdir()):
            if path.name.split(".")[0] in splits:
                opener = gzip.open if path.suffix == ".gz" else open
                with opener(path, "rt", encoding="utf-8") as handle:
                    for line in csv.DictReader(handle):
                        rows.setdefault(line["sequence"], {"sequences": [line["sequence"].upper()], "output": labels[int(line["label"])]})
    chosen = list(rows.values())
    return random.Random(seed).sample(chosen, max_train) if 0 < max_train < len(chosen) else chosen


def plain_counts(train_rows: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the answers of logistic regression on counts of 3-5-mers over their largest."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    kmers = CountVectorizer(analyzer="char", ngram_range=(3, 5), lowercase=False)
    model = make_pipeline(kmers, MaxAbsScaler(), LogisticRegression(C=0.1, max_iter=300))
    model.fit([row["sequences"][0] for row in train_rows], [row["output"] for row in train_rows])
    return [str(answer) for answer in model.predict([row["sequences"][0] for row in rows])]


def measure(data: Path, name: str, names: Sequence[str], max_train: int, seed: int) -> None:
    """Print the table of one file of 1,000 rows."""
    published = json.loads((data / "instructions" / FILES[name]).read_text(encoding="utf-8"))
    right: dict[str, list[int]] = {column: [] for column in (*names, PLAIN, "published model")}
    print(f"\n`{FILES[name]}`, accuracy\n")
    print("| task | rows | training rows | " + " | ".join([*(TITLES[key] for key in names), PLAIN, "published model"]) + " | seconds |")
    print("| --- | " + "---: | " * (len(names) + 5))
    asked_in_all = 0
    for task, (words, folders, labels) in TASKS.items():
        asked = [row for row in published if f"Determine {words}" in row["instruction"] or f"Determine the {words}" in row["instruction"]]
        rows = [{"sequences": [row["input"].upper()], "output": row["output"]} for row in asked]
        asked_in_all += len(rows)
        train_rows = read_training(data, folders, labels, max_train, seed)
        tested = {row["sequences"][0] for row in rows}
        assert not any(row["sequences"][0] in tested for row in train_rows), f"{task}: a test row is among the training rows"
        start = time.monotonic()
        found = run_baselines(names, train_rows, rows, ["dna"], "classification", labels, seed)
        seconds = time.monotonic() - start
        hits = {}
        for key, baseline in found.items():
            if baseline.scores is None:
                raise SystemExit(f"{task}: {key}: {baseline.reason}")
            answers = [labels[k] for k in baseline.scores.argmax(1)]
            hits[key] = [int(answer == row["output"]) for answer, row in zip(answers, rows, strict=True)]
        answers = plain_counts(read_training(data, folders, labels, max_train, seed, ("train",)), rows)
        hits[PLAIN] = [int(answer == row["output"]) for answer, row in zip(answers, rows, strict=True)]
        hits["published model"] = [int(semantic_match(row["model_response"], labels) == row["output"]) for row in asked]
        for key, values in hits.items():
            right[key] += values
        cells = [f"{sum(values) / len(rows):.3f}" for values in hits.values()]
        print(f"| {task} | {len(rows)} | {len(train_rows):,} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)
    assert asked_in_all == len(published), f"{len(published) - asked_in_all} rows belong to no task"
    print(f"| all | {asked_in_all} | | {' | '.join(f'{sum(values) / len(values):.3f}' for values in right.values())} | |", flush=True)


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=["majority", "gc", "kmer", "positional"])
    parser.add_argument("--rows", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--max_train", type=int, default=0, help="training rows of a task; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if "LLAMA_GENE_DATA" not in os.environ:
        raise SystemExit("LLAMA_GENE_DATA is not set; expected the folder that holds instructions/ and tasks/")
    for name in arguments.rows:
        measure(Path(os.environ["LLAMA_GENE_DATA"]), name, arguments.names, arguments.max_train, arguments.seed)


if __name__ == "__main__":
    main()
