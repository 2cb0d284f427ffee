"""Near-duplicates, decontamination and the audit of splits on real data: what they find, and how fast on one core.

1. Sketches: letters a second, and how many of 418 SARS-CoV-2 genomes, of 30 %-mutants of one (seeded; simulated), and of three bacterial
   records survive.
2. Decontamination: 1 M letters of evaluation rows (a seeded draw of the real promoter, splice and protein tests), held against real genomes
   and proteomes cut in documents of 650 letters; 1,000 planted runs of each sort in random documents, and random documents without any.
3. The audit of the two human promoter tasks: a 70-bp core promoter is bases 216-286 of a 300-bp row.

    python benchmarks/audit.py --data DATA        # about a minute of one core
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from llama_gene.data.splits import evaluation_sequences
from llama_gene.recipes.corpus_audit import Config, audit, read_splits
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.records import read_records
from llama_gene.sequences.shared_runs import SCREEN_SHARE, RunIndex
from llama_gene.sequences.sketches import near_duplicates, sketch

TASKS = Path(__file__).resolve().parents[1] / "launch" / "configs" / "tasks"
DOCUMENT = 650
BACTERIA = ("bacteria/escherichia_coli_K12_MG1655.fna.gz", "bacteria/salmonella_enterica_LT2.fna.gz")
GENOMES = {
    "human (6 Mb in 4 regions)": [
        f"genomes/human/{name}.fa.gz" for name in ("chr20_1Mb_1000genomes_region", "chr22_20-21M", "chr3.42M", "chr4.103M")
    ],
    "yeast": ["genomes/yeast/saccharomyces_cerevisiae_R64-1-1.fa.gz"],
    "E. coli and Salmonella": [f"genomes/{name}" for name in BACTERIA],
}
PROTEINS = {
    "human proteins": ["proteins/swissprot_human_7418.fasta.gz"],
    "Plasmodium proteins": ["proteins/uniprot_plasmodium.fasta.xz"],
}
DNA_TASKS = ("gue_prom_300_all", "gue_prom_core_all", "gue_splice")
PROTEIN_TASKS = ("protein_membrane_tmbed", "protein_esol_regression", "protein_secondary_structure", "protein_ec_class")
LETTERS = {"dna": "ACGT", "protein": "ACDEFGHIKLMNPQRSTVWY"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LLAMA_GENE_DATA"), help="data folder (LLAMA_GENE_DATA)")
    data = parser.parse_args().data
    near_identical(data)
    decontamination(data)
    promoters(data)
    print(f"\nPeak memory of the whole benchmark: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def near_identical(data: Path) -> None:
    """Print what sketches find, and their speed."""
    genomes = [record.sequence for record in read_records(data / "genomes/sars-cov-2/example_418_genomes.fasta.xz")]
    bacteria = [record.sequence for name in BACTERIA for record in read_records(data / "genomes" / name)]
    sketch(genomes[0])
    near_duplicates([sketch(genomes[0])])  # compiled
    print("| genomes | records | survive |\n|---|---|---|")
    rng = random.Random(0)
    for name, sequences in {
        "SARS-CoV-2": genomes,
        "30 % mutants of one of them (simulated)": [genomes[0], *(mutant(genomes[0], 0.3, rng) for _ in range(50))],
        "E. coli K-12, Salmonella LT2 and its plasmid": bacteria,
    }.items():
        print(f"| {name} | {len(sequences)} | {near_duplicates([sketch(text) for text in sequences]).count(None)} |")
    sketches = [sketch(text) for text in genomes] * 24
    seconds = timed(lambda: near_duplicates(sketches))
    print(f"\n{len(sketches):,} near-identical genomes (the 418, 24 times): {seconds:.2f} s.")
    letters = sum(map(len, bacteria))
    print(f"\nSketching {letters / 1e6:.1f} Mb: {letters / 1e6 / timed(lambda: [sketch(text) for text in bacteria]):.0f} MB/s.")


def decontamination(data: Path) -> None:
    """Print what a screen finds, and its speed."""
    print("\n| documents | letters | share a run | and a quarter of a row: dropped | MB/s |\n|---|---|---|---|---|")
    notes = []
    for kind, tasks, sources in (("dna", DNA_TASKS, GENOMES), ("protein", PROTEIN_TASKS, PROTEINS)):
        rows = draw(data, kind, tasks)
        RunIndex(rows[:1], kind).first_row(rows[0])  # compiled
        started = time.process_time()
        index = RunIndex(rows, kind)
        made = time.process_time() - started
        screen = RunIndex(rows, kind, share=SCREEN_SHARE)
        for name, files in sources.items():
            texts = [record.sequence for file in files for record in read_records(data / file, kind)]
            print(line(name, [text[at : at + DOCUMENT] for text in texts for at in range(0, len(text), DOCUMENT)], index, screen))
        rng = random.Random(1)
        print(line(f"random {kind} (simulated)", ["".join(rng.choices(LETTERS[kind], k=DOCUMENT)) for _ in range(20_000)], index, screen))
        notes.append(
            f"{kind}: {len(rows):,} rows, {sum(map(len, rows)):,} letters, index in {made:.2f} s, {index.num_short} rows too short. "
            f"Planted runs of {index.length} letters or more in random documents, found of 1,000: {planted(rows, kind, index, rng)}."
        )
    print("\n" + "\n\n".join(notes))


def line(name: str, documents: list[str], index: RunIndex, screen: RunIndex) -> str:
    """Return a row of the table."""
    letters = sum(map(len, documents)) / 1e6
    sharing = sum(index.first_row(document) is not None for document in documents)
    dropped = 0
    started = time.process_time()
    for document in documents:
        dropped += screen.first_row(document) is not None
    seconds = time.process_time() - started
    return f"| {name} | {letters:.1f} M | {sharing:,} of {len(documents):,} | {dropped:,} | {letters / seconds:.0f} |"


def draw(data: Path, kind: str, tasks: Iterable[str]) -> list[str]:
    """Return a million letters of evaluation rows."""
    held = evaluation_sequences([TASKS / f"{name}.yaml" for name in tasks], kind, data)
    rows = [row for sequences in held.values() for row in sequences]
    random.Random(0).shuffle(rows)
    drawn, letters = [], 0
    for row in rows:
        if letters >= 1_000_000:
            break
        drawn.append(row)
        letters += len(row)
    return drawn


def planted(rows: list[str], kind: str, index: RunIndex, rng: random.Random) -> str:
    """Return how many planted runs were found: whole rows, the other strand, and windows that a document's edge cuts."""
    long = [row for row in rows if index.length < len(row) <= 400 and "N" not in row and "X" not in row]
    makers: dict[str, Callable[[str], str]] = {
        "whole rows": lambda row: row,
        "windows": lambda row: window(row, index.length, rng),
    }
    if kind == "dna":
        makers["windows of the other strand"] = lambda row: reverse_complement(window(row, index.length, rng))
    counts = []
    for name, make in makers.items():
        found = 0
        for row in rng.choices(long, k=1_000):
            sides = ["".join(rng.choices(LETTERS[kind], k=rng.randrange(300))) for _ in range(2)]
            found += index.first_row(sides[0] + make(row) + sides[1]) is not None
        counts.append(f"{name} {found}")
    return ", ".join(counts)


