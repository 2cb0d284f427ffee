"""Variants of sequences: mutation lists ("A123G", "V12_K14del") and VCF files, each checked against the letters that it changes.

A variant is one or more edits of one named sequence: at `start` (0-based) the letters `reference` become `alternative`. A list's row may
hold several, joined by ':', ';' or ','; they are made together, and must not overlap. A VCF row is one variant for each ALT allele.

A mutation is written as laboratories and HGVS do, positions from 1, with or without "p.", "g.", "c.", "n." or "m." before it, residues in
one letter or three:

    A123G, p.Val12Leu     substitution        K23del, 23_25del     deletion
    123A>G                the same, DNA       12_13insGP           insertion between two neighbours
    WT, =                 no change           23_25delinsGG        deletion and insertion
                                              K23dup, 23_25dup     letters twice

Positions count letters of the sequence that is given ("c.": from its first letter, not from a start codon elsewhere). Letters that a
mutation or a VCF row names must be those of the sequence: a number that is off by one is found at once, not scored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from llama_gene.errors import InputError, did_you_mean
from llama_gene.sequences.alphabet import get_alphabet
from llama_gene.sequences.files import STANDARD_INPUT, open_text, spoken_path
from llama_gene.sequences.records import iterate_table, read_records

THREE_LETTERS = {
    "Ala": "A", "Arg": "R", "Asn": "N", "Asp": "D", "Cys": "C", "Gln": "Q", "Glu": "E", "Gly": "G", "His": "H", "Ile": "I", "Leu": "L",
    "Lys": "K", "Met": "M", "Phe": "F", "Pro": "P", "Ser": "S", "Thr": "T", "Trp": "W", "Tyr": "Y", "Val": "V", "Sec": "U", "Pyl": "O",
    "Ter": "*", "Xaa": "X",
}  # fmt: skip
UNCHANGED = ("wt", "_wt", "=")
_RESIDUE = re.compile("|".join(THREE_LETTERS))
_MUTATION = re.compile(
    r"(?:[pgcnm]\.)?\(?"
    r"(?P<first>[A-Za-z*]?)(?P<start>\d+)(?:_(?P<last>[A-Za-z*]?)(?P<end>\d+))?"
    r"(?:del(?:ins|(?P<deleted>[A-Za-z]*)ins)(?P<replacing>[A-Za-z*]+)|del(?P<gone>[A-Za-z]*)|dup(?P<twice>[A-Za-z]*)"
    r"|ins(?P<inserted>[A-Za-z*]+)|(?P<old>[A-Za-z]+)>(?P<new>[A-Za-z]+)|(?P<to>[A-Za-z*=]))\)?"
)
_FRAMESHIFT = re.compile(r"(?:[pgcnm]\.)?\(?[A-Za-z*]?\d+[A-Za-z*]?fs\S*")
_BASES = frozenset("ACGT")


@dataclass(frozen=True)
class Edit:
    """At `start` (0-based) the letters `reference` become `alternative`; either may be empty."""

    start: int
    reference: str
    alternative: str

    @property
    def end(self) -> int:
        """Where the sequence goes on unchanged."""
        return self.start + len(self.reference)


@dataclass(frozen=True)
class Variant:
    """The edits of one row (or allele), in the order of their places; none for the unchanged sequence."""

    sequence: str
    """Name of the sequence."""
    name: str
    edits: tuple[Edit, ...]
    line: int
    """Where it stands in its file."""
    cells: Mapping[str, str] = field(default_factory=dict)
    """The columns of a mutation list."""


def mutate(sequence: str, edits: Collection[Edit]) -> str:
    """Return a sequence with all edits made.

    >>> mutate("ACGT", [Edit(1, "C", "TT"), Edit(3, "T", "")])
    'ATTG'
    """
    parts, place = [], 0
    for edit in edits:
        parts += [sequence[place : edit.start], edit.alternative]
        place = edit.end
    return "".join([*parts, sequence[place:]])


def windows(sequence: str, edits: tuple[Edit, ...], flank: int | None) -> tuple[int, str, str]:
    """Return (start, reference window, mutant window): `flank` letters on each side, fewer at an end; None: the whole sequence.

    >>> windows("AAACGTTTT", (Edit(4, "G", "CC"),), flank=2)
    (2, 'ACGTT', 'ACCCTT')
    """
    if flank is None or not edits:
        return 0, sequence, mutate(sequence, edits)
    start, end = max(0, edits[0].start - flank), min(len(sequence), edits[-1].end + flank)
    shifted = [Edit(edit.start - start, edit.reference, edit.alternative) for edit in edits]
    return start, sequence[start:end], mutate(sequence[start:end], shifted)


# Mutation lists


def read_mutations(
    path: Path | str,
    sequences: Mapping[str, str],
    kind: str,
    rejected: Counter[str],
    *,
    mutation_column: str = "mutation",
    id_column: str = "id",
    first_position: int = 1,
    keep: Collection[str] = (),
) -> Iterator[Variant]:
    """Yield the variants of a CSV or TSV table of (id of a sequence, mutation); without `id_column` there must be one sequence only.

    Stops and frame shifts, which leave nothing comparable, are counted in `rejected`. Raises InputError with file and line for a name that
    no sequence has, for what is no mutation, letters that are not the sequence's, and a place beyond its end.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "list.csv"
    ...     _ = path.write_text("id,mutation\\ngb1,K2R:L4_I5del\\n")
    ...     [variant.edits for variant in read_mutations(path, {"gb1": "MKYLIL"}, "protein", Counter())]
    [(Edit(start=1, reference='K', alternative='R'), Edit(start=3, reference='LI', alternative=''))]
    """
    where = spoken_path(path)
    for line, cells in iterate_table(path, [mutation_column, *keep]):
        place = f"{where}, line {line}"
        if id_column in cells:
            name = cells[id_column].strip()
        elif len(sequences) == 1:
            name = next(iter(sequences))
        else:
            raise InputError(f"{where} has no column '{id_column}'", f"one, for there are {len(sequences)} sequences", "Name it: id_column")
        if name not in sequences:
            known = ", ".join(list(sequences)[:3]) + (" ..." if len(sequences) > 3 else "")
            raise InputError(f"{place}: no sequence is named '{name}'", f"one of {known}", did_you_mean(name, sequences))
        text = cells[mutation_column].strip()
        edits = parse_mutations(text, sequences[name], kind, place, first_position)
        if isinstance(edits, str):
            rejected[edits] += 1
        else:
            yield Variant(name, text, edits, line, cells)


def parse_mutations(text: str, sequence: str, kind: str, where: str, first_position: int = 1) -> tuple[Edit, ...] | str:
    """Return the edits that a list's cell names, in the order of their places, or why they cannot be scored.

    `first_position` is the number of the sequence's first letter. Raises InputError that begins with `where`.

    >>> parse_mutations("p.[Val2Leu;Ter4=]", "MVK*", "protein", "here")
    (Edit(start=1, reference='V', alternative='L'),)
    """
    bare = re.sub(r"^([pgcnm]\.)?\[(.*)\]$", r"\2", text.strip())
    if kind == "protein":
        bare = _RESIDUE.sub(lambda match: THREE_LETTERS[match.group()], bare)
    edits: list[Edit] = []
    for part in (part.strip() for part in re.split("[:;,]", bare)):
        if part.lower() in UNCHANGED:
            continue
        if _FRAMESHIFT.fullmatch(part):
            return "frame shift"
        edit = _parse(part, sequence, f"{where}: '{part}'", first_position)
        if edit.reference == edit.alternative:
            continue
        if "*" in edit.alternative:
            return "stop"
        _check_alternative(edit.alternative, kind, f"{where}: '{part}'")
        edits.append(edit)
    edits.sort(key=lambda edit: (edit.start, edit.end))
    for before, after in pairwise(edits):
        if after.start < before.end or (after.start == after.end == before.start):
            raise InputError(f"{where}: two mutations of '{text}' change position {after.start + first_position}", "one each", "Join them")
    return tuple(edits)


def _parse(part: str, sequence: str, where: str, first_position: int) -> Edit:
    """Return the edit of one mutation, its letters compared with the sequence's."""
    found = _MUTATION.fullmatch(part)
    if found is None:
        raise InputError(f"{where} is no mutation", "such as A123G, K23del, 23_25del, 12_13insGP, 23_25delinsGG, K23dup or WT", "Mend it")
    group = {name: (value or "").upper() for name, value in found.groupdict().items()}
    start = int(group["start"]) - first_position
    stated_letters = group["old"] or group["deleted"] or group["gone"] or group["twice"]
    end = int(group["end"]) - first_position + 1 if group["end"] else start + max(1, len(stated_letters))
    if not 0 <= start < end <= len(sequence):
        last = first_position + len(sequence) - 1
        raise InputError(f"{where} lies outside its sequence", f"positions {first_position} to {last}", "Check it, and first_position")
    letters = sequence[start:end]
    named = [(group["first"], letters[:1], start), (group["last"], letters[-1:], end - 1), (stated_letters, letters, start)]
    for stated, held, place in named:
        if stated and stated != held:
            raise _not_there(where, stated, held, place, sequence, first_position)
    if group["inserted"]:
        if end != start + 2:
            raise InputError(f"{where} inserts at no boundary", "two neighbours, such as 12_13insGP", "Name the letters on both sides")
        return Edit(start + 1, "", group["inserted"])
    if found["twice"] is not None:
        return Edit(end, "", letters)
    if found["gone"] is not None:
        return Edit(start, letters, "")
    if group["to"] and (group["end"] or not group["first"]) and group["to"] != "=":
        raise InputError(f"{where} does not say which letter it replaces", "such as A123G or 123A>G", "Write the letter of the sequence")
    new = letters if group["to"] == "=" else group["replacing"] or group["new"] or group["to"]
    return Edit(start, letters, new)


