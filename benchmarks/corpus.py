"""From real files to packed rows: every letter accounted for, every document recovered, and how time and memory grow.

Takes the genomes, proteins and English of a data folder (layout of its README) through `llama-gene corpus` and `llama-gene pack`, each a
process of its own:

- 1x with 1, 2 and 4 workers: seconds, CPU seconds, peak memory summed over the processes; the bytes must be equal;
- letters read + repeated == kept + rejected; the documents decoded from the rows == the documents of the corpus, all of them;
- how many of the 418 nearly identical SARS-CoV-2 genomes are left;
- 10x: nine copies more of every genome and proteome, 30 % of the letters drawn anew (seeded; simulated, so that deduplication keeps them),
  and of every English document, its words shuffled.

    python benchmarks/corpus.py --data DATA --tokenizer FOLDER --work FOLDER         # about 15 minutes on two cores; --skip_10x: 4 minutes
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from llama_gene.data.corpus import read_corpus
from llama_gene.data.rows import load_rows
from llama_gene.runtime import read_manifest
from llama_gene.sequences.letters import LetterCounts, LetterPolicy
from llama_gene.sequences.records import read_documents, read_records
from llama_gene.sequences.sources import read_source
from llama_gene.tokenization.tokenizer import decode, load_tokenizer

GENOMES = ("bacteria/*", "human/*", "phage/*", "vertebrates/*", "yeast/*.fa.gz", "arabidopsis/*", "sars-cov-2/*.xz")
PROTEINS = ("*.fasta.gz", "*.fasta.xz")
ENGLISH = ("*.jsonl.xz", "*.txt.gz")
COPIES = 9
MUTATED = 0.3


def main() -> None:
    """Run, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LLAMA_GENE_DATA"), help="data folder (LLAMA_GENE_DATA)")
    parser.add_argument("--tokenizer", required=True, help="a spliced tokenizer folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    parser.add_argument("--skip_10x", action="store_true", help="only the data as they are")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    files = {
        "dna": [path for pattern in GENOMES for path in sorted((asked.data / "genomes").glob(pattern))],
        "protein": [path for pattern in PROTEINS for path in sorted((asked.data / "proteins").glob(pattern))],
        "english": [path for pattern in ENGLISH for path in sorted((asked.data / "english").glob(pattern))],
    }
    rows = ["| data | workers | stage | wall s | CPU s | MB/s of a core | peak GB, all processes |", "|---|---:|---|---:|---:|---:|---:|"]
    hashes = []
    for workers in (1, 2, 4):
        corpus, packed = walk(asked.work / f"one_{workers}", files, workers, asked.tokenizer, "1x", rows)
        hashes.append(digest(corpus) + digest(packed))
    print("\n".join(rows))
    print(f"\n1, 2 and 4 workers give the same bytes: {len(set(hashes)) == 1}\n")
    check(asked.work / "one_1", asked.tokenizer, asked.data)
    if not asked.skip_10x:
        more = {language: paths + copies(language, paths, asked.work / "copies") for language, paths in files.items()}
        ten = rows[:2]
        walk(asked.work / "ten", more, 1, asked.tokenizer, "10x", ten)
        print("\n".join(["", *ten]))


def walk(folder: Path, files: dict[str, list[Path]], workers: int, tokenizer: str, name: str, rows: list[str]) -> tuple[Path, Path]:
    """Run corpus and pack from nothing; add their rows to the table; return both folders."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    corpus, packed = folder / "corpus", folder / "rows"
    sources = [{"language": language, "inputs": [str(path) for path in paths]} for language, paths in files.items()]
    config = {"sources": sources, "split": {"protein": "record"}, "workers": workers, "output_dir": str(corpus)}
    (folder / "corpus.json").write_text(json.dumps(config))
    common = ["--workers", str(workers), "--output_dir", str(packed)]
    commands = {
        "corpus": ["corpus", "--config", str(folder / "corpus.json")],
        "pack": ["pack", "--corpus", str(corpus), "--tokenizer", tokenizer, *common],
    }
    letters = 0
    total = Counter({"wall": 0.0, "cpu": 0.0})
    for stage, arguments in commands.items():
        cost = timed([sys.executable, "-m", "llama_gene.cli", *arguments])
        letters = letters or sum(facts["letters_read"] for facts in read_manifest(corpus, "corpus")["languages"].values())
        rows.append(row(name, workers, stage, letters, cost))
        total.update({"wall": cost["wall"], "cpu": cost["cpu"]})
        total["memory"] = max(total["memory"], cost["memory"])
    rows.append(row(name, workers, "both", letters, total))
    return corpus, packed


def row(name: str, workers: int, stage: str, letters: int, cost: Any) -> str:
    """Return a line of the table."""
    wall, cpu, memory = cost["wall"], cost["cpu"], cost["memory"]
    megabytes = letters / 1e6
    return f"| {name}, {megabytes:.1f} MB | {workers} | {stage} | {wall:.1f} | {cpu:.1f} | {megabytes / cpu:.1f} | {memory:.2f} |"


def timed(command: list[str]) -> dict[str, float]:
    """Run a command; return wall and CPU seconds (its workers' included) and the peak of the memory of all its processes, in GB."""
    switches = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started, peak, over = time.monotonic(), [0], threading.Event()
    process = subprocess.Popen(command, env={**os.environ, **switches}, stderr=subprocess.DEVNULL)

    def watch() -> None:
        parent = psutil.Process(process.pid)
        while not over.wait(0.1):
            try:
                family = [parent, *parent.children(recursive=True)]
                peak[0] = max(peak[0], sum(member.memory_info().rss for member in family))
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    over.set()
    watcher.join()
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.monotonic() - started, "memory": peak[0] / 1e9}


