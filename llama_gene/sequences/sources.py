"""One door for the files of a corpus: any format that we read comes in as records, and every letter is accounted for.

    read_source(path, kind, content=...) -> records, and LetterCounts: letters read == kept + rejected with a reason

The format is told by the file's name, else by its first bytes; a name and bytes that contradict each other are refused. What the records
hold is the `content`:

    sequence       the record itself            FASTA, FASTQ, GenBank, GFF3 with ##FASTA, UniProt flat files, JSON; English text
    cds            DNA of each coding sequence  GenBank, GFF3 with ##FASTA, FASTA beside a GFF3 file
    protein        its protein                  the same; translated by the record's own genetic code
    protein_text   what is known about it       UniProt flat files and FASTA headers: an English document, see uniprot.py

Letters are bases for cds, residues for protein (of a coding sequence that is left out: its codons), characters for English. Case is that of
the file until the policy decides; but GenBank writes all its letters small, which says nothing: they are read as capitals.
"""

from __future__ import annotations

import hashlib
import io
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import translate
from llama_gene.sequences.features import AnnotatedRecord
from llama_gene.sequences.files import STANDARD_INPUT, open_bytes, spoken_path
from llama_gene.sequences.formats import DOCUMENTS, FORMATS, HOLDS_SEQUENCES, SPOKEN, FileFormat, choose_format, listed, named_format
from llama_gene.sequences.genbank import parse_genbank
from llama_gene.sequences.genes import CodingSequence, translate_each
from llama_gene.sequences.gff import parse_gff, sequence_place
from llama_gene.sequences.letters import LetterCounts, LetterPolicy, apply, check, is_faulty
from llama_gene.sequences.records import MAX_RECORD_LENGTH, Record, fault_place, parse_documents, parse_records, too_long
from llama_gene.sequences.uniprot import ProteinEntry, describe_protein, parse_uniprot, parse_uniprot_header

ENGLISH = "english"
"""The kind of a source that is text and no sequence."""
Content = Literal["sequence", "cds", "protein", "protein_text"]

_CONTENTS = {
    "sequence": FORMATS,
    "cds": ("genbank", "gff", "fasta"),
    "protein": ("genbank", "gff", "fasta"),
    "protein_text": ("uniprot", "fasta"),
}


@dataclass(frozen=True)
class _Request:
    """What `read_source` is asked for."""

    path: Path | str
    kind: str
    file_format: str
    content: str
    policy: LetterPolicy
    counts: LetterCounts
    genetic_code: int
    gff: Path | None
    names: Mapping[str, str]
    max_record_length: int
    unique_ids: bool


def read_source(
    path: Path | str,
    kind: str,
    *,
    file_format: FileFormat = "auto",
    content: Content = "sequence",
    policy: LetterPolicy,
    counts: LetterCounts,
    genetic_code: int = 1,
    gff: Path | None = None,
    names: Mapping[str, str] | None = None,
    max_record_length: int = MAX_RECORD_LENGTH,
    unique_ids: bool = False,
) -> Iterator[Record]:
    """Return an iterator of the records of a file ("-": standard input), as the policy leaves them, one in memory at a time.

    `kind` is an alphabet's name, or english. `gff` is the GFF3 annotation of a FASTA file, and `names` maps its names to those of the FASTA
    file. `genetic_code` holds where a coding sequence states none. A coding sequence is named by its place ("chr1:complement(7..90)"), and
    its description is its gene and product. With `unique_ids` a repeated id is refused, else counted.

    Everything is counted in `counts`, letters at every moment, repeated ids at the end of the file: `records_rejected` and
    `letters_rejected` have the policy's reasons, "empty", for coding sequences those of `coding_sequences` after "cds:", for texts "blank".
    Raises ConfigError at once for choices that contradict each other; while reading MissingFileError, ConfigError for a content that the
    file's format does not have, and InputError (with file and line, or record) for a file that cannot be read to its last letter.

    >>> counts = LetterCounts()
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "genome.fa"
    ...     _ = path.write_text(">chr1\\nACGTnnAC\\n")
    ...     [record.id for record in read_source(path, "dna", policy=LetterPolicy(ambiguous="split"), counts=counts)]
    ['chr1:1-4', 'chr1:7-8']
    >>> counts.letters_read, counts.letters_kept, dict(counts.letters_rejected)
    (8, 6, {'ambiguous': 2})
    """
    request = _Request(
        path, kind, file_format, content, policy, counts, genetic_code, gff, names or {}, max_record_length, unique_ids
    )  # fmt: skip
    _check_choices(request)
    return _read(request)


# What is asked for