def _not_there(where: str, stated: str, held: str, place: int, sequence: str, first_position: int) -> InputError:
    """Return the error for a letter that the sequence does not have there; a neighbour that has it says how the numbers are off."""
    action = "Check that the list and the sequence belong together"
    for off in (1, -1):
        if place + off >= 0 and sequence[place + off : place + off + len(stated)] == stated:
            action += f" (position {place + off + first_position} has it: see first_position)"
            break
    return InputError(f"{where} names {stated} at {place + first_position}, where the sequence has {held}", "its own letter", action)


def _check_alternative(letters: str, kind: str, where: str) -> None:
    """Raise InputError for a new letter that the alphabet lacks."""
    alphabet = get_alphabet(kind)
    strange = next((letter for letter in letters if letter not in alphabet.letters + alphabet.ambiguous), None)
    if strange is not None:
        raise InputError(f"{where}: {strange!r} is not a letter of {alphabet.name}", alphabet.letters, "Mend it, or set kind")


# VCF


def read_vcf(path: Path | str, reference: Mapping[str, str], rejected: Counter[str]) -> Iterator[Variant]:
    """Yield a variant for each ALT allele of a VCF file (plain or compressed), its name the row's ID or CONTIG:POS:REF>ALT.

    Alleles that are no sequence of their own are counted in `rejected`: "no alternative" ('.'), "overlapping deletion" ('*'), "symbolic
    allele" (<DEL>), "breakend", "ambiguous allele" (N), "same as the reference"; and "ambiguous reference" where the FASTA has an
    ambiguity code at a base of REF. Raises InputError with the line for a row that cannot be read, a contig that `reference` lacks, a
    place beyond its end, and a REF that is not what stands there.
    """
    for line, contig, fields in _vcf_rows(path):
        where = f"{spoken_path(path)}, line {line}"
        if contig not in reference:
            raise unknown_contig(where, contig, reference)
        start, ref = _reference_allele(fields, where)
        letters = reference[contig][start : start + len(ref)]
        alleles = fields[4].split(",")
        if len(letters) < len(ref):
            raise InputError(
                f"{where}: {contig}:{fields[1]} with REF {_short(ref)} ends beyond the contig",
                f"positions 1 to {len(reference[contig])}",
                "Use the reference that the variants were called on",
            )
        if letters != ref:
            differing = {held for held, stated in zip(letters, ref, strict=True) if held != stated}
            if differing & _BASES:
                raise InputError(
                    f"{where}: REF is {_short(ref)}, and the reference has {_short(letters)} at {contig}:{fields[1]}",
                    "the same letters",
                    "Use the reference that the variants were called on",
                )
            rejected["ambiguous reference"] += len(alleles)
            continue
        for allele in alleles:
            alternative = allele.upper()
            if reason := _allele_fault(alternative, ref, where):
                rejected[reason] += 1
                continue
            name = f"{contig}:{fields[1]}:{ref}>{alternative}"
            yield Variant(contig, name, (Edit(start, ref, alternative),), line, {"vcf_id": fields[2]})


