"""From documents to packed rows on one core: `llama-gene pack` beside the obvious alternative, on the same real documents in one run.

The obvious alternative is what Hugging Face's run_clm.py does: the transformers tokenizer in datasets.map (batched), group_texts to rows of
512 in a second map, labels beside the ids, written with save_to_disk. About 20 MB: DNA of bacteria, human and phages in fragments of
300-1000 bp, proteins, English articles. Each contestant runs in a process of its own, bound to one core, after a short one that fills
numba's cache. Times begin when the libraries and the tokenizer are loaded and end when the rows are on disk; our tables are made inside
that time. The rows are then read back and decoded, and must be the documents.

    python benchmarks/packing.py --data DATA --tokenizer FOLDER        # FOLDER written by `llama-gene vocab`; about 1 minute
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROW_LENGTH = 512
LETTERS = {"dna": 10_000_000, "protein": 5_000_000, "english": 5_000_000}
GENOMES = ("bacteria/escherichia_coli_K12_MG1655.fna.gz", "human/chr4.103M.fa.gz", "human/chr20_1Mb_1000genomes_region.fa.gz")
PHAGES = "phage/gut_phage_contigs_63.fasta.gz"
PROTEINS = ("uniprot_ecoli.fasta.xz", "swissprot_human_7418.fasta.gz", "uniprot_yeast.fasta.xz")
ENGLISH = ("plos_articles.jsonl.xz", "openstax_biology.jsonl.xz", "craft_fulltext_articles.jsonl.xz")
WARM_UP = f'{{"text": "{"ACGTTGCA" * 125}"}}\n' * 3000  # 3 million letters: our encoder compiles behind the first two
NAMES = {
    "concatenate": "ours",
    "best_fit": "ours, best fit",
    "transformers": "transformers + datasets.map + group_texts",
}


def main() -> None:
    """Write the documents, run each contestant, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LLAMA_GENE_DATA"), help="data folder (LLAMA_GENE_DATA)")
    parser.add_argument("--tokenizer", required=True, help="tokenizer folder")
    parser.add_argument("--only", choices=[*NAMES], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps(contest(asked.only, asked.tokenizer, asked.work)))
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sizes = write_documents(asked.data, work)
        small = work / "warm_up"
        small.mkdir()
        for language in LETTERS:
            (small / f"{language}.jsonl").write_text(WARM_UP if language == "dna" else '{"text": "ACGT"}\n')
        results = {}
        for only in NAMES:
            start(only, asked.tokenizer, small)
            results[only] = start(only, asked.tokenizer, work)
    print("\n".join(table(results, sizes)))


def write_documents(data: Path, work: Path) -> dict[str, int]:
    """Write one file of documents per language; return its bytes of text."""
    from llama_gene.sequences.records import read_documents, read_records

    rng = random.Random(0)

    def dna() -> Iterator[str]:
        for path in (*GENOMES, PHAGES):
            for record in read_records(data / "genomes" / path):
                start = 0
                while start < len(record.sequence):
                    text = record.sequence[start : start + rng.randint(300, 1000)]
                    start += len(text)
                    if "N" not in text:
                        yield text

    protein = (record.sequence for path in PROTEINS for record in read_records(data / "proteins" / path, "protein"))
    english = (text for path in ENGLISH for _, text in read_documents(data / "english" / path))
    sizes = {}
    for language, texts in (("dna", dna()), ("protein", protein), ("english", english)):
        sizes[language] = letters = 0
        with (work / f"{language}.jsonl").open("w", encoding="utf-8") as file:
            for text in texts:
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                letters += len(text)
                sizes[language] += len(text.encode())
                if letters >= LETTERS[language]:
                    break
    return sizes


