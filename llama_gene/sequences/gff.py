"""Read GFF3 annotations beside their FASTA file, or with their ##FASTA section.

One sequence is in memory at a time; the lines of the GFF file wait compressed until their sequence comes.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import check_letters, first_fault, get_alphabet, translate
from llama_gene.sequences.features import AnnotatedRecord, Feature, Qualifiers, stated_code
from llama_gene.sequences.files import as_text, open_bytes, open_text
from llama_gene.sequences.records import MAX_RECORD_LENGTH, Record, fault_place, parse_records, split_header


def read_gff(
    gff: Path, fasta: Path | None = None, names: Mapping[str, str] | None = None, genetic_code: int = 1
) -> Iterator[AnnotatedRecord]:
    """Yield the sequences (upper case) of `fasta` (else of the ##FASTA section of the GFF3 file), each with its features.

    `names` maps names of the GFF file to those of the FASTA file, for files of one assembly that name its sequences differently. CDS lines
    of one ID (or, where each has an ID of its own, of one Parent) become one feature, exons become the parts of their transcript, and a CDS
    takes gene, product and pseudo from its ancestors if it lacks them.
    Raises MissingFileError, and InputError (file, line) for a line that is not GFF3, and for names without a sequence (both sides named).
    """
    alphabet = get_alphabet("dna")
    for number, record in enumerate(parse_gff(gff, fasta, names, genetic_code)):
        if first_fault(record.sequence, alphabet) is not None:
            place = sequence_place(gff, fasta, number, record.id, lambda line: first_fault(line, alphabet) is not None)
            check_letters(record.sequence, alphabet, place)
        yield replace(record, sequence=record.sequence.upper())


def parse_gff(
    gff: Path,
    fasta: Path | None = None,
    names: Mapping[str, str] | None = None,
    genetic_code: int = 1,
    max_record_length: int = MAX_RECORD_LENGTH,
) -> Iterator[AnnotatedRecord]:
    """Yield what `read_gff` yields, the letters unchecked and in their case."""
    translate("", genetic_code)
    lines = _read_gff_lines(gff)
    if fasta is None and not lines.has_fasta:
        raise InputError(
            f"{gff} holds no ##FASTA section",
            "the sequences too",
            "Name the FASTA file of the same assembly (in a corpus: that as input, this as gff)",
        )
    ids = set(_fasta_ids(fasta) if fasta is not None else _embedded_ids(gff))
    owners = _match_names(lines.names, ids, names or {}, f"{gff}", f"{fasta or 'its ##FASTA section'}")
    with open_bytes(fasta if fasta is not None else gff) as handle:
        if fasta is None:
            _skip_features(handle, gff)
        where = f"{fasta}" if fasta is not None else f"{gff}, section ##FASTA"
        for record in parse_records(handle, where, max_record_length=max_record_length):
            rows = [_gff_row(line, gff) for name in owners.get(record.id, ()) for line in lines.of(name)]
            yield _gff_record(record, rows, genetic_code)


def sequence_place(gff: Path, fasta: Path | None, number: int, identifier: str, is_faulty: Callable[[str], bool]) -> str:
    """Return where the first faulty letters of sequence `number` (from 0) stand, for a message."""
    if fasta is None:
        return f"{gff}, section ##FASTA, record '{identifier}'"
    return fault_place(fasta, number, identifier, is_faulty)


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
    with open_text(path) as handle:
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
    with open_text(path) as lines:
        return _header_ids(lines)


def _embedded_ids(gff: Path) -> list[str]:
    """Return the ids of the ##FASTA section of a GFF3 file."""
    with open_bytes(gff) as handle:
        _skip_features(handle, gff)
        with as_text(handle, f"{gff}") as lines:
            return _header_ids(lines)


def _skip_features(handle: Iterable[bytes], gff: Path) -> None:
    """Read up to and with the line ##FASTA. Raises InputError where that line ends in \\r: what follows would be skipped with it."""
    for line in handle:
        if line.startswith(b"##FASTA"):
            if b"\r" in line.rstrip(b"\r\n"):
                raise InputError(
                    f"{gff}: the line ##FASTA ends in \\r", "lines that end in \\n or \\r\\n", "Convert the file with mac2unix"
                )
            return


def _header_ids(lines: Iterable[str]) -> list[str]:
    """Return the first words of the FASTA headers among lines."""
    return [split_header(line[1:])[0] for line in lines if line.startswith(">")]


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
            f"If they are the same assembly, set gff_names: {{{missing[0]}: its name in the FASTA file, ...}}",
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


def _gff_record(record: Record, rows: list[_GffRow], genetic_code: int) -> AnnotatedRecord:
    """Return a sequence with the features that its GFF lines tell of."""
    circular = record.circular or any(row.attributes.get("Is_circular") == ("true",) for row in rows)
    for row in rows:
        if row.end > len(record.sequence) * (2 if circular else 1) or row.start >= len(record.sequence):
            raise InputError(
                f"{row.where}: a {row.kind} that ends at {row.end}",
                f"at most {len(record.sequence)}, the length of '{record.id}'",
                "Give GFF and FASTA files of one assembly",
            )
    features = tuple(_gff_features(rows, len(record.sequence)))
    organism = next((value for row in rows if row.kind == "region" for value in row.attributes.get("organism", ())), "")
    code = stated_code(features, genetic_code)
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