def vcf_contigs(path: Path | str) -> dict[str, int]:
    """Return the contigs of a VCF's rows, in order, each with the line where it first stands. Raises InputError if there is no row."""
    if str(path) == STANDARD_INPUT:
        raise InputError("the VCF comes from standard input", "a file, which is read twice", "Write it into a file")
    found: dict[str, int] = {}
    for line, contig, _ in _vcf_rows(path):
        found.setdefault(contig, line)
    if not found:
        raise InputError(f"{path} holds no variant", "at least one row after the header", "Check that the file is whole")
    return found


def read_reference(path: Path, contigs: Mapping[str, int], vcf: Path) -> dict[str, str]:
    """Return the named contigs of a FASTA file, upper case: one byte a base, none for a contig without a variant.

    Raises InputError for a contig that the FASTA does not have, with its line in the VCF, and for two records of one name.
    """
    found: dict[str, str] = {}
    others: list[str] = []
    for record in read_records(path, "dna"):
        if record.id not in contigs:
            others.append(record.id)
        elif record.id in found:
            raise InputError(f"{path}: two records are named '{record.id}'", "an id of its own for each record", "Rename or remove one")
        else:
            found[record.id] = record.sequence
    for contig, line in contigs.items():
        if contig not in found:
            raise unknown_contig(f"{vcf}, line {line}", contig, [*found, *others])
    return found


