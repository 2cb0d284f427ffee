"""Genes to proteins: the coding sequences of an annotated record.

A coding sequence is kept only if its own genetic code makes its protein: of 4,319 CDS of E. coli 4,136 are, and each other is counted
with its reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from llama_gene.sequences.alphabet import reverse_complement, translate
from llama_gene.sequences.features import SLIP_BASES, AnnotatedRecord, Feature, Qualifiers, is_code, is_pseudogene, neighbours


@dataclass(frozen=True)
class CodingSequence:
    """A gene and its protein: `dna` from start codon to stop codon, both included; `protein` begins with M and has no stop sign.
    The letters of `dna` are those of the record, in their case.

    `location` is written as GenBank writes it, after the record's id: "NC_000913.3:complement(join(1..6,10..18))" (1-based).
    """

    gene: str
    product: str
    dna: str
    protein: str
    genetic_code: int
    ec_numbers: tuple[str, ...]
    location: str


def coding_sequences(record: AnnotatedRecord, counts: Counter[str] | None = None) -> Iterator[CodingSequence]:
    """Yield the genes of a record whose DNA makes their protein, translated by the CDS's own genetic code.

    The first codon, if it is a start codon of that code, is read as M; the stop is removed; where the record gives the protein it must
    be the same (one whose start codon the annotator read literally is mended, "noted:literal_start"). `counts` receives "read", "kept"
    and "skipped:REASON", read == kept + skipped. Reasons: pseudogene, trans_spliced, other_record, no_join, no_strand, phase_mismatch,
    frameshift (programmed: parts that overlap or leave out 1 or 2 bases), transl_except (selenocysteine), exception (RNA editing and other
    known discrepancies), partial, unknown_genetic_code, ambiguous_letters, broken_codon, no_start, no_stop, inner_stop, mismatch.
    """
    counts = Counter() if counts is None else counts
    for _, found in translate_each(record, counts):
        if isinstance(found, CodingSequence):
            yield found


def translate_each(record: AnnotatedRecord, counts: Counter[str]) -> Iterator[tuple[Feature, CodingSequence | str]]:
    """Yield each CDS of a record with its coding sequence, or with the reason why it has none; see `coding_sequences`."""
    for feature in record.features:
        if feature.kind != "CDS":
            continue
        counts["read"] += 1
        found = _skip_reason(record, feature) or _translated(record, feature, counts)
        counts["kept" if isinstance(found, CodingSequence) else f"skipped:{found}"] += 1
        yield feature, found


def _skip_reason(record: AnnotatedRecord, feature: Feature) -> str:
    """Return why a CDS is left out before it is translated, or an empty string."""
    known = feature.qualifiers
    exceptions = ",".join(known.get("exception", ())).lower()
    if is_pseudogene(feature):
        return "pseudogene"
    if feature.fault:
        return feature.fault
    if "trans_splicing" in known or "trans-splicing" in exceptions:
        return "trans_spliced"
    gaps = [right[0] - left[1] for left, right in neighbours(feature, record)]
    if "ribosomal_slippage" in known or "ribosomal slippage" in exceptions or any(0 < gap <= SLIP_BASES for gap in gaps):
        return "frameshift"
    if any(left[0] < right[1] and right[0] < left[1] for left, right in neighbours(feature, record)):
        return "frameshift"
    if any(gap < 0 for gap in gaps):
        return "trans_spliced"  # parts in another order than on the chromosome
    if "transl_except" in known:
        return "transl_except"
    if exceptions:
        return "exception"
    return "partial" if feature.partial or known.get("codon_start", ("1",)) != ("1",) else ""


def _translated(record: AnnotatedRecord, feature: Feature, counts: Counter[str]) -> CodingSequence | str:
    """Return the coding sequence, or why it is left out."""
    from Bio.Data import CodonTable

    stated = feature.qualifiers.get("transl_table", (str(record.genetic_code),))[0]
    if not (stated.isascii() and stated.isdecimal() and is_code(int(stated))):
        return "unknown_genetic_code"
    code = CodonTable.unambiguous_dna_by_id[int(stated)]
    as_written = _spelled(record.sequence, feature)
    dna = as_written.upper().replace("U", "T")  # a soft-masked record, or one of RNA, where its reader leaves the letters as they are
    if dna.translate(_NO_BASES):
        return "ambiguous_letters"
    if len(dna) % 3 or not dna:
        return "broken_codon"
    annotated = re.sub(r"\s", "", "".join(feature.qualifiers.get("translation", ()))).rstrip("*")
    if dna[:3] not in code.start_codons:
        return "no_start"
    if dna[-3:] not in code.stop_codons:
        return "no_stop"
    literal = translate(dna[:-3], int(stated))
    if "*" in literal[1:]:
        return "inner_stop"
    protein = "M" + literal[1:]
    if annotated not in ("", protein):
        if annotated != literal:
            return "mismatch"
        counts["noted:literal_start"] += 1
    gene = _first(feature.qualifiers, "gene", "locus_tag", "Name", "ID", "protein_id")
    product = _first(feature.qualifiers, "product")
    numbers = tuple(value for key, values in feature.qualifiers.items() if key.lower() == "ec_number" for value in values)
    return CodingSequence(gene, product, as_written, protein, int(stated), numbers, f"{record.id}:{_location(feature)}")


_NO_BASES = str.maketrans("", "", "ACGT")


def _spelled(sequence: str, feature: Feature) -> str:
    """Return the letters of a feature, 5' to 3'."""
    if feature.strand >= 0:
        return "".join(sequence[start:end] for start, end in feature.parts)
    return "".join(reverse_complement(sequence[start:end]) for start, end in feature.parts)


def _location(feature: Feature) -> str:
    """Return a location as GenBank writes it."""
    parts = feature.parts if feature.strand >= 0 else feature.parts[::-1]
    text = ",".join(f"{start + 1}..{end}" for start, end in parts)
    text = f"join({text})" if len(parts) > 1 else text
    return text if feature.strand >= 0 else f"complement({text})"


def _first(qualifiers: Qualifiers, *keys: str) -> str:
    """Return the first value of the first key that there is, else an empty string."""
    return next((qualifiers[key][0] for key in keys if qualifiers.get(key)), "")
