"""Proteins of FASTA files with what is known about them: their names (UniProt text function), or their GO slim terms.

`protein_names`: the header's protein name is the answer. `go_slim`: the header's gene name (GN=) is looked up in a table of three columns
without a header line, systematic name, gene name and GO term (SGD's slim mapping). Terms that every gene could have, the three roots, say
"nothing known" there and are left out; a gene that has nothing else is no row.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_gene.data.derived.options import at_least
from llama_gene.errors import InputError
from llama_gene.sequences.files import open_text
from llama_gene.sequences.records import read_records
from llama_gene.sequences.uniprot import ProteinEntry, parse_uniprot_header

TERM_SEPARATOR = ";"
"""Between the terms of a row of `go_slim`."""


@dataclass(frozen=True)
class NameOptions:
    """Options of `protein_names`."""

    reviewed: bool = True
    """Leave out TrEMBL entries (`tr|`), whose names are predictions."""
    unnamed: tuple[str, ...] = ("uncharacterized", "uncharacterised", "hypothetical", "unknown", "predicted")
    """Leave out names that hold one of these words, in whatever case."""
    min_residues: int = 20
    max_residues: int = 1000
    """Leave out shorter and longer proteins."""
    sample: int = 0
    """Keep a seeded sample of so many proteins of each file; 0 keeps all."""
    seed: int = 0


@dataclass(frozen=True)
class SlimOptions:
    """Options of `go_slim`."""

    annotations: Path
    """Table of systematic name, gene name, GO term, between tabs, without a header line; plain or compressed."""
    roots: tuple[str, ...] = ("GO:0008150", "GO:0003674", "GO:0005575")
    """Terms that say nothing: biological process, molecular function, cellular component."""
    min_residues: int = 20
    max_residues: int = 1000
    """Leave out shorter and longer proteins."""


def name_rows(path: Path, options: NameOptions, rejected: Counter[str]) -> list[dict[str, str]]:
    """Return one row a protein with a name."""
    at_least(options.sample, 0, "sample")
    rows = []
    for entry, source, is_reviewed in _entries(path):
        reason = _length_fault(entry.sequence, options.min_residues, options.max_residues)
        if not entry.name or entry.name == entry.accession:
            reason = reason or "header without a name"
        elif options.reviewed and not is_reviewed:
            reason = reason or "entry not reviewed"
        elif any(word.lower() in entry.name.lower() for word in options.unnamed):
            reason = reason or "name that says nothing"
        if reason:
            rejected[reason] += 1
        else:
            rows.append({"sequence": entry.sequence, "name": entry.name, "accession": entry.accession, "source": source})
    if options.sample and len(rows) > options.sample:
        rejected["not in the sample"] += len(rows) - options.sample
        rng = random.Random(f"{options.seed}/{path.name}/protein_names")
        rows = [rows[number] for number in sorted(rng.sample(range(len(rows)), options.sample))]
    return rows


def go_slim_rows(path: Path, options: SlimOptions, rejected: Counter[str]) -> list[dict[str, str]]:
    """Return one row a gene with at least one slim term; its terms are sorted. Of two proteins of one gene the first is taken."""
    terms = _slim_terms(options.annotations)
    roots = set(options.roots)
    seen: set[str] = set()
    rows = []
    for entry, source, _ in _entries(path):
        reason = _length_fault(entry.sequence, options.min_residues, options.max_residues)
        own = terms.get(entry.gene, set())
        if not own:
            reason = reason or "gene not in the slim table"
        elif not own - roots:
            reason = reason or "gene with root terms only"
        elif entry.gene in seen:
            reason = reason or "second protein of a gene"
        if reason:
            rejected[reason] += 1
            continue
        seen.add(entry.gene)
        text = TERM_SEPARATOR.join(sorted(own - roots))
        rows.append({"sequence": entry.sequence, "terms": text, "gene": entry.gene, "source": source})
    return rows


def _entries(path: Path) -> Iterator[tuple[ProteinEntry, str, bool]]:
    """Yield (entry, "FILE:RECORD", whether it is reviewed) of a FASTA file; Prokka's files are made of reviewed entries."""
    for number, record in enumerate(read_records(path, "protein"), start=1):
        entry = parse_uniprot_header(f"{record.id} {record.description}", record.sequence.rstrip("*"))
        yield entry, f"{path.name}:{number}", not record.id.startswith("tr|")


def _length_fault(sequence: str, least: int, most: int) -> str:
    """Return why a protein's length is not wanted, or an empty string."""
    if len(sequence) < least:
        return "protein shorter than min_residues"
    return "protein longer than max_residues" if len(sequence) > most else ""


def _slim_terms(path: Path) -> dict[str, set[str]]:
    """Return the terms of each name, systematic names and gene names alike. Raises InputError with file and line."""
    terms: dict[str, set[str]] = defaultdict(set)
    with open_text(path) as handle:
        for number, line in enumerate(handle, start=1):
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) != 3:
                raise InputError(f"{path}, line {number}: {len(cells)} columns", "systematic name, gene name, GO term", "Mend the line")
            for name in {cells[0], cells[1]} - {""}:
                if cells[2]:
                    terms[name].add(cells[2])
    return terms