def _check_choices(request: _Request) -> None:
    """Raise ConfigError for choices that contradict each other, as far as they are known before the file is opened."""
    kind, content = request.kind, request.content
    if content not in _CONTENTS:
        raise ConfigError(f"content '{content}' is unknown", f"one of {', '.join(_CONTENTS)}")
    known = ("auto", *FORMATS)
    if request.file_format not in known:
        raise ConfigError(f"file_format '{request.file_format}' is unknown", f"one of {', '.join(known)}")
    if request.max_record_length < 1:
        raise ConfigError(f"max_record_length is {request.max_record_length}", "at least 1 letter")
    translate("", request.genetic_code)  # the code exists
    if kind != ENGLISH:
        apply(Record("", "", ""), kind, request.policy, LetterCounts())  # the kind exists, and the policy can be followed
    if (content == "protein_text") != (kind == ENGLISH) and content != "sequence":
        expected = "kind: english for protein_text" if content == "protein_text" else "kind: dna for cds, protein for protein"
        raise ConfigError(f"content: {content} with kind: {kind}", expected, "Change one of them")
    if content == "cds" and kind != "dna":
        raise ConfigError(f"content: cds with kind: {kind}", "kind: dna", "Change one of them; protein has content: protein")
    if content == "protein" and kind != "protein":
        raise ConfigError(f"content: protein with kind: {kind}", "kind: protein", "Change one of them")
    if request.gff is not None and content not in ("cds", "protein"):
        raise ConfigError(
            f"gff is given, but content: {content} does not use it", "content: cds or protein", "Remove gff, or change content"
        )
    if request.gff is not None and str(request.path) == STANDARD_INPUT:
        raise ConfigError("gff is given for standard input", "a FASTA file, which is read twice", "Write the sequences into a file")
    stated = request.file_format if request.file_format != "auto" else named_format(request.path)
    if stated:
        _check_content(request, stated)


def _check_content(request: _Request, found: str) -> None:
    """Raise ConfigError where a file of the format `found` does not have the content that is asked for."""
    where, kind, content = spoken_path(request.path), request.kind, request.content
    formats = _CONTENTS[content]
    if content == "sequence":
        formats = DOCUMENTS if kind == ENGLISH else HOLDS_SEQUENCES
    if found not in formats:
        action = "Set content: sequence" if found == "uniprot" and content == "protein" else ""
        if found == "text" and content == "sequence":
            action = "Sequences are read from FASTA, or from JSON with a field `text`"
        elif kind == ENGLISH and content == "sequence":
            action = "Set the kind of the sequences, or content: protein_text"
        raise ConfigError(f"{where} is {SPOKEN[found]}: it has no content: {content} of kind: {kind}", listed(formats), action)
    if content in ("cds", "protein") and found == "fasta" and request.gff is None:
        raise ConfigError(
            f"{where} is FASTA: it has no content: {content} of its own", "gff: its annotation", "Set gff, or content: sequence"
        )
    if request.gff is not None and found != "fasta":
        raise ConfigError(f"gff is given for {where}, which is {SPOKEN[found]}", "a FASTA file beside the annotation", "Remove gff")


# Reading


def _read(request: _Request) -> Iterator[Record]:
    """Yield the records of a source."""
    ids = _Ids(request)
    try:
        with open_bytes(request.path) as handle:
            found = choose_format(
                request.path, request.file_format, handle.peek(1), request.kind == ENGLISH and request.content == "sequence"
            )
            _check_content(request, found)
            if found in ("genbank", "gff") and request.content == "sequence" and request.kind == "protein":
                raise ConfigError(
                    f"{spoken_path(request.path)} holds DNA, and kind is protein", "content: protein, or kind: dna", "Set one"
                )
            if found != "gff" and request.gff is None:
                yield from _read_open(request, found, handle, ids)
        if found == "gff" or request.gff is not None:
            yield from _read_gff(request, ids)
    finally:
        request.counts.duplicate_ids += ids.num_repeated()


def _read_open(request: _Request, found: str, handle: io.BufferedReader, ids: _Ids) -> Iterator[Record]:
    """Yield the records of an open file of the format `found`."""
    where = spoken_path(request.path)
    if found in ("fasta", "fastq"):
        for number, record in enumerate(parse_records(handle, where, max_record_length=request.max_record_length)):
            ids.add(record.id)
            if request.content == "protein_text":
                yield from _text_of_protein(request, parse_uniprot_header(f"{record.id} {record.description}"))
            else:
                yield from _record_kept(request, record, number)
    elif found == "genbank":
        for place, annotated in parse_genbank(handle, where, request.genetic_code):
            _check_length(request, annotated.id, len(annotated.sequence))
            ids.add(annotated.id)
            yield from _annotated_kept(request, annotated, f"{place}, record '{annotated.id}'")
    elif found == "uniprot":
        for place, entry in parse_uniprot(handle, where):
            _check_length(request, entry.accession, len(entry.sequence))
            ids.add(entry.accession)
            if request.content == "protein_text":
                yield from _text_of_protein(request, entry)
            else:
                record = Record(entry.accession, entry.name, entry.sequence)
                check(record, request.kind, request.policy, f"{place}, entry '{entry.accession}'")
                yield from apply(record, request.kind, request.policy, request.counts)
    else:
        for identifier, text in parse_documents(handle, request.path, found):
            _check_length(request, identifier, len(text))
            ids.add(identifier)
            yield from _document_kept(request, Record(identifier, "", text))


