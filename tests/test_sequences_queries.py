"""Sequences of tables and of other files come in alike."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from llama_gene.errors import InputError
from llama_gene.sequences.letters import LetterCounts, LetterPolicy
from llama_gene.sequences.queries import nothing_left, read_queries

UPPER = LetterPolicy(soft_masked="upper")


def test_tables_and_records_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(">one\nACgt\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"label,sequence\n1,ACN\n0,\n1,acc\n"))
    (tmp_path / "c.tsv").write_text("name\tid\tsequence\nx\trow\tGG GG\n")
    counts = LetterCounts()
    paths = [tmp_path / name for name in ("a.fa", "b.csv.gz", "c.tsv")]
    found = [(record.id, record.sequence) for record in read_queries(paths, "dna", policy=UPPER, counts=counts)]
    assert found == [("one", "ACGT"), ("b:1", "ACN"), ("b:3", "ACC"), ("row", "GGGG")]
    assert counts.records_rejected == {"empty": 1}
    assert counts.letters_read == counts.letters_kept == 14 and counts.letters_changed == {"to_upper": 5}


def test_a_column_names_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("name,dna\nx,AC\n")
    [record] = read_queries([path], "dna", policy=UPPER, counts=LetterCounts(), column="dna", id_column="name")
    assert (record.id, record.sequence) == ("x", "AC")
    with pytest.raises(InputError, match="has no column 'sequence'; expected one of name, dna"):
        list(read_queries([path], "dna", policy=UPPER, counts=LetterCounts()))


def test_a_wrong_letter_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("sequence\nACGT\nMKTL\n")
    with pytest.raises(InputError, match=r"c.csv, line 3: 'L' is not a DNA letter.*set kind: protein"):
        list(read_queries([path], "dna", policy=UPPER, counts=LetterCounts()))


def test_nothing_left_says_why(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("id,sequence\nx,\n")
    counts = LetterCounts()
    assert not list(read_queries([path], "dna", policy=UPPER, counts=counts))
    assert "none of 1 records is left (empty: 1)" in str(nothing_left([path], counts))