def start(only: str, tokenizer: str, work: Path) -> dict[str, Any]:
    """Run one contestant in a process of its own; return what it prints."""
    command = [sys.executable, __file__, "--only", only, "--tokenizer", tokenizer, "--work", str(work)]
    single = {name: "1" for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS")}
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, **single, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def contest(only: str, folder: str, work: Path) -> dict[str, Any]:
    """Pack every language; return seconds, tokens and bytes of the rows by language, and the peak memory of all."""
    from llama_gene.tokenization.tokenizer import load_tokenizer

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for library in ("datasets", "pyarrow", "llama_gene.data.rows", "llama_gene.tokenization.encoder"):
        importlib.import_module(library)
    tokenizer = load_tokenizer(folder)
    pack = {"transformers": with_transformers}.get(only) or (lambda *given: with_ours(only, *given))
    result: dict[str, Any] = {"memory_before": peak_memory()}
    for language in LETTERS:
        rows = work / only / language
        rows.mkdir(parents=True)
        begin, busy = time.perf_counter(), time.process_time()
        facts = pack(work / f"{language}.jsonl", tokenizer, rows)
        facts |= {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - busy}
        facts["disk"] = sum(path.stat().st_size for path in rows.rglob("*.arrow"))
        result[language] = facts
    result["memory"] = peak_memory()
    if only == "concatenate":
        for language in LETTERS:
            check(work / f"{language}.jsonl", tokenizer, work / only / language, result[language]["rows"])
    return result


def peak_memory() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def with_ours(packing: Any, documents: Path, tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Pack as `llama-gene pack` does."""
    from llama_gene.data.rows import write_shard
    from llama_gene.sequences.records import read_documents

    counts = write_shard(read_documents(documents), tokenizer, ROW_LENGTH, packing, folder / "00000.arrow")
    places = counts["rows"] * ROW_LENGTH
    cut = counts["cut_documents"] / counts["documents"]
    return {"tokens": counts["tokens"], "rows": counts["rows"], "unused": counts["unused_tokens"] / places, "cut": cut, "dropped": 0.0}


def with_transformers(documents: Path, tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Pack as run_clm.py does."""
    import datasets

    def tokenize(batch: dict[str, list[str]]) -> Any:
        return tokenizer(batch["text"])

    def group_texts(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {name: [value for row in rows for value in row] for name, rows in batch.items()}
        length = len(joined["input_ids"]) // ROW_LENGTH * ROW_LENGTH
        rows = {name: [values[i : i + ROW_LENGTH] for i in range(0, length, ROW_LENGTH)] for name, values in joined.items()}
        return {**rows, "labels": [list(row) for row in rows["input_ids"]]}

    datasets.disable_progress_bars()
    texts = datasets.load_dataset("json", data_files=str(documents), split="train", cache_dir=str(folder.parent / "cache"))
    tokens = texts.map(tokenize, batched=True, remove_columns=texts.column_names)
    rows = tokens.map(group_texts, batched=True)
    rows.save_to_disk(str(folder))
    total = len(tokens.data.column("input_ids").combine_chunks().values)
    kept = len(rows) * ROW_LENGTH
    return {"tokens": kept, "rows": len(rows), "unused": 0.0, "cut": None, "dropped": 1 - kept / total}


def check(documents: Path, tokenizer: Any, folder: Path, num_rows: int) -> None:
    """Stop unless the rows decode to the documents."""
    import datasets

    from llama_gene.sequences.records import read_documents
    from llama_gene.tokenization.tokenizer import decode

    rows = datasets.Dataset.from_file(str(folder / "00000.arrow"))
    ids = rows.data.column("input_ids").combine_chunks().values.to_numpy()
    ends = (ids == tokenizer.eos_token_id).nonzero()[0].tolist()
    begin = tokenizer.bos_token_id is not None
    starts = [0, *(end + 1 for end in ends[:-1])]
    texts = (decode(tokenizer, ids[first + begin : end].tolist()) for first, end in zip(starts, ends, strict=True))
    same = all(found == text for found, (_, text) in zip(texts, read_documents(documents), strict=True))
    if not same or len(rows) != num_rows:
        sys.exit(f"{folder}: the rows do not decode to the documents")


def table(results: dict[str, dict[str, Any]], sizes: dict[str, int]) -> list[str]:
    """Return the Markdown."""
    lines = [
        f"Rows of {ROW_LENGTH} tokens; MB of source text per second of wall time (of CPU time) on one core; text: "
        + ", ".join(f"{language} {size / 1e6:.1f} MB" for language, size in sizes.items())
        + ". Our rows decode to the documents.",
        "",
        "| | " + " | ".join(LETTERS) + " | all | ratio | bytes a token | peak memory (of it libraries) | tokens dropped | places unused |",
        "|---|" + "---|" * (len(LETTERS) + 6),
    ]
    total = sum(sizes.values()) / 1e6
    seconds = {only: sum(result[language]["seconds"] for language in LETTERS) for only, result in results.items()}
    for only, result in results.items():
        facts = [result[language] for language in LETTERS]
        speeds = [f"{sizes[name] / 1e6 / result[name]['seconds']:.1f} ({sizes[name] / 1e6 / result[name]['cpu']:.1f})" for name in LETTERS]
        tokens = sum(part["tokens"] for part in facts)
        memory = f"{result['memory']:,.0f} MB ({result['memory_before']:,.0f})"
        dropped = sum(part["dropped"] * part["tokens"] for part in facts) / tokens
        unused = sum(part["unused"] * part["rows"] for part in facts) / sum(part["rows"] for part in facts)
        lines.append(
            f"| {NAMES[only]} | {' | '.join(speeds)} | {total / seconds[only]:.1f} | {seconds['transformers'] / seconds[only]:.1f} | "
            f"{sum(part['disk'] for part in facts) / tokens:.2f} | {memory} | {dropped:.2%} | {unused:.2%} |"
        )
    lines += ["", "Documents that lie in more than one row:"]
    for only in ("concatenate", "best_fit"):
        lines[-1] += f" {only} " + ", ".join(f"{language} {results[only][language]['cut']:.0%}" for language in LETTERS) + ";"
    lines[-1] = lines[-1][:-1] + "."
    return lines


if __name__ == "__main__":
    main()
