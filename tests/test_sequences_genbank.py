"""GenBank: records, features, and what damaged files do."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.genbank import read_genbank
from tests.fixtures.annotated_files import GENES, SEQUENCE, genbank, write


def test_a_genbank_record_has_its_words_its_sequence_and_its_features(tmp_path: Path) -> None:
    path = tmp_path / "r.gbk.gz"
    path.write_bytes(gzip.compress((genbank(features=GENES, topology="circular") + "\n" + genbank("ACGTN", name="REC2")).encode()))
    first, second = read_genbank(path)
    assert (first.id, first.description, first.organism) == ("REC1.1", "A test record", "Testus primus")
    assert (first.sequence, first.circular, first.genetic_code) == (SEQUENCE, True, 11)
    assert first.features[1].parts == ((4, 16),) and first.features[1].strand == 1
    assert first.features[1].qualifiers["EC_number"] == ("1.1.1.1",)
    assert (first.features[2].kind, first.features[2].parts, first.features[2].strand) == ("CDS", ((18, 30),), -1)
    assert (second.id, second.sequence, second.circular, second.genetic_code) == ("REC2.1", "ACGTN", False, 1)


def test_parts_of_a_feature_stand_in_the_order_of_its_transcript(tmp_path: Path) -> None:
    features = "CDS complement(join(1..4,10..12,20..25))\nCDS join(1..4,10..12)\nmRNA <3..>9\n"
    features += "tRNA join(1..3,complement(7..9))\ngene order(1..2,5..6)"
    record = next(read_genbank(write(tmp_path / "r.gb", genbank(features=features))))
    assert record.features[0].parts == ((19, 25), (9, 12), (0, 4)) and record.features[0].strand == -1
    assert record.features[1].parts == ((0, 4), (9, 12))
    assert [feature.partial for feature in record.features] == [False, False, True, False, False]
    assert [feature.fault for feature in record.features] == ["", "", "", "trans_spliced", "no_join"]


def test_the_default_genetic_code_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="genetic code 7 does not exist"):
        next(read_genbank(write(tmp_path / "r.gb", genbank()), genetic_code=7))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "r.gb holds no record"),
        (">a\nACGT\n", "r.gb, line 1: '>a'; expected a record, which begins with LOCUS"),
        (genbank() + "lost\n" + genbank(), "r.gb, line 13: 'lost'"),
        (genbank().replace("//\n", ""), "r.gb ends inside the record of line 1"),
        (genbank().replace("//\n", "") + genbank(), "r.gb, line 12: a record begins before that of line 1 ends"),
        (genbank().replace("34 bp", "35 bp"), r"r.gb, line 1: a sequence of 34 letters .34 in the text.; expected 35"),
        (genbank().replace("34 bp", "34 aa"), "Proteins are read from UniProt"),
        (genbank().replace("cccca", "ccc!a"), "r.gb, line 1, record 'REC1.1': '!' is not a DNA letter"),
        (genbank(features="CDS 5..99"), r"record 'REC1.1': a CDS at 5..99; expected positions within 1..34"),
        (genbank(features="CDS 5...16"), "r.gb, line 1: "),
        (re.sub("ORIGIN(.|\n)*//", "CONTIG      join(X:1..34)\n//", genbank()), "r.gb, line 1: "),
    ],
)
def test_a_damaged_genbank_file_is_one_line_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        list(read_genbank(write(tmp_path / "r.gb", content)))
    assert "\n" not in str(caught.value)


def test_the_preamble_of_a_genbank_release_is_skipped(tmp_path: Path) -> None:
    preamble = "GBBCT1.SEQ          Genetic Sequence Data Bank\n                         February 15 2020\n\n   10 loci\n\n"
    assert len(list(read_genbank(write(tmp_path / "r.seq", preamble + genbank())))) == 1
