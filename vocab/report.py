"""Measure a spliced tokenizer again on other texts: `python vocab/report.py FOLDER BASE --dna FASTA --protein FASTA --english TEXT`."""

import argparse
from pathlib import Path

from llama_gene.sequences.records import read_documents, read_records
from llama_gene.tokenization.report import markdown, report

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="tokenizer folder")
    parser.add_argument("base", help="what it was spliced behind: tokenizer.model, folder or hub id")
    for kind in ("dna", "protein", "english"):
        parser.add_argument(f"--{kind}", type=Path, nargs="*", default=[], help=f"held-out {kind} files")
    given = parser.parse_args()
    dna = [record.sequence for path in given.dna for record in read_records(path, "dna")]
    protein = [record.sequence for path in given.protein for record in read_records(path, "protein")]
    english = [text for path in given.english for _, text in read_documents(path)]
    print(markdown(report(given.folder, given.base, dna, protein, english)))
