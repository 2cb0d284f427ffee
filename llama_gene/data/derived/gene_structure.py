"""Structure of genes, one state a base: E exon, I intron, O other (`llama_gene.sequences.features.exon_states`), from annotated genomes.

Each coding sequence (feature CDS) gives the stretch of DNA that it spans and `flank` bases on both sides, turned to its own strand, cut
into tiles of `window` bases. Only genes of that strand colour it: on the strand as read, a gene of the other strand is "other". Where only
CDS are annotated, untranslated exons are "other" as well. A stretch ends where the record ends; tiles with an unknown base (N) are left
out. This is our own set, not one of the papers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from llama_gene.data.derived.options import at_least
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.features import SLIP_BASES, AnnotatedRecord, Feature, exon_states, is_pseudogene, neighbours
from llama_gene.sequences.files import bare_name
from llama_gene.sequences.genbank import read_genbank
from llama_gene.sequences.gff import read_gff

_GFF = (".gff", ".gff3")


@dataclass(frozen=True)
class StructureOptions:
    """Options of `gene_structure`."""

    fasta: Path | None = None
    """FASTA file of a GFF file that does not hold its sequences."""
    names: dict[str, str] = field(default_factory=dict)
    """Sequence names of the GFF file -> those of the FASTA file, where they differ."""
    flank: int = 200
    """Bases on both sides of the coding sequence."""
    window: int = 1000
    """Length of a tile; the last of a gene may be shorter."""
    min_window: int = 100
    """Leave out shorter tiles."""
    with_introns: bool = True
    """Take only genes with an intron."""

    def __post_init__(self) -> None:
        """Check the values. Raises ConfigError."""
        at_least(self.flank, 0, "flank")
        at_least(self.min_window, 1, "min_window")
        at_least(self.window, self.min_window, "window")


def structure_rows(path: Path, options: StructureOptions, rejected: Counter[str]) -> list[dict[str, str]]:
    """Return the tiles of a file's genes; one that two genes would give is taken once."""
    seen: set[tuple[str, str]] = set()
    rows = []
    for record in _records(path, options):
        genes = [gene for gene in record.features if _is_usable(gene, record, options, rejected)]
        states = {strand: _strand_states(record, strand) for strand in {gene.strand for gene in genes}}
        for gene in genes:
            start = max(0, min(begin for begin, _ in gene.parts) - options.flank)
            end = min(len(record.sequence), max(stop for _, stop in gene.parts) + options.flank)
            dna, letters = record.sequence[start:end], states[gene.strand][start:end]
            if gene.strand < 0:
                dna, letters = reverse_complement(dna), letters[::-1]
            name = _name(gene, record, start)
            for place in range(0, len(dna), options.window):
                tile, own = dna[place : place + options.window], letters[place : place + options.window]
                if len(tile) < options.min_window:
                    rejected["tile shorter than min_window"] += 1
                elif "N" in tile:
                    rejected["tile with an unknown base"] += 1
                elif (tile, own) in seen:
                    rejected["tile seen before in its file"] += 1
                else:
                    seen.add((tile, own))
                    source = f"{path.name}:{record.id}:{start + 1}..{end}{'+' if gene.strand > 0 else '-'}:{place + 1}"
                    rows.append({"sequence": tile, "states": own, "gene": name, "record": record.id, "source": source})
    return rows


def _records(path: Path, options: StructureOptions) -> Iterator[AnnotatedRecord]:
    if bare_name(path).suffix in _GFF:
        return read_gff(path, options.fasta, options.names)
    return read_genbank(path)


def _is_usable(feature: Feature, record: AnnotatedRecord, options: StructureOptions, rejected: Counter[str]) -> bool:
    """Tell whether a feature is a gene to ask about, and count the coding sequences that are none."""
    if feature.kind != "CDS":
        return False
    if feature.fault or not feature.strand or is_pseudogene(feature):
        rejected["CDS that cannot be read"] += 1
        return False
    if options.with_introns and not any(right[0] - left[1] > SLIP_BASES for left, right in neighbours(feature, record)):
        rejected["gene without an intron"] += 1
        return False
    return True


def _strand_states(record: AnnotatedRecord, strand: int) -> str:
    """Return the states of a record where only features of one strand count."""
    return exon_states(replace(record, features=tuple(feature for feature in record.features if feature.strand == strand)))


def _name(gene: Feature, record: AnnotatedRecord, start: int) -> str:
    """Return the gene's name, else its place."""
    for key in ("gene", "locus_tag", "Name", "ID", "protein_id"):
        if gene.qualifiers.get(key):
            return gene.qualifiers[key][0]
    return f"{record.id}:{start + 1}"