def window(row: str, least: int, rng: random.Random) -> str:
    """Return a random stretch of a row."""
    size = rng.randrange(least, len(row) + 1)
    start = rng.randrange(len(row) - size + 1)
    return row[start : start + size]


def promoters(data: Path) -> None:
    """Print the leaks between the two promoter tasks: rows of 300 bp that hold a core promoter at bases 216-286, and at any place."""
    config = Config(tasks=[TASKS / "gue_prom_300_all.yaml", TASKS / "gue_prom_core_all.yaml"], data_dir=data, similar="none")
    splits = read_splits(config)
    started = time.process_time()
    found = list(audit(splits, config))
    seconds = time.process_time() - started
    print("\n| 300-bp rows of | hold a core row of | rows | at 216, + strand | at any place, either strand | share an exact run besides |")
    print("|---|---|---|---|---|---|")
    for item in found:
        if (item.split.task, item.other.task) == ("gue_prom_300_all", "gue_prom_core_all"):
            at_216 = sum(top["rows"] for top in item.leak.offsets if (top["strand"], top["offset"]) == (1, 216))
            cells = [item.leak.rows, at_216, item.leak.relations.get("contains", 0), item.leak.relations.get("overlap", 0)]
            print(f"| {item.split.split} | {item.other.split} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    letters = sum(len(sequence) for split in splits for row in split.rows for sequence in row)
    print(
        f"\n{len(found)} comparisons of {sum(len(split.rows) for split in splits):,} rows, {letters / 1e6:.1f} M letters: {seconds:.1f} s."
    )


def mutant(text: str, share: float, rng: random.Random) -> str:
    """Return a text of which a share of the letters is another one."""
    return "".join(rng.choice("ACGT".replace(letter, "")) if rng.random() < share else letter for letter in text)


def timed(work: Callable[[], object]) -> float:
    """Return the processor seconds of some work."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
