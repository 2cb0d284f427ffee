"""Read sequences with what is known about them: GenBank, GFF3 with its FASTA, UniProt flat files and FASTA headers.

    read_genbank, read_gff -> AnnotatedRecord -> coding_sequences (gene -> protein), exon_states (structure tasks)
    read_uniprot, parse_uniprot_header -> ProteinEntry

One record is in memory at a time (GFF lines wait compressed until their sequence comes). Biopython parses; but it skips what precedes a
record, only warns where a sequence is shorter than its LOCUS line says, and raises anything from KeyError to AssertionError on a damaged
one. So a file is cut into records here, each is parsed by itself, and the letters of the file are counted against those of the
result: a fault is one InputError with file and line, and no base is lost unseen.

A coding sequence is kept only if its own genetic code makes its protein: of 4,319 CDS of E. coli 4,136 are, and each other is counted
with its reason. Positions are 0-based, end excluded; the parts of a feature are in the order of its transcript.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import check_letters, get_alphabet, reverse_complement, translate
from llama_gene.sequences.records import Record, _Limits, _one_line, _open, _open_text, _parse_records, read_records

EXON, INTRON, OTHER = "E", "I", "O"
"""The letters of `exon_states`."""
Parts = tuple[tuple[int, int], ...]
Qualifiers = Mapping[str, tuple[str, ...]]

_SLIP_BASES = 2  # a ribosome slips by one base or two, and no intron is as short
_TRANSCRIPT = re.compile(r"CDS|exon|transcript|.*RNA")  # kinds whose parts are exons; not "gene", whose part spans its introns
# What Biopython raises on damaged records (found by mutating good ones), all of which are faults of the file
_PARSER_FAULTS = (ValueError, AssertionError, LookupError, AttributeError, TypeError, NameError, RuntimeError, StopIteration)


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


@dataclass(frozen=True)
class CodingSequence:
    """A gene and its protein: `dna` from start codon to stop codon, both included; `protein` begins with M and has no stop sign.

    `location` is written as GenBank writes it, after the record's id: "NC_000913.3:complement(join(1..6,10..18))" (1-based).
    """

    gene: str
    product: str
    dna: str
    protein: str
    genetic_code: int
    ec_numbers: tuple[str, ...]
    location: str


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


def read_genbank(path: Path, genetic_code: int = 1) -> Iterator[AnnotatedRecord]:
    """Yield the records of a GenBank file (.gb .gbk .gbff), plain or compressed.

    `genetic_code` holds where a record has no /transl_table. Raises MissingFileError, ConfigError for a code that does not exist, and
    InputError (file, first line of the record) for a record that is damaged, holds a protein, lacks its sequence, or has another length
    than it says.
    """
    translate("", genetic_code)
    for where, text in _entries(path, "LOCUS "):
        yield _genbank_record(text, where, genetic_code)


def read_gff(
    gff: Path, fasta: Path | None = None, names: Mapping[str, str] | None = None, genetic_code: int = 1
) -> Iterator[AnnotatedRecord]:
    """Yield the sequences of `fasta` (else of the ##FASTA section of the GFF3 file), each with its features.

    `names` maps names of the GFF file to those of the FASTA file, for files of one assembly that name its sequences differently. CDS lines
    of one ID (or, where each has an ID of its own, of one Parent) become one feature, exons become the parts of their transcript, and a CDS
    takes gene, product and pseudo from its ancestors if it lacks them.
    Raises MissingFileError, and InputError (file, line) for a line that is not GFF3, and for names without a sequence (both sides named).
    """
    translate("", genetic_code)
    lines = _read_gff_lines(gff)
    if fasta is None and not lines.has_fasta:
        raise InputError(f"{gff} holds no ##FASTA section", "the sequences too", "Name the FASTA file of the same assembly")
    ids = set(_fasta_ids(fasta) if fasta is not None else _embedded_ids(gff))
    owners = _match_names(lines.names, ids, names or {}, f"{gff}", f"{fasta or 'its ##FASTA section'}")
    for record in read_records(fasta) if fasta is not None else _embedded_records(gff):
        rows = [_gff_row(line, gff) for name in owners.get(record.id, ()) for line in lines.of(name)]
        yield _gff_record(record, rows, gff, genetic_code)


def coding_sequences(record: AnnotatedRecord, counts: Counter[str] | None = None) -> Iterator[CodingSequence]:
    """Yield the genes of a record whose DNA makes their protein, translated by the CDS's own genetic code.

    The first codon, if it is a start codon of that code, is read as M; the stop is removed; where the record gives the protein it must
    be the same (one whose start codon the annotator read literally is mended, "noted:literal_start"). `counts` receives "read", "kept"
    and "skipped:REASON", read == kept + skipped. Reasons: pseudogene, trans_spliced, other_record, no_join, no_strand, phase_mismatch,
    frameshift (programmed: parts that overlap or leave out 1 or 2 bases), transl_except (selenocysteine), exception (RNA editing and other
    known discrepancies), partial, unknown_genetic_code, ambiguous_letters, broken_codon, no_start, no_stop, inner_stop, mismatch.
    """
    counts = Counter() if counts is None else counts
    for feature in record.features:
        if feature.kind != "CDS":
            continue
        counts["read"] += 1
        reason = _skip_reason(record, feature)
        found = reason or _translated(record, feature, counts)
        if isinstance(found, CodingSequence):
            counts["kept"] += 1
            yield found
        else:
            counts[f"skipped:{found}"] += 1


def exon_states(record: AnnotatedRecord) -> str:
    """Return one letter a base: E in an exon of any transcript, I in an intron of one, O elsewhere; both strands in one string.

    Transcripts are features of kind CDS, exon, transcript and *RNA: where only CDS are annotated, untranslated exons read as O. Gaps of 1
    or 2 bases are slips of the ribosome and no introns; pseudogenes are left out.

    >>> gene = Feature("CDS", ((1, 3), (7, 9)), 1, {})
    >>> exon_states(AnnotatedRecord("r", "", "", "ACGTACGTAC", False, 1, (gene,)))
    'OEEIIIIEEO'
    """
    states = bytearray(OTHER.encode() * len(record.sequence))
    transcripts = [feature for feature in record.features if _TRANSCRIPT.fullmatch(feature.kind) and not _is_pseudogene(feature)]
    for feature in transcripts:
        if not feature.fault:
            for (_, end), (start, _) in _neighbours(feature, record):
                if start - end > _SLIP_BASES:
                    states[end:start] = INTRON.encode() * (start - end)
    for feature in transcripts:
        for start, end in feature.parts:
            states[start:end] = EXON.encode() * (end - start)
    return states.decode("ascii")


def read_uniprot(path: Path) -> Iterator[ProteinEntry]:
    """Yield the entries of a UniProt flat file (.dat, .txt), plain or compressed.

    Raises MissingFileError, and InputError (file, first line of the entry) for one that is damaged or has another length than it says.
    """
    for where, text in _entries(path, "ID   "):
        yield _uniprot_entry(text, where)


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


# Records of a flat file


def _entries(path: Path, opening: str) -> Iterator[tuple[str, str]]:
    """Yield ("FILE, line N", text) of each record of a flat file: from a line that begins with `opening` to a line "//".

    Raises InputError for text between records, a record without its end, and a file without a record. The preamble of a GenBank release
    is skipped.
    """
    lines: list[str] = []
    first = num_entries = 0
    in_preamble = False
    with _open_text(path) as handle:
        for number, line in enumerate(handle, start=1):
            line = line.rstrip("\r\n")
            if line.startswith(opening):
                if lines:
                    found = f"{path}, line {number}: a record begins before that of line {first} ends"
                    raise InputError(found, "a line // between them", _FLAT_FILE_HINT)
                first, in_preamble = number, False
            elif not lines:
                in_preamble = in_preamble or (number == 1 and "Genetic Sequence Data Bank" in line)
                if line.strip() and not in_preamble:
                    expected = f"a record, which begins with {opening.strip()}"
                    raise InputError(f"{path}, line {number}: {line[:40]!r}", expected, _FLAT_FILE_HINT)
                continue
            lines.append(line)
            if line.rstrip() == "//":
                num_entries += 1
                yield f"{path}, line {first}", "\n".join(lines) + "\n"
                lines = []
    if lines:
        raise InputError(f"{path} ends inside the record of line {first}", "a line // after each record", "Check that the file is whole")
    if num_entries == 0:
        raise InputError(f"{path} holds no record", f"one that begins with {opening.strip()}", _FLAT_FILE_HINT)


_FLAT_FILE_HINT = "Check the format, and that the file is whole"


def _check_length(where: str, stated: str, num_letters: int, sequence: str) -> None:
    """Raise InputError unless the length a record states, the letters its text holds, and the parsed sequence agree."""
    if not int(stated) == num_letters == len(sequence):
        found = f"{where}: a sequence of {len(sequence):,} letters ({num_letters:,} in the text)"
        raise InputError(found, f"{int(stated):,} as the record says", "Check that the file is whole")


# GenBank


def _genbank_record(text: str, where: str, genetic_code: int) -> AnnotatedRecord:
    """Return the record that a GenBank text of one record holds."""
    from Bio import BiopythonWarning, SeqIO

    size = re.match(r"LOCUS +\S+ +(\d{1,15}) (bp|aa)\b", text)
    if size is None or size[2] == "aa":
        found = f"{where}: {text[:60].splitlines()[0]!r}"
        raise InputError(found, "LOCUS, a name, a length in bp", "Proteins are read from UniProt or FASTA files")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BiopythonWarning)  # what it warns of is checked here
            parsed = SeqIO.read(io.StringIO(text), "genbank")
            sequence = str(parsed.seq).upper()  # raises where a record has only a CONTIG line
            features = tuple(_genbank_feature(found) for found in parsed.features)
    except _PARSER_FAULTS as error:
        raise InputError(f"{where}: {_one_line(error) or type(error).__name__}", "a whole GenBank record", _FLAT_FILE_HINT) from error
    body = re.search(r"^ORIGIN.*\n((?:.*\n)*?)(?://|CONTIG)", text, re.MULTILINE)
    num_letters = len(re.sub(r"[\s\d]", "", body[1])) if body else 0
    _check_length(where, size[1], num_letters, sequence)
    check_letters(sequence, get_alphabet("dna"), f"{where}, record '{parsed.id}'")
    for feature in features:
        _check_parts(feature, len(sequence), f"{where}, record '{parsed.id}'")
    organism = parsed.annotations.get("organism", "").strip(".")
    circular = parsed.annotations.get("topology") == "circular"
    code = _stated_code(features, genetic_code)
    return AnnotatedRecord(parsed.id, parsed.description.rstrip("."), organism, sequence, circular, code, features)


def _genbank_feature(found: Any) -> Feature:
    """Return a feature of Biopython as ours. Raises ValueError for one whose location Biopython could not read."""
    from Bio.SeqFeature import ExactPosition

    if found.location is None:
        raise ValueError(f"a {found.type} has a location that cannot be read")
    places = found.location.parts
    strands = {place.strand for place in places}
    fault = ""
    if any(place.ref for place in places):
        fault = "other_record"
    elif getattr(found.location, "operator", "join") != "join":
        fault = "no_join"
    elif len(strands) > 1:
        fault = "trans_spliced"
    parts = tuple((int(place.start), int(place.end)) for place in places if not place.ref)
    partial = not all(isinstance(end, ExactPosition) for place in places for end in (place.start, place.end))
    strand = (strands.pop() or 0) if len(strands) == 1 else 0
    qualifiers = {key: tuple(map(str, values)) for key, values in found.qualifiers.items()}
    return Feature(found.type, parts, strand, qualifiers, partial, fault)


def _check_parts(feature: Feature, length: int, where: str) -> None:
    """Raise InputError for a part that lies outside the sequence."""
    for start, end in feature.parts:
        if not 0 <= start <= end <= length:
            raise InputError(f"{where}: a {feature.kind} at {start + 1}..{end}", f"positions within 1..{length}", "Mend the location")


def _stated_code(features: Iterable[Feature], default: int) -> int:
    """Return the genetic code that the first CDS to say so says, else the default."""
    stated = (value for feature in features if feature.kind == "CDS" for value in feature.qualifiers.get("transl_table", ()))
    return next((int(value) for value in stated if value.isdecimal() and _is_code(int(value))), default)


def _is_code(table: int) -> bool:
    """Tell whether NCBI has a genetic code of this number."""
    from Bio.Data import CodonTable

    return table in CodonTable.unambiguous_dna_by_id


# GFF3


class _GffRow(NamedTuple):
    """One line of a GFF3 file; start is 0-based."""

    kind: str
    start: int
    end: int
    strand: str
    phase: int
    attributes: dict[str, tuple[str, ...]]
    where: str

    @property
    def id(self) -> str:
        return self.attributes.get("ID", ("",))[0]

    @property
    def parents(self) -> tuple[str, ...]:
        return self.attributes.get("Parent", ())


@dataclass
class _GffLines:
    """The feature lines of a GFF3 file by sequence name, compressed (4.4-fold for yeast), each behind its line number and a tab."""

    has_fasta: bool = False
    blocks: dict[str, list[bytes]] = field(default_factory=dict)
    open_name: str = ""
    open_lines: list[str] = field(default_factory=list)

    def add(self, name: str, number: int, line: str) -> None:
        """Keep a line."""
        if name != self.open_name or len(self.open_lines) >= 10_000:
            self.close_block()
            self.open_name = name
        self.open_lines.append(f"{number}\t{line}")

    def close_block(self) -> None:
        """Compress the lines of the block under way."""
        if self.open_lines:
            self.blocks.setdefault(self.open_name, []).append(zlib.compress("\n".join(self.open_lines).encode(), 1))
            self.open_lines = []

    @property
    def names(self) -> list[str]:
        return list(self.blocks)

    def of(self, name: str) -> Iterator[str]:
        """Yield the lines of a sequence."""
        for block in self.blocks[name]:
            yield from zlib.decompress(block).decode().split("\n")


def _read_gff_lines(path: Path) -> _GffLines:
    """Return the feature lines of a GFF3 file. Raises InputError for another version, stray FASTA, or no feature."""
    lines = _GffLines()
    with _open_text(path) as handle:
        for number, line in enumerate(handle, start=1):
            line = line.rstrip("\r\n")
            if line.startswith("##FASTA"):
                lines.has_fasta = True
                break
            if line.startswith("##gff-version") and line.split()[1:2] != ["3"] and not line.split()[-1].startswith("3."):
                raise InputError(f"{path}, line {number}: {line!r}", "##gff-version 3", "Convert the file with gffread or AGAT")
            if line.startswith(">"):
                raise InputError(f"{path}, line {number}: a FASTA header among features", "a line ##FASTA before it", "Add that line")
            if line.strip() and not line.startswith("#"):
                lines.add(unquote(line.split("\t", 1)[0]), number, line)
    lines.close_block()
    if not lines.names:
        raise InputError(f"{path} holds no feature", "lines of nine columns", "Check that the file is whole")
    return lines


def _fasta_ids(path: Path) -> list[str]:
    """Return the ids of a FASTA file, without parsing its sequences."""
    with _open(path) as handle:
        return [_header_id(line) for line in handle if line.startswith(b">")]


def _embedded_ids(gff: Path) -> list[str]:
    """Return the ids of the ##FASTA section of a GFF3 file."""
    with _open(gff) as handle:
        _skip_features(handle)
        return [_header_id(line) for line in handle if line.startswith(b">")]


def _embedded_records(gff: Path) -> Iterator[Record]:
    """Yield the records of the ##FASTA section of a GFF3 file."""
    with _open(gff) as handle:
        _skip_features(handle)
        yield from _parse_records(handle, f"{gff}, section ##FASTA", None, get_alphabet("dna"), True, _Limits())


def _skip_features(handle: Iterable[bytes]) -> None:
    """Read up to and with the line ##FASTA."""
    for line in handle:
        if line.startswith(b"##FASTA"):
            return


def _header_id(line: bytes) -> str:
    """Return the first word of a FASTA header."""
    return line[1:].strip().partition(b" ")[0].decode("utf-8", "replace")


def _match_names(gff_names: list[str], ids: set[str], names: Mapping[str, str], gff: str, fasta: str) -> dict[str, list[str]]:
    """Return FASTA id -> names in the GFF file. Raises InputError that names both sides when a name has no sequence."""
    owners: dict[str, list[str]] = {}
    for name in gff_names:
        owners.setdefault(names.get(name, name), []).append(name)
    missing = [name for owner, found in owners.items() if owner not in ids for name in found]
    if missing:
        raise InputError(
            f"{gff} names {_some(missing)}, {fasta} names {_some(sorted(ids))}",
            "each sequence of the first in the second",
            f"If they are the same assembly, pass names: {{{missing[0]}: its name in the FASTA file, ...}}",
        )
    return owners


def _some(words: list[str]) -> str:
    """Return the first three words, and how many there are if there are more."""
    return ", ".join(words[:3]) + (f", ... ({len(words)})" if len(words) > 3 else "")


def _gff_row(numbered: str, path: Path) -> _GffRow:
    """Return a line of nine columns, behind its number. Raises InputError with the line."""
    number, *columns = numbered.split("\t")
    where = f"{path}, line {number}"
    if len(columns) != 9:
        raise InputError(f"{where}: {len(columns)} columns", "9, separated by tabs", "Mend the line")
    _, _, kind, start, end, _, strand, phase, attributes = columns
    if not (_is_position(start) and _is_position(end) and 1 <= int(start) <= int(end)):
        raise InputError(f"{where}: positions {start!r} to {end!r}", "1 <= start <= end", "Mend the line")
    if strand not in ("+", "-", ".", "?"):
        raise InputError(f"{where}: strand {strand!r}", "+ - . or ?", "Mend the line")
    if kind == "CDS" and phase not in ("0", "1", "2"):
        raise InputError(f"{where}: a CDS of phase {phase!r}", "0, 1 or 2", "Mend the line")
    return _GffRow(kind, int(start) - 1, int(end), strand, int(phase) if kind == "CDS" else 0, _attributes(attributes, where), where)


def _is_position(text: str) -> bool:
    """Tell whether a column holds a plain number."""
    return text.isascii() and text.isdecimal() and len(text) <= 15


def _attributes(column: str, where: str) -> dict[str, tuple[str, ...]]:
    """Return the ninth column as key -> values. Raises InputError for GTF and the like."""
    found: dict[str, tuple[str, ...]] = {}
    for item in column.split(";"):
        key, separator, value = item.strip().partition("=")
        if not separator:
            if key in ("", "."):
                continue
            action = "A GTF file is converted with gffread or AGAT" if '"' in key else "Mend the line"
            raise InputError(f"{where}: attribute {key[:40]!r}", "KEY=VALUE", action)
        found[unquote(key)] = found.get(unquote(key), ()) + tuple(unquote(part) if "%" in part else part for part in value.split(","))
    return found


def _gff_record(record: Record, rows: list[_GffRow], gff: Path, genetic_code: int) -> AnnotatedRecord:
    """Return a sequence with the features that its GFF lines tell of."""
    circular = any(row.attributes.get("Is_circular") == ("true",) for row in rows)
    for row in rows:
        if row.end > len(record.sequence) * (2 if circular else 1) or row.start >= len(record.sequence):
            raise InputError(
                f"{row.where}: a {row.kind} that ends at {row.end}",
                f"at most {len(record.sequence)}, the length of '{record.id}'",
                "Give GFF and FASTA files of one assembly",
            )
    features = tuple(_gff_features(rows, len(record.sequence)))
    organism = next((value for row in rows if row.kind == "region" for value in row.attributes.get("organism", ())), "")
    code = _stated_code(features, genetic_code)
    return AnnotatedRecord(record.id, record.description, organism, record.sequence, circular, code, features)


def _gff_features(rows: list[_GffRow], length: int) -> Iterator[Feature]:
    """Yield the features of a sequence: each CDS and each transcript with all its parts, in the order of the file."""
    by_id = {row.id: row for row in reversed(rows) if row.id}
    exons: dict[str, list[_GffRow]] = {}
    for row in rows:
        if row.kind == "exon":
            for parent in row.parents:
                exons.setdefault(parent, []).append(row)
    coding = _coding_groups(rows)
    for row in rows:
        if row.kind == "CDS":
            if group := coding.pop(id(row), None):
                yield _coding_feature(group, by_id, length)
        elif row.kind != "exon":
            yield _joined(row.kind, exons.get(row.id) or [row], row.attributes, length)
        elif not any(parent in by_id for parent in row.parents):
            yield _joined(row.kind, [row], row.attributes, length)


def _coding_groups(rows: list[_GffRow]) -> dict[int, list[_GffRow]]:
    """Return the lines of each CDS, under the identity of its first line."""
    coding = [row for row in rows if row.kind == "CDS"]
    times = Counter(row.id for row in coding)
    groups: dict[tuple[str, str], list[_GffRow]] = {}
    for number, row in enumerate(coding):
        parent = row.parents[0] if row.parents else ""
        # Phytozome gives each line of a CDS an ID of its own; what joins them is the transcript
        by_parent = not row.id or (parent and times[row.id] == 1)
        key = ("parent", parent or str(number)) if by_parent else ("id", row.id)
        groups.setdefault(key, []).append(row)
    found = {}
    for group in groups.values():
        spans = sorted((row.start, row.end) for row in group)
        apart = all(left[1] <= right[0] for left, right in pairwise(spans))
        same_id = len({row.id for row in group}) == 1
        for lines in [group] if apart or same_id else [[row] for row in group]:
            found[id(lines[0])] = lines
    return found


def _coding_feature(group: list[_GffRow], by_id: Mapping[str, _GffRow], length: int) -> Feature:
    """Return a CDS from its lines, with what its ancestors know."""
    qualifiers = dict(group[0].attributes)
    ancestor, seen = group[0], set()
    while ancestor.parents and (above := by_id.get(ancestor.parents[0])) is not None and above.id not in seen:
        ancestor = above
        seen.add(above.id)
        for key in ("gene", "product", "locus_tag", "pseudo", "exception", "transl_table"):
            if key in above.attributes:
                qualifiers.setdefault(key, above.attributes[key])
        if above.kind == "pseudogene":
            qualifiers.setdefault("pseudo", ("true",))
        if above.kind == "gene" and "Name" in above.attributes:
            qualifiers.setdefault("gene", above.attributes["Name"])
    feature = _joined("CDS", group, qualifiers, length)
    if feature.fault:
        return feature
    lines = sorted(group, key=lambda row: row.start, reverse=feature.strand < 0)
    qualifiers["codon_start"] = (str(lines[0].phase + 1),)
    num_bases = -lines[0].phase
    fault = ""
    for row in lines:
        if row.phase != -num_bases % 3:
            fault = "phase_mismatch"
        num_bases += row.end - row.start
    return Feature("CDS", feature.parts, feature.strand, qualifiers, feature.partial, fault)


def _joined(kind: str, rows: list[_GffRow], qualifiers: Qualifiers, length: int) -> Feature:
    """Return one feature from its lines; a line that runs over the end of a circular sequence has two parts."""
    strands = {row.strand for row in rows}
    strand = {"+": 1, "-": -1}.get(next(iter(strands)), 0) if len(strands) == 1 else 0
    fault = "trans_spliced" if len(strands) > 1 else "no_strand" if strand == 0 else ""
    parts: list[tuple[int, int]] = []
    for row in sorted(rows, key=lambda row: row.start) if not fault else rows:
        parts += [(row.start, min(row.end, length))] + ([(0, row.end - length)] if row.end > length else [])
    marks = [row.attributes for row in rows]
    partial = any(mark.get("partial") == ("true",) or "start_range" in mark or "end_range" in mark for mark in marks)
    return Feature(kind, tuple(parts if strand >= 0 else parts[::-1]), strand, qualifiers, partial, fault)


# Genes and proteins


def _neighbours(feature: Feature, record: AnnotatedRecord) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield pairs of consecutive parts, left one first, but not the pair that meets over the origin of a circular record."""
    length = len(record.sequence)
    for before, after in pairwise(feature.parts):
        left, right = (before, after) if feature.strand >= 0 else (after, before)
        if not (record.circular and left[1] == length and right[0] == 0):
            yield left, right


def _is_pseudogene(feature: Feature) -> bool:
    """Tell whether a feature is that of a gene that no longer works: what interrupts it is no intron."""
    return "pseudo" in feature.qualifiers or "pseudogene" in feature.qualifiers


def _skip_reason(record: AnnotatedRecord, feature: Feature) -> str:
    """Return why a CDS is left out before it is translated, or an empty string."""
    known = feature.qualifiers
    exceptions = ",".join(known.get("exception", ())).lower()
    if _is_pseudogene(feature):
        return "pseudogene"
    if feature.fault:
        return feature.fault
    if "trans_splicing" in known or "trans-splicing" in exceptions:
        return "trans_spliced"
    gaps = [right[0] - left[1] for left, right in _neighbours(feature, record)]
    if "ribosomal_slippage" in known or "ribosomal slippage" in exceptions or any(0 < gap <= _SLIP_BASES for gap in gaps):
        return "frameshift"
    if any(left[0] < right[1] and right[0] < left[1] for left, right in _neighbours(feature, record)):
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
    if not (stated.isascii() and stated.isdecimal() and _is_code(int(stated))):
        return "unknown_genetic_code"
    code = CodonTable.unambiguous_dna_by_id[int(stated)]
    dna = _spelled(record.sequence, feature)
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
    return CodingSequence(gene, product, dna, protein, int(stated), numbers, f"{record.id}:{_location(feature)}")


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


# UniProt


def _uniprot_entry(text: str, where: str) -> ProteinEntry:
    """Return the entry that a UniProt text of one entry holds."""
    from Bio import SwissProt

    try:
        parsed = SwissProt.read(io.StringIO(text))
        accession, stated = parsed.accessions[0], str(parsed.sequence_length)
        genes = [name for names in parsed.gene_name for key in _GENE_KEYS for name in _listed(names.get(key))]
    except _PARSER_FAULTS as error:
        raise InputError(f"{where}: {_one_line(error) or type(error).__name__}", "a whole UniProt entry", _FLAT_FILE_HINT) from error
    body = re.search(r"^SQ .*\n((?:.*\n)*?)//", text, re.MULTILINE)
    num_letters = len(re.sub(r"\s", "", body[1])) if body else 0
    _check_length(where, stated, num_letters, parsed.sequence)
    check_letters(parsed.sequence, get_alphabet("protein"), f"{where}, entry '{accession}'")
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
        parsed.sequence.upper(),
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
