"""Formats: told by the first bytes of a file, and by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gene.errors import InputError
from llama_gene.sequences.formats import choose_format, detect_format, named_format
from tests.fixtures.annotated_files import ENTRY, GFF, genbank


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (">a\nACGT\n", "fasta"),
        ("\r\n>a", "fasta"),
        ("# a comment\n#\tanother\n>a\nACGT\n", "fasta"),
        ("@r\nACGT\n+\nIIII\n", "fastq"),
        ("@r x\r\nACGT\r\n+r x\r\n", "fastq"),
        ("@long\n" + "ACGT" * 300_000, "fastq"),
        ("@someone wrote\nthis\nand that\n", ""),
        (genbank(), "genbank"),
        ("GBBCT1.SEQ          Genetic Sequence Data Bank\n", "genbank"),
        (GFF, "gff"),
        (GFF.partition("\n")[2], "gff"),
        ("#!genome-build X\n" + GFF.partition("\n")[2], "gff"),
        (ENTRY, "uniprot"),
        ("ID   X56734; SV 1; linear; mRNA; STD; PLN; 1859 BP.\n", ""),
        ('{"text": "a"}\n{"text": "b"}\n', "jsonl"),
        ('{"text": "a"}', "jsonl"),
        ('{\n"text": "a"}', "json"),
        ('[{"text": "a"}]', "json"),
        ("[1, 2]", ""),
        ("{ braces }", ""),
        ("Call me Ishmael.", ""),
        ("# only a comment\n", ""),
        ("", ""),
    ],
)
def test_the_first_bytes_show_the_format(beginning: str, name: str) -> None:
    assert detect_format(beginning.encode()) == name


def test_a_name_states_the_format_in_front_of_its_compression() -> None:
    names = ["a.fa", "b.FNA.gz", "c.fastq.zst", "d.gbff.xz", "e.gff3.bz2", "f.dat", "g.jsonl.gz", "h.json", "i.txt", "j", "-"]
    assert [named_format(name) for name in names] == ["fasta", "fasta", "fastq", "genbank", "gff", "uniprot", "jsonl", "json", "", "", ""]


def test_english_is_text_unless_it_is_json_or_its_name_says_otherwise() -> None:
    assert choose_format(Path("a.txt"), "auto", b"> quoted", is_english=True) == "text"
    assert choose_format(Path("a.txt"), "auto", b'{"text": "a"}', is_english=True) == "jsonl"
    assert choose_format(Path("a.fa"), "auto", b"> quoted", is_english=True) == "fasta"
    with pytest.raises(InputError, match="a.txt begins as none of the formats of sequences"):
        choose_format(Path("a.txt"), "auto", b"words", is_english=False)
