"""How often the nearest annotated neighbour has the right label, when neighbours above an identity are passed over, and what it costs.

The rows of a task's training table are indexed (rows with several labels are left out and counted); each row of its test and dev tables
asks for its nearest neighbour. The label of the nearest one is the answer. It is compared with the neighbours that an alignment search over
the whole table finds (`similarity.find_relatives`, no k-mers): what the shortlist misses.

    python benchmarks/evidence.py [--data_dir DIR] [--task tasks/protein_ec_class] [--label ec_top_level] [--identities 1 0.9 0.6 0.4]

Prints Markdown: for each identity the share of questions with a neighbour, with a right one, the share right among those with one, the
same by exhaustive search; the majority's share beside; seconds of the index and milliseconds of a question.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from llama_gene.data.evidence import EvidenceChoice, find_neighbours
from llama_gene.data.evidence_index import Source, open_index, write_index
from llama_gene.runtime import write_manifest
from llama_gene.sequences.records import read_table
from llama_gene.sequences.similarity import find_relatives


def read(folder: Path, split: str, label: str) -> tuple[list[tuple[str, str]], int]:
    """Return (sequence, label) of a split's rows with one label, and how many have several."""
    rows = [(cells["sequence"], cells[label]) for cells in read_table(folder / f"{split}.csv", ["sequence", label])]
    kept = [(sequence, value) for sequence, value in rows if ";" not in value]
    return kept, len(rows) - len(kept)


def exhaustive(known: list[tuple[str, str]], asked: list[tuple[str, str]], kind: str, most: float) -> dict[int, int]:
    """Return the nearest row of each question by aligning with all."""
    best: dict[int, tuple[float, int]] = {}
    for hit in find_relatives([sequence for sequence, _ in asked], kind, others=[sequence for sequence, _ in known]):
        near = hit.identity * hit.length
        if hit.identity <= most and near > best.get(hit.first, (0.0, -1))[0]:
            best[hit.first] = near, hit.second
    return {first: second for first, (_, second) in best.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path(os.environ.get("LLAMA_GENE_DATA", ".")))
    parser.add_argument("--task", default="tasks/protein_ec_class")
    parser.add_argument("--label", default="ec_top_level")
    parser.add_argument("--kind", default="protein")
    parser.add_argument("--identities", type=float, nargs="+", default=[1.0, 0.9, 0.6, 0.4])
    options = parser.parse_args()
    folder = options.data_dir / options.task
    known, several = read(folder, "train", options.label)
    asked: list[tuple[str, str]] = []
    for split in ("dev", "test"):
        rows, more = read(folder, split, options.label)
        asked, several = asked + rows, several + more
    with tempfile.TemporaryDirectory() as name:
        index_dir = Path(name)
        start = time.perf_counter()
        facts = write_index([Source(str(i), label, sequence) for i, (sequence, label) in enumerate(known)], index_dir, options.kind)
        write_manifest(index_dir, "index", None, **facts)
        seconds = time.perf_counter() - start
        index = open_index(index_dir)
        find_neighbours(index, asked[0][0])  # compiles
        majority = Counter(label for _, label in known).most_common(1)[0][0]
        print(f"{len(known):,} rows indexed ({seconds:.1f} s), {len(asked):,} questions, {several} rows with several labels left out.")
        print(f"The majority's label is right for {sum(label == majority for _, label in asked) / len(asked):.1%}.\n")
        print("| neighbours up to | with one | right | right of those with one | exhaustive: with one | right | ms a question |")
        print("|---|---|---|---|---|---|---|")
        for most in options.identities:
            start = time.perf_counter()
            found = [find_neighbours(index, sequence, EvidenceChoice(max_hits=1, max_identity=most)) for sequence, _ in asked]
            spent = 1000 * (time.perf_counter() - start) / len(asked)
            right = sum(bool(near) and near[0].text == label for near, (_, label) in zip(found, asked, strict=True))
            num_found = sum(map(bool, found))
            whole = exhaustive(known, asked, options.kind, most)
            whole_right = sum(known[second][1] == asked[first][1] for first, second in whole.items())
            cells = [f"{most:.0%} identity", f"{num_found / len(asked):.1%}", f"{right / len(asked):.1%}"]
            cells += [f"{right / max(num_found, 1):.1%} ({right} of {num_found})"]
            cells += [f"{len(whole) / len(asked):.1%}", f"{whole_right / len(asked):.1%}", f"{spent:.0f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
