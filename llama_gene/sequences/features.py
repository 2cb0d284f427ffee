"""What is known about a sequence: its features, and which of its bases are exon or intron.

Positions are 0-based, end excluded; the parts of a feature are in the order of its transcript. genbank.py and gff.py read features,
genes.py translates them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

EXON, INTRON, OTHER = "E", "I", "O"
"""The letters of `exon_states`."""
Parts = tuple[tuple[int, int], ...]
Qualifiers = Mapping[str, tuple[str, ...]]

SLIP_BASES = 2  # a ribosome slips by one base or two, and no intron is as short
_TRANSCRIPT = re.compile(r"CDS|exon|transcript|.*RNA")  # kinds whose parts are exons; not "gene", whose part spans its introns


@dataclass(frozen=True)
class Feature:
    """Something on a sequence. `strand` is 1, -1, or 0 where it is unknown or differs between parts.

    `partial`: an end lies beyond the record. `fault` says why the parts do not spell the feature ("trans_spliced", "other_record",
    "no_join", "no_strand", "phase_mismatch"), empty if they do.
    """

    kind: str
    parts: Parts
    strand: int
    qualifiers: Qualifiers
    partial: bool = False
    fault: str = ""


@dataclass(frozen=True)
class AnnotatedRecord:
    """One sequence, upper case, and its features; `genetic_code` (an NCBI number) is that of each CDS that states none itself."""

    id: str
    description: str
    organism: str
    sequence: str
    circular: bool
    genetic_code: int
    features: tuple[Feature, ...]


def exon_states(record: AnnotatedRecord) -> str:
    """Return one letter a base: E in an exon of any transcript, I in an intron of one, O elsewhere; both strands in one string.

    Transcripts are features of kind CDS, exon, transcript and *RNA: where only CDS are annotated, untranslated exons read as O. Gaps of 1
    or 2 bases are slips of the ribosome and no introns; pseudogenes are left out.

    >>> gene = Feature("CDS", ((1, 3), (7, 9)), 1, {})
    >>> exon_states(AnnotatedRecord("r", "", "", "ACGTACGTAC", False, 1, (gene,)))
    'OEEIIIIEEO'
    """
    states = bytearray(OTHER.encode() * len(record.sequence))
    transcripts = [feature for feature in record.features if _TRANSCRIPT.fullmatch(feature.kind) and not is_pseudogene(feature)]
    for feature in transcripts:
        if not feature.fault:
            for (_, end), (start, _) in neighbours(feature, record):
                if start - end > SLIP_BASES:
                    states[end:start] = INTRON.encode() * (start - end)
    for feature in transcripts:
        for start, end in feature.parts:
            states[start:end] = EXON.encode() * (end - start)
    return states.decode("ascii")


def neighbours(feature: Feature, record: AnnotatedRecord) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield pairs of consecutive parts, left one first, but not the pair that meets over the origin of a circular record."""
    length = len(record.sequence)
    for before, after in pairwise(feature.parts):
        left, right = (before, after) if feature.strand >= 0 else (after, before)
        if not (record.circular and left[1] == length and right[0] == 0):
            yield left, right


def is_pseudogene(feature: Feature) -> bool:
    """Tell whether a feature is that of a gene that no longer works: what interrupts it is no intron."""
    return "pseudo" in feature.qualifiers or "pseudogene" in feature.qualifiers


def stated_code(features: Iterable[Feature], default: int) -> int:
    """Return the genetic code that the first CDS to say so says, else the default."""
    stated = (value for feature in features if feature.kind == "CDS" for value in feature.qualifiers.get("transl_table", ()))
    return next((int(value) for value in stated if value.isdecimal() and is_code(int(value))), default)


def is_code(table: int) -> bool:
    """Tell whether NCBI has a genetic code of this number."""
    from Bio.Data import CodonTable

    return table in CodonTable.unambiguous_dna_by_id