def digest(folder: Path) -> str:
    """Return a hash of the documents or rows of a folder, manifests and the card's figures aside."""
    hashes = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".jsonl", ".arrow"):
            hashes.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return hashes.hexdigest()


def check(folder: Path, tokenizer_folder: str, data: Path) -> None:
    """Print what was read, kept and rejected, whether the rows decode to the documents, and bytes a token."""
    corpus, packed = folder / "corpus", folder / "rows"
    tokenizer = load_tokenizer(tokenizer_folder)
    print("| language | read | kept | rejected | adds up | documents | recovered from rows | tokens | bytes a token on disk |")
    print("|---|---:|---:|---:|---|---:|---|---:|---:|")
    counts = read_manifest(packed, "pack")["languages"]
    for language, facts in read_manifest(corpus, "corpus")["languages"].items():
        kept, rejected = sum(facts["letters_kept"].values()), sum(facts["letters_rejected"].values())
        same = []
        for split in facts["documents"]:
            documents = Counter(hashlib.blake2b(text.encode()).digest() for _, text in read_corpus(corpus, language, split))
            same.append(documents == Counter(recovered(load_rows(packed, split)[language], tokenizer)))
        tokens = sum(split["tokens"] for split in counts[language].values())
        size = sum(path.stat().st_size for split in facts["documents"] for path in (packed / f"{language}.{split}").glob("*.arrow"))
        adds_up = facts["letters_read"] + facts["letters_repeated"] == kept + rejected
        documents_kept = sum(facts["documents"].values())
        print(f"| {language} | {facts['letters_read']:,} | {kept:,} | {rejected:,} | {adds_up} | {documents_kept:,} | {all(same)} "
              f"| {tokens:,} | {size / tokens:.3f} |")  # fmt: skip
    dropped = {line.split("\t")[1] for line in (corpus / "dropped_records.tsv").read_text().splitlines()[1:]}
    names = {record.id for record in read_records(data / "genomes/sars-cov-2/example_418_genomes.fasta.xz")}
    print(f"\nSARS-CoV-2 genomes left: {len(names - dropped)} of {len(names)}")


def recovered(rows: Any, tokenizer: Any) -> list[bytes]:
    """Return a hash of every document that rows hold; a document that was cut goes on in the next row's first segment."""
    found = []
    ids: list[int] = []
    for row in rows:
        start = 0
        for length in row["lengths"]:
            ids += row["input_ids"][start : start + length]
            start += length
            if ids[-1] == tokenizer.eos_token_id:
                found.append(hashlib.blake2b(decode(tokenizer, ids).encode()).digest())
                ids = []
    return found


def copies(language: str, paths: list[Path], folder: Path) -> list[Path]:
    """Write nine changed copies of each file; return their paths."""
    folder.mkdir(exist_ok=True)
    made = []
    for copy in range(COPIES):
        for path in paths:
            place = folder / f"{copy}_{path.name.split('.')[0]}.{'jsonl' if language == 'english' else 'fa'}"
            made.append(place)
            if place.exists():
                continue
            rng = np.random.default_rng([copy, len(path.name), path.stat().st_size])
            with place.open("w", encoding="utf-8") as handle:
                if language == "english":
                    for name, text in read_documents(path):
                        words = text.split(" ")
                        random.Random(f"{copy}{name}").shuffle(words)
                        handle.write(json.dumps({"id": f"{name}.{copy}", "text": " ".join(words)}) + "\n")
                else:
                    policy = LetterPolicy(soft_masked="upper")
                    for record in read_source(path, language, policy=policy, counts=LetterCounts()):
                        handle.write(f">{record.id}.{copy}\n{mutated(record.sequence, language, rng)}\n")
    return made


def mutated(sequence: str, kind: str, rng: np.random.Generator) -> str:
    """Return a sequence with 30 % of its letters drawn anew."""
    alphabet = np.frombuffer(b"ACGT" if kind == "dna" else b"ACDEFGHIKLMNPQRSTVWY", np.uint8)
    letters = np.frombuffer(sequence.encode(), np.uint8).copy()
    chosen = rng.random(len(letters)) < MUTATED
    letters[chosen] = rng.choice(alphabet, int(chosen.sum()))
    return letters.tobytes().decode()


if __name__ == "__main__":
    main()
