"""Sources: formats by name and by content, what is taken of a record, and that each letter is accounted for whatever the file."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llama_gene.errors import ConfigError, InputError, LlamaGeneError, MissingFileError
from llama_gene.sequences.letters import LetterCounts, LetterPolicy
from llama_gene.sequences.records import Record
from llama_gene.sequences.sources import read_source
from tests.fixtures.annotated_files import (
    ENTRY,
    FASTA,
    GENES,
    GFF,
    GFF_SEQUENCE,
    JUNK,
    ONE,
    SEQUENCE,
    TWO,
    damaged,
    genbank,
    letters_of_the_text,
)

DATA = Path(os.environ.get("LLAMA_GENE_DATA", "none"))
FASTQ = "@r1 x\nACGT\n+\nIIII\n@r2\nGG\n+\n@I\n"
DOCUMENT = (
    "Protein: 4-aminobutyrate aminotransferase PuuE\nGene: puuE\nOrganism: Escherichia coli (strain K12)\n"
    "Function: Catalyzes the transfer of the amino group. Degrades putrescine.\nEC number: 2.6.1.19\n"
    "GO terms: cytosol (cellular component, GO:0005829); identical protein binding (molecular function, GO:0042802)\n"
    "Keywords: Aminotransferase; Pyridoxal phosphate; Transferase"
)


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path | str, kind: str = "dna", policy: LetterPolicy | None = None, **choices: object) -> tuple[list[Record], LetterCounts]:
    """Return the records of a source and what was counted; letters read == kept + rejected, and those kept are in the records."""
    counts = LetterCounts()
    records = list(read_source(path, kind, policy=policy or LetterPolicy(), counts=counts, **choices))  # type: ignore[arg-type]
    assert counts.letters_read == counts.letters_kept + sum(counts.letters_rejected.values())
    assert counts.letters_kept == sum(len(record.sequence) for record in records)
    return records, counts


def sequences(path: Path | str, kind: str = "dna", **choices: object) -> list[str]:
    return [record.sequence for record in read(path, kind, **choices)[0]]  # type: ignore[arg-type]


# The format


FORMATS = {
    "fasta": (">a\nAC\nGT\n", "dna", ["ACGT"]),
    "fastq": (FASTQ, "dna", ["ACGT", "GG"]),
    "genbank": (genbank(features=GENES), "dna", [SEQUENCE]),
    "gff": (GFF + "##FASTA\n" + FASTA, "dna", [GFF_SEQUENCE, "ACGT"]),
    "uniprot": (ENTRY, "protein", ["MSNNEFHQRRLS"]),
    "jsonl": ('{"id": "a", "text": "ACGT"}\n{"text": "GG"}\n', "dna", ["ACGT", "GG"]),
    "json": ('[\n{"id": "a", "text": "ACGT"}\n]', "dna", ["ACGT"]),
}
NAMES = {
    "fasta": ["x.fa", "x.fasta", "x.fna", "x.faa", "x.ffn", "x.frn", "x.FAS"],
    "fastq": ["x.fq", "x.fastq"],
    "genbank": ["x.gb", "x.gbk", "x.gbff", "x.genbank"],
    "gff": ["x.gff", "x.gff3"],
    "uniprot": ["x.dat"],
    "jsonl": ["x.jsonl"],
    "json": ["x.json"],
}


@pytest.mark.parametrize(("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_told_by_name_by_content_and_on_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    text, kind, expected = FORMATS[name]
    content = compress(text.encode())
    for file in [*NAMES[name], "x.txt", "x"]:
        assert sequences(write(tmp_path / f"{file}{suffix}", content), kind) == expected
    assert sequences(write(tmp_path / f"marked{suffix}", compress(b"\xef\xbb\xbf" + text.encode())), kind) == expected
    if name != "gff":
        with write(tmp_path / "stdin", content).open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert sequences("-", kind) == expected


def test_gff_on_standard_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with write(tmp_path / "stdin", GFF).open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(InputError, match="standard input is GFF3; expected a file, which is read twice"):
            read("-")


@pytest.mark.parametrize(
    ("name", "text", "file_format", "message"),
    [
        ("x.fa", genbank(), "auto", "x.fa: its name says FASTA, but it begins as GenBank; .*format: genbank"),
        ("x.gbk", ">a\nACGT\n", "auto", "x.gbk: its name says GenBank, but it begins as FASTA"),
        ("x.fa", FASTQ, "auto", "x.fa: its name says FASTA, but it begins as FASTQ"),
        ("x.fq", ">a\nACGT\n", "auto", "x.fq: its name says FASTQ, but it begins as FASTA"),
        ("x.gff", ">a\nACGT\n", "auto", "x.gff: its name says GFF3, but it begins as FASTA"),
        ("x.dat", genbank(), "auto", "x.dat: its name says a UniProt flat file, but it begins as GenBank"),
        ("x.fa", '{"text": "ACGT"}\n', "auto", "x.fa: its name says FASTA, but it begins as JSON Lines"),
        ("x.jsonl", ">a\nACGT\n", "auto", "x.jsonl: its name says JSON Lines, but it begins as FASTA"),
        ("x.fa", ">a\nACGT\n", "genbank", "x.fa: format: genbank, but it begins as FASTA; .*format: fasta"),
        ("x.fa", "Call me Ishmael.\n", "auto", "x.fa: its first character is neither '>' nor '@'; expected FASTA"),
        ("x.fa", "# Call me\nIshmael.\n", "auto", "x.fa, line 2: 'Ishmael.'; expected a FASTA header"),
        ("x.fq", "Call me Ishmael.\n", "auto", "x.fq: its first character is neither '>' nor '@'; expected FASTA or FASTQ"),
        ("x.gb", "Call me Ishmael.\n", "auto", "x.gb, line 1: 'Call me Ishmael.'"),
        ("x", "Call me Ishmael.\n", "auto", "x begins as none of the formats of sequences; expected one of FASTA, FASTQ"),
        ("x", "", "auto", "x holds no record"),
        ("x.fa", "\n \n", "auto", "x.fa holds no record"),
        ("x", "\x00\x01", "auto", "x is not text; expected one of FASTA, FASTQ, GenBank"),
        ("x.fa", ">a\nAC\x00\n", "auto", "x.fa is not text; expected FASTA or FASTQ"),
        ("x.fa", ">a\nMKVL\n", "auto", "x.fa, line 2: 'L' is not a DNA letter; .*For a file of protein sequences set kind: protein"),
        ("x.fa", ">a\nACGU\n", "auto", "x.fa, line 2: 'U' is not a DNA letter; .*kind: rna"),
        ("x.fa", ">a\nACGT\n>b\nAC.GT\n", "auto", "x.fa, line 4: '.' is not a DNA letter"),
        ("x.gb", genbank().replace("cccca", "ccc!a"), "auto", "x.gb, line 1, record 'REC1.1': '!' is not a DNA letter"),
        ("x.gff", GFF + "##FASTA\n" + FASTA.replace("ACGT\n", "ACE\n"), "auto", "x.gff, section ##FASTA, record 'chr2': 'E' is not"),
        ("x.jsonl", '{"text": "ACE"}\n', "auto", "x.jsonl, document 'x:1': 'E' is not a DNA letter"),
        ("x.gff", GFF, "auto", "x.gff holds no ##FASTA section"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_one_line(tmp_path: Path, name: str, text: str, file_format: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(write(tmp_path / name, text), file_format=file_format)
    assert "\n" not in str(caught.value)


def test_documents_longer_than_the_beginning_that_is_seen_are_told_apart(tmp_path: Path) -> None:
    text = "word " * 300_000
    assert sequences(write(tmp_path / "lines", f'{{"text": "{text}"}}\n{{"text": "b"}}\n'), "english") == [text, "b"]
    assert sequences(write(tmp_path / "object", f'{{"a": {{"text": "{text}"}}, "b": {{"text": "b"}}}}'), "english") == [text, "b"]


def test_a_stated_format_overrules_the_name(tmp_path: Path) -> None:
    assert sequences(write(tmp_path / "x.gb", ">a\nACGT\n"), file_format="fasta") == ["ACGT"]
    assert sequences(write(tmp_path / "y.fa", "> quoted\n"), "english", file_format="text") == ["> quoted"]


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    for name, text in (("x.fa.gz", ">a\n" + "ACGT" * 9), ("x.gb.gz", genbank()), ("x.txt.gz", "words")):
        with pytest.raises(InputError, match=f"{name} cannot be decompressed"):
            read(write(tmp_path / name, gzip.compress(text.encode())[:-9]), "english" if "txt" in name else "dna")
    with pytest.raises(MissingFileError):
        read(tmp_path / "none.fa")


# What is taken of a record


def test_genbank_gives_circles_genes_and_proteins(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gb", genbank(features=GENES + "CDS 5..13\n/pseudo\n", topology="circular"))
    assert read(path)[0] == [Record("REC1.1", "A test record", SEQUENCE, circular=True)]
    records, counts = read(path, content="cds")
    assert records == [Record("REC1.1:5..16", "one protein one", ONE), Record("REC1.1:complement(19..30)", "L2", TWO)]
    assert (counts.letters_read, counts.letters_kept, counts.letters_rejected) == (33, 24, {"cds:pseudogene": 9})
    assert counts.records_rejected == {"cds:pseudogene": 1} and counts.records_read == 3
    records, counts = read(path, "protein", content="protein")
    assert [record.sequence for record in records] == ["MAK", "MAW"]
    assert (counts.letters_read, counts.letters_rejected) == (9, {"cds:pseudogene": 3})


def test_the_genetic_code_of_the_source_holds_where_the_record_states_none(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gb", genbank(features="CDS complement(19..30)"))
    assert read(path, "protein", content="protein")[1].records_rejected == {"cds:no_start": 1}
    assert sequences(path, "protein", content="protein", genetic_code=11) == ["MAW"]
    with pytest.raises(ConfigError, match="genetic code 7 does not exist"):
        read(path, genetic_code=7)


def test_a_gff_file_beside_its_fasta_gives_genes(tmp_path: Path) -> None:
    fasta, gff = write(tmp_path / "x.fa", FASTA.replace("chr1", "I") + ">chr3\n"), write(tmp_path / "x.gff", GFF)
    records, counts = read(fasta, "protein", content="protein", gff=gff, names={"chr1": "I"})
    assert records == [Record("I:join(1..5,14..20)", "abc protein, one", "MAK")]
    assert counts.records_rejected == {"empty": 1}
    with pytest.raises(InputError, match="x.gff names chr1, .*x.fa names I, chr2, chr3"):
        read(fasta, content="cds", gff=gff)
    both = write(tmp_path / "both.gff", GFF + "##FASTA\n" + FASTA)
    assert sequences(both, content="cds") == [ONE]
    assert [record.circular for record in read(both)[0]] == [True, False]


def test_genes_keep_the_case_and_the_us_of_their_source_for_the_policy(tmp_path: Path) -> None:
    small = FASTA.replace(GFF_SEQUENCE[:20], GFF_SEQUENCE[:20].lower().replace("t", "u"))
    fasta, gff = write(tmp_path / "x.fa", small), write(tmp_path / "x.gff", GFF)
    policy = LetterPolicy(rna="to_dna", soft_masked="upper")
    records, counts = read(fasta, policy=policy, content="cds", gff=gff)
    assert [record.sequence for record in records] == [ONE]
    assert counts.letters_changed == {"rna_to_dna": 3, "to_upper": 12}
    assert sequences(fasta, policy=LetterPolicy(rna="to_dna"), content="cds", gff=gff) == [ONE.lower()]
    with pytest.raises(InputError, match="x.fa, line 2: 'u' is not a DNA letter"):
        read(fasta, content="cds", gff=gff)


def test_proteins_are_described_in_english(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dat", ENTRY)
    assert read(path, "english", content="protein_text")[0] == [Record("P50457", "", DOCUMENT)]
    fasta = write(tmp_path / "x.faa", ">sp|P37621|YHHS_ECOLI Transporter YhhS OS=Escherichia coli OX=83333 GN=yhhS\nMK\n>anonymous\nMK\n")
    records, counts = read(fasta, "english", content="protein_text")
    assert records == [Record("P37621", "", "Protein: Transporter YhhS\nGene: yhhS\nOrganism: Escherichia coli")]
    assert (counts.records_read, counts.records_rejected) == (2, {"blank": 1})


def test_english_comes_as_documents_and_blank_ones_are_counted(tmp_path: Path) -> None:
    lines = write(tmp_path / "x.jsonl", '{"text": "one"}\n{"id": "b", "text": "  "}\n{"id": "c", "text": "three"}\n')
    records, counts = read(lines, "english")
    assert records == [Record("x:1", "", "one"), Record("c", "", "three")]
    assert (counts.letters_read, counts.letters_kept, counts.letters_rejected) == (10, 8, {"blank": 2})
    assert counts.records_rejected == {"blank": 1}
    assert sequences(write(tmp_path / "y.md", "> a quotation\n"), "english") == ["> a quotation"]


def test_english_reads_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("words\n", Record("stdin:1", "", "words")), ('{"text": "one"}\n', Record("stdin:1", "", "one"))):
        with write(tmp_path / "stdin", text).open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert read("-", "english")[0] == [expected]


@pytest.mark.parametrize(
    ("name", "kind", "choices", "message"),
    [
        ("x.fa", "protein", {"content": "cds"}, "content: cds with kind: protein; expected kind: dna"),
        ("x.gb", "dna", {"content": "protein"}, "content: protein with kind: dna; expected kind: protein"),
        ("x.gb", "3di", {"content": "protein"}, "content: protein with kind: 3di; expected kind: protein"),
        ("x.dat", "protein", {"content": "protein_text"}, "content: protein_text with kind: protein; expected kind: english"),
        ("x.gb", "english", {"content": "cds"}, "content: cds with kind: english; expected kind: dna"),
        ("x.fa", "dna", {"content": "cds"}, "x.fa is FASTA: it has no content: cds of its own; expected gff"),
        ("x.dat", "protein", {"content": "protein"}, "x.dat is a UniProt flat file: it has no content: protein .*Set content: sequence"),
        ("x.fq", "dna", {"content": "cds"}, "x.fq is FASTQ: it has no content: cds of kind: dna; expected one of GenBank, GFF3, FASTA"),
        ("x.gb", "english", {"content": "protein_text"}, "x.gb is GenBank: .*expected one of a UniProt flat file, FASTA"),
        (
            "x.fa",
            "english",
            {},
            "x.fa is FASTA: it has no content: sequence of kind: english; expected one of JSON Lines, JSON, plain text",
        ),
        ("x", "dna", {"file_format": "text"}, "x is plain text: .*Sequences are read from FASTA, or from JSON"),
        ("x.fa", "dna", {"gff": Path("x.gff")}, "gff is given, but content: sequence does not use it"),
        ("x.gb", "dna", {"content": "cds", "gff": Path("x.gff")}, "gff is given for .*x.gb, which is GenBank; expected a FASTA file"),
        (
            "-",
            "dna",
            {"content": "cds", "gff": Path("x.gff")},
            "gff is given for standard input; expected a FASTA file, which is read twice",
        ),
        ("x.fa", "protien", {}, "kind 'protien' is unknown.* Did you mean 'protein'"),
        ("x.fa", "dna", {"content": "gene"}, "content 'gene' is unknown; expected one of sequence, cds, protein, protein_text"),
        ("x.fa", "dna", {"file_format": "embl"}, "file_format 'embl' is unknown; expected one of auto, fasta"),
        ("x.fa", "dna", {"max_record_length": 0}, "max_record_length is 0; expected at least 1 letter"),
    ],
)
def test_choices_that_contradict_each_other_are_refused_before_a_file_is_opened(
    name: str, kind: str, choices: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_source(name, kind, policy=LetterPolicy(), counts=LetterCounts(), **choices)  # type: ignore[arg-type]


def test_a_content_that_only_the_file_shows_to_be_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="x is FASTQ: it has no content: cds"):
        read(write(tmp_path / "x", FASTQ), content="cds")


# What is counted and what is refused


def test_the_policy_sees_the_letters_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.fa", ">a circular=true\nACgtuN-A\n>b\nACGT\n")
    records, counts = read(path, policy=LetterPolicy(rna="to_dna", soft_masked="drop", ambiguous="split"))
    assert records == [Record("a:1-2", "circular=true", "AC"), Record("a:7-8", "circular=true", "A"), Record("b", "", "ACGT")]
    assert counts.letters_rejected == {"soft_masked": 3, "ambiguous": 1, "gap": 1}
    records, counts = read(path, policy=LetterPolicy(rna="to_dna"))
    assert records[0] == Record("a", "circular=true", "ACgttNA", circular=True)
    assert counts.letters_changed == {"rna_to_dna": 1}
    assert sequences(write(tmp_path / "x.faa", ">a\nMKV*\n"), "protein") == ["MKV"]


def test_repeated_ids_and_empty_records_are_counted_or_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "g.fa", ">a\nAC\n>b\n>a other\nGT\n>a\nAC\n")
    records, counts = read(path)
    assert [record.id for record in records] == ["a", "a", "a"]
    assert (counts.records_read, counts.duplicate_ids, counts.records_rejected) == (4, 2, {"empty": 1})
    with pytest.raises(InputError, match="g.fa: two records are named 'a'; expected an id of its own"):
        read(path, unique_ids=True)
    assert read(write(tmp_path / "h.fa", ">a\nAC\n>b\nGG\n"), unique_ids=True)[1].duplicate_ids == 0


@pytest.mark.parametrize("name", FORMATS)
def test_a_record_over_the_limit_is_refused_by_name(tmp_path: Path, name: str) -> None:
    text, kind, expected = FORMATS[name]
    path = write(tmp_path / NAMES[name][0], text)
    longest = max(map(len, expected))
    assert sequences(path, kind, max_record_length=longest) == expected
    with pytest.raises(InputError, match=f"has {longest} letters; expected at most {longest - 1}. Split the record, or raise"):
        read(path, kind, max_record_length=longest - 1)


def test_a_reader_that_stops_early_has_counted_what_it_read(tmp_path: Path) -> None:
    counts = LetterCounts()
    records = read_source(write(tmp_path / "x.fa", ">a\nAC\n>a\nACGT\n>c\nAC\n"), "dna", policy=LetterPolicy(), counts=counts)
    assert [next(records).sequence, next(records).sequence] == ["AC", "ACGT"]
    records.close()  # type: ignore[attr-defined]
    assert (counts.letters_read, counts.letters_kept, counts.duplicate_ids) == (6, 6, 1)


# Damage at random

WHOLE = {
    "fa": ">a words\nACGT\nNACG\n\n>b\nTT-\n>c\nacgt\r\nRY\n",
    "fq": FASTQ * 2,
    "gb": genbank(features=GENES) + genbank("ACGT" * 40, "CDS join(1..6,70..99)"),
    "gff": GFF + "##FASTA\n" + FASTA,
    "dat": ENTRY * 2,
    "jsonl": '{"id": "a", "text": "ACGT"}\n{"text": "GGN"}\n',
    "json": '[{"id": "a", "text": "ACGT"}, {"text": "GGN"}]',
}
POLICIES = st.sampled_from(
    [
        LetterPolicy(),
        LetterPolicy(ambiguous="split", gap="split", soft_masked="drop"),
        LetterPolicy(ambiguous="unknown", rna="to_dna", stop="drop"),
    ]
)


def letters_in_the_file(suffix: str, text: str) -> int:
    """Count the letters of the records in a file that could be read, with a loop of its own."""
    if suffix in ("gb", "gff", "dat"):
        return letters_of_the_text(suffix, text)
    if suffix == "json":
        value = json.loads(text)
        rows = [value] if isinstance(value, dict) and "text" in value else list(value.values()) if isinstance(value, dict) else value
        return sum(len(row["text"]) for row in rows)
    lines = re.split("\r\n|\r|\n", text)
    if suffix == "jsonl":
        return sum(len(json.loads(line)["text"]) for line in lines if line.strip())
    if suffix == "fq":
        return sum(len(line.strip()) for line in lines[1::4])
    start = next(number for number, line in enumerate(lines) if line.startswith(">"))
    return sum(len("".join(line.split())) for line in lines[start:] if not line.startswith(">"))


def read_or_refuse(path: Path, kind: str, policy: LetterPolicy, **choices: object) -> LetterCounts | None:
    """Return what was counted, None if the file was refused in one line that names it."""
    try:
        return read(path, kind, policy, **choices)[1]
    except LlamaGeneError as error:
        assert "\n" not in str(error) and path.name in str(error)
        return None


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged(WHOLE), POLICIES)
@example(("fa", " >a\nAC\n#GT\n"), LetterPolicy())
@example(("fa", ">a\rAC\r>b\rGT"), LetterPolicy())
@example(("gff", GFF + "##FASTA\r" + FASTA), LetterPolicy())
def test_law_13_a_damaged_source_is_refused_in_one_line_or_read_to_the_last_letter(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, str], policy: LetterPolicy
) -> None:
    suffix, text = file
    path = write(tmp_path_factory.getbasetemp() / f"source.{suffix}", text)
    kind = "protein" if suffix == "dat" else "dna"
    if counts := read_or_refuse(path, kind, policy):
        assert counts.letters_read == letters_in_the_file(suffix, text)
    if suffix in ("gb", "gff"):
        read_or_refuse(path, "dna", policy, content="cds")
        read_or_refuse(path, "protein", policy, content="protein")
    elif suffix == "dat":
        read_or_refuse(path, "english", policy, content="protein_text")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged({"gff": GFF, "fa": FASTA}), POLICIES)
def test_law_13_a_damaged_annotation_or_sequence_beside_it_is_refused_in_one_line_or_counted(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, str], policy: LetterPolicy
) -> None:
    folder = tmp_path_factory.getbasetemp()
    damaged_path = write(folder / f"pair.{file[0]}", file[1])
    whole_path = write(folder / ("pair.fa" if file[0] == "gff" else "pair.gff"), FASTA if file[0] == "gff" else GFF)
    fasta, gff = (whole_path, damaged_path) if file[0] == "gff" else (damaged_path, whole_path)
    try:
        read(fasta, "protein", policy, content="protein", gff=gff)
    except LlamaGeneError as error:
        assert "\n" not in str(error) and ("pair.fa" in str(error) or "pair.gff" in str(error))


ANYTHING = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([">", "@", "ACGT", "acn-", " ", "LOCUS ", "ID   ", "//", "+", "{", "[", *JUNK]), max_size=14).map(
        lambda words: "".join(words).encode()
    ),
)


@settings(max_examples=400, deadline=None)
@given(
    ANYTHING,
    st.sampled_from([name for names in NAMES.values() for name in names] + ["x", "x.txt", "x.fa.gz"]),
    st.sampled_from(["dna", "protein", "english"]),
)
def test_law_13_any_bytes_are_refused_in_one_line_or_every_letter_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str, kind: str
) -> None:
    path = write(tmp_path_factory.getbasetemp() / name, content)
    counts = read_or_refuse(path, kind, LetterPolicy())
    if counts and path.suffix == ".fa":
        assert counts.letters_read == letters_in_the_file("fa", content.decode("utf-8", "replace").removeprefix("\ufeff"))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.from_regex(r"[a-z0-9|_.]{1,8}", fullmatch=True), st.text("ACGTNRYacgtn-", max_size=60)), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 70),
    st.booleans(),
)
def test_written_fasta_and_fastq_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], end: str, width: int, mark: bool
) -> None:
    folder, beginning = tmp_path_factory.getbasetemp(), "\ufeff" if mark else ""
    lines = [line for name, text in rows for line in [f">{name} d", *(text[at : at + width] for at in range(0, len(text), width))]]
    path = write(folder / "written.fa", beginning + end.join(lines) + end)
    policy = LetterPolicy(gap="split")
    _, counts = read(path, policy=policy)
    assert counts.letters_read == sum(len(text) for _, text in rows)
    assert counts.duplicate_ids == len(rows) - len({name for name, _ in rows})
    reads = write(folder / "written.fq", beginning + "".join(end.join([f"@{name}", text, "+", "I" * len(text), ""]) for name, text in rows))
    assert read(reads, policy=policy)[1].letters_read == counts.letters_read


# Real files


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
@pytest.mark.parametrize(
    ("name", "kind", "choices", "records", "letters", "kept"),
    [
        ("genomes/bacteria/escherichia_coli_K12_MG1655.fna.gz", "dna", {}, 1, 4_641_652, 4_641_652),
        ("genomes/sars-cov-2/example_418_genomes.fasta.xz", "dna", {}, 418, 12_465_558, 12_465_558),
        ("genomes/genbank/mycoplasma_mycoides_GCF_000023685.1.gbff.gz", "dna", {}, 1, 1_084_586, 1_084_586),
        ("genomes/genbank/mycoplasma_mycoides_GCF_000023685.1.gbff.gz", "dna", {"content": "cds"}, 849, 987_444, 971_421),
        ("genomes/genbank/mycoplasma_mycoides_GCF_000023685.1.gbff.gz", "protein", {"content": "protein"}, 849, 328_297, 322_958),
        ("proteins/uniprot_ecoli.fasta.xz", "protein", {}, 4_363, 1_358_898, 1_358_898),
        ("english/openstax_biology.jsonl.xz", "english", {}, 253, 3_502_431, 3_502_431),
    ],
)
def test_real_sources_are_read_to_the_last_letter(
    name: str, kind: str, choices: dict[str, object], records: int, letters: int, kept: int
) -> None:
    found, counts = read(DATA / name, kind, **choices)  # type: ignore[arg-type]
    assert (len(found), counts.letters_read, counts.letters_kept) == (records, letters, kept)