def _read_gff(request: _Request, ids: _Ids) -> Iterator[Record]:
    """Yield the records of a GFF3 file with its sequences in it, or beside it."""
    if str(request.path) == STANDARD_INPUT:
        raise InputError("standard input is GFF3", "a file, which is read twice", "Write it into a file")
    fasta = Path(request.path) if request.gff is not None else None
    gff = request.gff or Path(request.path)
    records = parse_gff(gff, fasta, request.names, request.genetic_code, request.max_record_length)
    for number, annotated in enumerate(records):
        ids.add(annotated.id)
        place = ""
        if is_faulty(annotated.sequence, "dna", request.policy):
            place = sequence_place(gff, fasta, number, annotated.id, lambda line: is_faulty(line, "dna", request.policy))
        yield from _annotated_kept(request, annotated, place)


def _record_kept(request: _Request, record: Record, number: int) -> list[Record]:
    """Return what the policy leaves of record `number` (from 0) of a FASTA or FASTQ file. Raises InputError with the line at fault."""
    kind, policy = request.kind, request.policy
    try:
        return apply(record, kind, policy, request.counts)
    except InputError:
        place = fault_place(request.path, number, record.id, lambda line: is_faulty(line, kind, policy))
        check(record, kind, policy, place)
        raise


def _annotated_kept(request: _Request, annotated: AnnotatedRecord, place: str) -> Iterator[Record]:
    """Yield an annotated record, or its genes, as the policy leaves them."""
    kind, policy, counts = request.kind, request.policy, request.counts
    record = Record(annotated.id, annotated.description, annotated.sequence, annotated.circular)
    if request.content == "sequence":
        check(record, kind, policy, place)
        yield from apply(record, kind, policy, counts)
        return
    check(record, "dna", policy, place)
    if not record.sequence:
        counts.read(0)
        counts.reject_record("empty", 0)
    for feature, found in translate_each(annotated, Counter()):
        if isinstance(found, CodingSequence):
            text = " ".join(word for word in (found.gene, found.product) if word)
            letters = found.dna if request.content == "cds" else found.protein
            yield from apply(Record(found.location, text, letters, source_id=annotated.id), kind, policy, counts)
        else:
            num_bases = sum(end - start for start, end in feature.parts)
            num_letters = num_bases if request.content == "cds" else num_bases // 3
            counts.read(num_letters)
            counts.reject_record(f"cds:{found}", num_letters)


def _document_kept(request: _Request, record: Record) -> list[Record]:
    """Return a document, if there is anything in it; a sequence in JSON as the policy leaves it."""
    if request.kind != ENGLISH:
        check(record, request.kind, request.policy, f"{spoken_path(request.path)}, document '{record.id}'")
        return apply(record, request.kind, request.policy, request.counts)
    request.counts.read(len(record.sequence))
    if not record.sequence.strip():
        request.counts.reject_record("blank", len(record.sequence))
        return []
    request.counts.letters_kept += len(record.sequence)
    return [record]


def _text_of_protein(request: _Request, entry: ProteinEntry) -> list[Record]:
    """Return the document of a protein."""
    return _document_kept(request, Record(entry.accession, "", describe_protein(entry)))


def _check_length(request: _Request, identifier: str, num_letters: int) -> None:
    """Raise InputError for a record over the limit."""
    if num_letters > request.max_record_length:
        raise too_long(spoken_path(request.path), identifier, f"{num_letters:,}", request.max_record_length)


@dataclass
class _Ids:
    """The ids of a file: repeated ones are refused if they must be unique, else counted at the end.

    To be counted an id costs 8 bytes (its hash; among 50 million ids two different ones share one with a chance of 1 in 15,000), so that
    the 250 million of TrEMBL fit into 2 GB; to be refused by name, all of its letters.
    """

    request: _Request
    names: set[str] = field(default_factory=set)
    hashes: array[int] = field(default_factory=lambda: array("q"))

    def add(self, identifier: str) -> None:
        """Note an id. Raises InputError when it came before and must not."""
        if not self.request.unique_ids:
            self.hashes.append(
                int.from_bytes(hashlib.blake2b(identifier.encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)
            )
            return
        if identifier in self.names:
            where = spoken_path(self.request.path)
            raise InputError(f"{where}: two records are named '{identifier}'", "an id of its own for each record", "Rename or remove one")
        self.names.add(identifier)

    def num_repeated(self) -> int:
        """Return how many ids came before."""
        import numpy as np

        if len(self.hashes) < 2:
            return 0
        hashes = np.sort(np.frombuffer(self.hashes, dtype=np.int64))
        return int((hashes[1:] == hashes[:-1]).sum())
