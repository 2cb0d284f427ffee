"""Read UniProt: flat files (.dat) with all that is known about a protein, and what the headers of FASTA files say."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import check_letters, get_alphabet
from llama_gene.sequences.files import one_line, open_bytes, spoken_path
from llama_gene.sequences.flat_files import FLAT_FILE_HINT, PARSER_FAULTS, check_length, entries

_GO_ASPECTS = {"C": "cellular component", "F": "molecular function", "P": "biological process"}


@dataclass(frozen=True)
class ProteinEntry:
    """A protein and what is known about it; empty where its source does not say. A GO term reads "GO:0005829 C:cytosol"."""

    accession: str
    name: str
    organism: str = ""
    gene: str = ""
    function: str = ""
    go_terms: tuple[str, ...] = ()
    ec_numbers: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    sequence: str = ""


def read_uniprot(path: Path | str) -> Iterator[ProteinEntry]:
    """Yield the entries of a UniProt flat file (.dat, .txt), plain or compressed.

    Raises MissingFileError, and InputError (file, first line of the entry) for one that is damaged or has another length than it says.
    """
    with open_bytes(path) as handle:
        for where, entry in parse_uniprot(handle, spoken_path(path)):
            check_letters(entry.sequence, get_alphabet("protein"), f"{where}, entry '{entry.accession}'")
            yield entry


def parse_uniprot(handle: BinaryIO, where: str) -> Iterator[tuple[str, ProteinEntry]]:
    """Yield ("FILE, line N", entry) of an open UniProt flat file, the letters unchecked and in their case; see `read_uniprot`."""
    for place, text in entries(handle, where, "ID   "):
        yield place, _uniprot_entry(text, place)


def parse_uniprot_header(header: str, sequence: str = "") -> ProteinEntry:
    """Return what a FASTA header says; UniProt's, Prokka's (ACC EC~~~gene~~~product~~~COG), and plain ones ("ID name [organism]").

    >>> entry = parse_uniprot_header("sp|P37621|YHHS_ECOLI MFS-type transporter YhhS OS=Escherichia coli (strain K12) OX=83333 GN=yhhS")
    >>> entry.accession, entry.name, entry.gene, entry.organism
    ('P37621', 'MFS-type transporter YhhS', 'yhhS', 'Escherichia coli (strain K12)')
    >>> parse_uniprot_header("P11558 2.8.4.1~~~mcrA~~~Methyl-coenzyme M reductase~~~").ec_numbers
    ('2.8.4.1',)
    """
    identifier, _, text = header.removeprefix(">").strip().partition(" ")
    text = text.strip()
    if "~~~" in text:
        numbers, gene, product = (*text.split("~~~"), "", "")[:3]
        return ProteinEntry(identifier, product, gene=gene, ec_numbers=_ec_numbers(numbers), sequence=sequence)
    if match := re.fullmatch(r"(?:sp|tr)\|([^|]+)\|(\S*)", identifier):
        name, *tagged = re.split(r"(?:^|\s)(OS|OX|GN|PE|SV)=", text)
        tags = {tag: value.strip() for tag, value in zip(tagged[::2], tagged[1::2], strict=True)}
        name, organism, gene = name.strip() or match[2], tags.get("OS", ""), tags.get("GN", "")
        return ProteinEntry(match[1], name, organism, gene, ec_numbers=_named_ec_numbers(name), sequence=sequence)
    bracketed = re.fullmatch(r"(.*?)\s*\[([^\[\]]+)\]", text)
    name, organism = (bracketed[1], bracketed[2]) if bracketed else (text, "")
    return ProteinEntry(identifier, name, organism, ec_numbers=_named_ec_numbers(name), sequence=sequence)


def describe_protein(entry: ProteinEntry) -> str:
    """Return what is known about a protein as an English document: a line for each thing known, always in this order.

    Empty if nothing but its accession is known.

    >>> entry = ProteinEntry("P1", "Lactase", "Homo sapiens", "LCT", "Splits lactose.", ("GO:0005829 C:cytosol",), ("3.2.1.108",))
    >>> print(describe_protein(entry))
    Protein: Lactase
    Gene: LCT
    Organism: Homo sapiens
    Function: Splits lactose.
    EC number: 3.2.1.108
    GO term: cytosol (cellular component, GO:0005829)
    """
    named = (
        ("Protein", (entry.name,)),
        ("Gene", (entry.gene,)),
        ("Organism", (entry.organism,)),
        ("Function", (entry.function,)),
        ("EC number", entry.ec_numbers),
        ("GO term", tuple(map(_spoken_term, entry.go_terms))),
        ("Keyword", entry.keywords),
    )
    lines = []
    for label, values in named:
        known = [value for value in values if value]
        if known:
            lines.append(f"{label}{'s' if len(known) > 1 else ''}: {'; '.join(known)}")
    return "\n".join(lines)


def _uniprot_entry(text: str, where: str) -> ProteinEntry:
    """Return the entry that a UniProt text of one entry holds."""
    from Bio import SwissProt

    try:
        parsed = SwissProt.read(io.StringIO(text))
        accession, stated = parsed.accessions[0], str(parsed.sequence_length)
        genes = [name for names in parsed.gene_name for key in _GENE_KEYS for name in _listed(names.get(key))]
    except PARSER_FAULTS as error:
        raise InputError(f"{where}: {one_line(error) or type(error).__name__}", "a whole UniProt entry", FLAT_FILE_HINT) from error
    body = re.search(r"^SQ .*\n((?:.*\n)*?)//", text, re.MULTILINE)
    num_letters = len(re.sub(r"\s", "", body[1])) if body else 0
    check_length(where, stated, num_letters, parsed.sequence)
    named = re.search(r"(?:RecName|SubName): Full=([^;{]+)", parsed.description)
    functions = [_plain(comment.removeprefix("FUNCTION:")) for comment in parsed.comments if comment.startswith("FUNCTION:")]
    go_terms = tuple(" ".join(reference[1:3]) for reference in parsed.cross_references if reference[0] == "GO")
    return ProteinEntry(
        accession,
        named[1].strip() if named else parsed.entry_name,
        parsed.organism.rstrip("."),
        _plain(genes[0]) if genes else "",
        " ".join(functions),
        go_terms,
        _named_ec_numbers(parsed.description),
        tuple(_plain(keyword) for keyword in parsed.keywords),
        parsed.sequence,
    )


_GENE_KEYS = ("Name", "OrderedLocusNames", "ORFNames")


def _listed(value: str | list[str] | None) -> list[str]:
    """Return one name, several or none as a list."""
    return value if isinstance(value, list) else [value] if value else []


def _plain(text: str) -> str:
    """Return UniProt's prose without its evidence tags and literature references."""
    return re.sub(r"\s*(?:\{ECO:[^}]*\}\.?|\(PubMed:[^)]*\))", "", text).strip()


def _named_ec_numbers(text: str) -> tuple[str, ...]:
    """Return the numbers that a text calls EC numbers: "EC=1.1.1.1", "(EC 1.1.1.1)"."""
    return _ec_numbers(" ".join(re.findall(r"\bEC[ :=]+([\w.-]+)", text)))


def _ec_numbers(text: str) -> tuple[str, ...]:
    """Return the EC numbers in a text, each once: 1.1.1.1, and unfinished ones such as 1.1.1.- and 3.6.4.n1."""
    return tuple(dict.fromkeys(re.findall(r"(?<![\w.])\d+\.(?:\d+|-)\.(?:\d+|-)\.(?:n?\d+|-)(?![\w.]*\d)", text)))


def _spoken_term(term: str) -> str:
    """Return a GO term as a sentence has it: "GO:0005829 C:cytosol" is "cytosol (cellular component, GO:0005829)"."""
    number, _, rest = term.partition(" ")
    aspect, _, name = rest.partition(":")
    return f"{name} ({_GO_ASPECTS[aspect]}, {number})" if name and aspect in _GO_ASPECTS else term
