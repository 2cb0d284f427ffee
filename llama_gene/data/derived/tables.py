"""A task may *derive* its rows: its files are not tables of labelled rows, and a function of this list makes the rows from them.

    derive             from                                   to (columns)
    conform            CDS and their proteins                 dna, protein, label 1/0, subset (kind of negative), gene
    cds_translation    CDS and their proteins                 dna, protein, oracle, gene
    family_pairs       sequences with a family                first, second, label 1/0, gene
    gene_structure     GenBank, or GFF beside its FASTA       sequence, states, gene, record
    protein_names      FASTA with names in its headers        sequence, name, accession
    go_slim            FASTA beside a table gene -> term      sequence, terms (separated by ;), gene

Each file gives the rows of its own split, so nothing is drawn across splits. What is drawn depends on the option `seed` and the file's name
alone: a test set must not change with the seed of a training run. Every row says where it comes from (column `source`, "FILE:ROW").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llama_gene.data.derived.coding import ConformOptions, TranslationOptions, conform_rows, translation_rows
from llama_gene.data.derived.gene_structure import StructureOptions, structure_rows
from llama_gene.data.derived.options import option_files, parse_options, under
from llama_gene.data.derived.pairs import FamilyPairOptions, family_pair_rows
from llama_gene.data.derived.proteins import NameOptions, SlimOptions, go_slim_rows, name_rows
from llama_gene.errors import ConfigError, MissingFileError, did_you_mean

Cells = dict[str, str]
"""One row: column -> text, as a table's reader gives it."""


class Derivation(NamedTuple):
    """How rows are made: the options' type, and a function of (file, options, counter of reasons)."""

    options: type[Any]
    read: Callable[[Path, Any, Counter[str]], list[Cells]]


DERIVATIONS: dict[str, Derivation] = {
    "conform": Derivation(ConformOptions, conform_rows),
    "cds_translation": Derivation(TranslationOptions, translation_rows),
    "family_pairs": Derivation(FamilyPairOptions, family_pair_rows),
    "gene_structure": Derivation(StructureOptions, structure_rows),
    "protein_names": Derivation(NameOptions, name_rows),
    "go_slim": Derivation(SlimOptions, go_slim_rows),
}


def check_derivation(name: str, values: Mapping[str, str], where: str) -> list[str]:
    """Return the files that the options name. Raises ConfigError for an unknown derivation, an unknown option or a wrong value."""
    if name not in DERIVATIONS:
        if not name and not values:
            return []
        found = f"{where}: derive '{name}'" if name else f"{where} has derive_options without derive"
        raise ConfigError(found, f"one of {', '.join(DERIVATIONS)}", did_you_mean(name, DERIVATIONS))
    return option_files(parse_options(DERIVATIONS[name].options, values, f"{where}, derive '{name}'"))


def derived_rows(
    name: str, values: Mapping[str, str], path: Path, columns: Sequence[str], data_dir: Path, rejected: Counter[str] | None = None
) -> list[Cells]:
    """Return the rows that a file gives, each with the columns asked for; `rejected` counts what gives none, by reason.

    Raises MissingFileError, ConfigError for options, and for a column that this derivation does not make.
    """
    where = f"derive '{name}'"
    check_derivation(name, values, "this task")
    options = under(parse_options(DERIVATIONS[name].options, values, where), data_dir)
    if not path.is_file():
        raise MissingFileError(path, f"a file for {where}")
    rows = DERIVATIONS[name].read(path, options, Counter() if rejected is None else rejected)
    for column in columns if rows else ():
        if column not in rows[0]:
            raise ConfigError(f"{where} makes no column '{column}'", f"one of {', '.join(rows[0])}", did_you_mean(column, rows[0]))
    return rows