def unknown_contig(where: str, contig: str, known: Collection[str]) -> InputError:
    """Return the error for a contig that the reference lacks; a prefix "chr" that only one side has is named."""
    twin = next((name for name in _spellings(contig) if name in known), None)
    if twin is not None:
        prefix = "the VCF" if contig.startswith("chr") else "the FASTA"
        action = f"The same contig is '{twin}' there: {prefix} writes chr before the name. Rename the contigs of either file"
        return InputError(f"{where}: the reference has no contig '{contig}'", "the same names in VCF and FASTA", action)
    names = ", ".join(sorted(known)[:5]) + (" ..." if len(known) > 5 else "")
    action = did_you_mean(contig, known) or "Use the reference that the variants were called on"
    return InputError(f"{where}: the reference has no contig '{contig}'", f"one of {names}", action)


def _spellings(contig: str) -> list[str]:
    """Return the other spellings of a chromosome's name."""
    bare = contig.removeprefix("chr")
    mitochondrion = {"M": "MT", "MT": "M"}.get(bare)
    names = [bare, f"chr{bare}", *([mitochondrion, f"chr{mitochondrion}"] if mitochondrion else [])]
    return [name for name in names if name != contig]


def _vcf_rows(path: Path | str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line, contig, first five fields) of a VCF's rows. Raises InputError for a file or a row that is no VCF."""
    where = spoken_path(path)
    with open_text(path) as handle:
        has_header = False
        for number, raw in enumerate(handle, start=1):
            line = raw.rstrip("\r\n")
            if number == 1 and line.startswith("BCF"):
                raise InputError(f"{where} is BCF", "VCF text", "Convert it: bcftools view")
            if line.startswith("#"):
                has_header = has_header or line.startswith(("##fileformat=VCF", "#CHROM"))
                continue
            if not line.strip():
                continue
            if not has_header:
                raise InputError(f"{where}, line {number}: {line[:40]!r} without a header", "##fileformat=VCF first", "Is it a VCF?")
            fields = line.split("\t", 5)[:5]
            if len(fields) < 5:
                what = " (are its columns separated by spaces?)" if len(line.split()) >= 5 else ""
                raise InputError(f"{where}, line {number}: {len(fields)} columns{what}", "CHROM POS ID REF ALT, with tabs", "Mend the line")
            yield number, fields[0], fields
    if not has_header:
        raise InputError(f"{where} is no VCF: it has no header", "##fileformat=VCF first", "Check that the file is whole")


def _reference_allele(fields: list[str], where: str) -> tuple[int, str]:
    """Return (0-based start, REF) of a row."""
    if not fields[1].isascii() or not fields[1].isdigit() or int(fields[1]) < 1:
        raise InputError(f"{where}: POS is '{fields[1]}'", "a position from 1 on", "Mend the line")
    ref = fields[3].upper()
    if not re.fullmatch("[ACGTN]+", ref):
        raise InputError(f"{where}: REF is '{_short(fields[3])}'", "letters A, C, G, T and N", "Mend the line")
    return int(fields[1]) - 1, ref


def _allele_fault(alternative: str, ref: str, where: str) -> str:
    """Return why an ALT allele cannot be scored, an empty string if it can. Raises InputError for what no VCF allows."""
    if alternative in (".", ""):
        return "no alternative"
    if alternative == "*":
        return "overlapping deletion"
    if alternative.startswith("<"):
        return "symbolic allele"
    if any(sign in alternative for sign in "[]."):
        return "breakend"
    if set(alternative) <= _BASES:
        return "same as the reference" if alternative == ref else ""
    if re.fullmatch("[ACGTRYSWKMBDHVN]+", alternative):
        return "ambiguous allele"
    raise InputError(f"{where}: ALT is '{_short(alternative)}'", "letters A, C, G, T and N, '*', '.' or <NAME>", "Mend the line")


def _short(letters: str) -> str:
    """Return letters as a message shows them."""
    return letters if len(letters) <= 20 else f"{letters[:17]}..."
