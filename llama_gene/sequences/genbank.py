"""Read GenBank files: sequences with their features. One record is in memory at a time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import check_letters, get_alphabet, translate
from llama_gene.sequences.features import AnnotatedRecord, Feature, stated_code
from llama_gene.sequences.files import one_line, open_bytes, spoken_path
from llama_gene.sequences.flat_files import FLAT_FILE_HINT, PARSER_FAULTS, check_length, entries


def read_genbank(path: Path | str, genetic_code: int = 1) -> Iterator[AnnotatedRecord]:
    """Yield the records of a GenBank file (.gb .gbk .gbff), plain or compressed.

    `genetic_code` holds where a record has no /transl_table. Raises MissingFileError, ConfigError for a code that does not exist, and
    InputError (file, first line of the record) for a record that is damaged, holds a protein, lacks its sequence, or has another length
    than it says.
    """
    with open_bytes(path) as handle:
        for where, record in parse_genbank(handle, spoken_path(path), genetic_code):
            check_letters(record.sequence, get_alphabet("dna"), f"{where}, record '{record.id}'")
            yield record


def parse_genbank(handle: BinaryIO, where: str, genetic_code: int = 1) -> Iterator[tuple[str, AnnotatedRecord]]:
    """Yield ("FILE, line N", record) of an open GenBank file, the letters unchecked; see `read_genbank`."""
    translate("", genetic_code)
    for place, text in entries(handle, where, "LOCUS "):
        yield place, _genbank_record(text, place, genetic_code)


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
    except PARSER_FAULTS as error:
        raise InputError(f"{where}: {one_line(error) or type(error).__name__}", "a whole GenBank record", FLAT_FILE_HINT) from error
    body = re.search(r"^ORIGIN.*\n((?:.*\n)*?)(?://|CONTIG)", text, re.MULTILINE)
    num_letters = len(re.sub(r"[\s\d]", "", body[1])) if body else 0
    check_length(where, size[1], num_letters, sequence)
    for feature in features:
        _check_parts(feature, len(sequence), f"{where}, record '{parsed.id}'")
    organism = parsed.annotations.get("organism", "").strip(".")
    circular = parsed.annotations.get("topology") == "circular"
    code = stated_code(features, genetic_code)
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
