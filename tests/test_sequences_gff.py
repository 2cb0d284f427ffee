"""GFF3 with its FASTA: lines to genes, names, and what damaged files do."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.features import exon_states
from llama_gene.sequences.genes import CodingSequence, coding_sequences
from llama_gene.sequences.gff import read_gff
from tests.fixtures.annotated_files import FASTA, GFF, GFF_SEQUENCE, ONE, write


def gff_genes(tmp_path: Path, text: str, fasta: str = FASTA, **arguments: object) -> tuple[list[CodingSequence], Counter[str]]:
    counts: Counter[str] = Counter()
    records = read_gff(write(tmp_path / "g.gff", text), write(tmp_path / "g.fa", fasta), **arguments)  # type: ignore[arg-type]
    return [gene for record in records for gene in coding_sequences(record, counts)], counts


def test_gff_lines_become_genes_with_what_their_ancestors_know(tmp_path: Path) -> None:
    genes, counts = gff_genes(tmp_path, GFF)
    assert genes == [CodingSequence("abc", "protein, one", ONE, "MAK", 1, ("1.1.1.1", "2.2.2.2"), "chr1:join(1..5,14..20)")]
    assert counts == {"read": 1, "kept": 1}
    first, second = read_gff(tmp_path / "g.gff", tmp_path / "g.fa")
    assert (first.organism, first.circular, first.description) == ("Testus primus", True, "words")
    assert [feature.kind for feature in first.features] == ["region", "gene", "mRNA", "CDS"]
    assert first.features[2].parts == ((0, 5), (13, 20))  # the exons
    assert exon_states(first) == "E" * 5 + "I" * 8 + "E" * 7 + "O" * 14
    assert (second.id, second.features) == ("chr2", ())


def test_an_embedded_fasta_section_reads_as_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "g.gff.gz"
    path.write_bytes(gzip.compress((GFF + "##FASTA\n" + FASTA).encode()))
    assert [record.sequence for record in read_gff(path)] == [GFF_SEQUENCE, "ACGT"]
    assert next(coding_sequences(next(read_gff(path)))).protein == "MAK"
    with pytest.raises(InputError, match=r"g.gff holds no ##FASTA section; .*Name the FASTA file"):
        next(read_gff(write(tmp_path / "g.gff", GFF)))
    with pytest.raises(InputError, match=r"g.gff, section ##FASTA, record 'chr2': 'E' is not a DNA letter"):
        list(read_gff(write(tmp_path / "g.gff", GFF + "##FASTA\n" + FASTA.replace("ACGT\n", "ACE\n"))))


def test_names_of_another_assembly_are_refused_and_can_be_mapped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"g.gff names chr1, .*g.fa names I, II; .* set gff_names: \{chr1: "):
        gff_genes(tmp_path, GFF, FASTA.replace("chr1", "I").replace("chr2", "II"))
    genes, _ = gff_genes(tmp_path, GFF, FASTA.replace("chr1", "I"), names={"chr1": "I"})
    assert genes[0].location == "I:join(1..5,14..20)"


def test_a_minus_strand_gene_reads_from_its_right_end(tmp_path: Path) -> None:
    sequence = reverse_complement(ONE[:5] + "GTTTTTAG" + ONE[5:])
    lines = "chr1\tx\tCDS\t1\t7\t.\t-\t1\tID=c\nchr1\tx\tCDS\t16\t20\t.\t-\t0\tID=c\n"
    genes, _ = gff_genes(tmp_path, lines, f">chr1\n{sequence}\n")
    assert (genes[0].dna, genes[0].location) == (ONE, "chr1:complement(join(1..7,16..20))")


def test_lines_with_ids_of_their_own_are_one_cds_when_they_share_a_parent(tmp_path: Path) -> None:
    assert len(gff_genes(tmp_path, GFF.replace("1\tID=c1;", "1\tID=c2;"))[0]) == 1
    assert len(gff_genes(tmp_path, GFF.replace("ID=c1;", ""))[0]) == 1
    two = "chr1\tx\tCDS\t1\t12\t.\t+\t0\tID=a;Parent=m\nchr1\tx\tCDS\t4\t15\t.\t+\t0\tID=b;Parent=m\n"
    assert gff_genes(tmp_path, two)[1]["read"] == 2  # they overlap: two proteins of one transcript


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\t1\tID=c1;", "\t2\tID=c1;", "phase_mismatch"),
        ("\t0\tID=c1;", "\t2\tID=c1;", "phase_mismatch"),
        ("1\tID=c1;", "1\tpartial=true;ID=c1;", "partial"),
        ("ID=g1;", "ID=g1;pseudo=true;", "pseudogene"),
        ("\tgene\t", "\tpseudogene\t", "pseudogene"),
        ("ID=t1;", "ID=t1;exception=trans-splicing;", "trans_spliced"),
        ("5\t.\t+\t0\tID=c1", "5\t.\t-\t0\tID=c1", "trans_spliced"),
        ("0\tID=c1", "0\texception=ribosomal slippage;ID=c1", "frameshift"),
    ],
)
def test_a_gff_gene_that_cannot_be_translated_is_counted(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in GFF
    assert gff_genes(tmp_path, GFF.replace(old, new)) == ([], {"read": 1, f"skipped:{reason}": 1})


def test_a_gff_gene_over_the_origin_of_a_circle_is_whole(tmp_path: Path) -> None:
    sequence = ONE[5:] + "C" * 10 + ONE[:5]
    lines = "chr1\tx\tregion\t1\t22\t.\t+\t.\tID=r;Is_circular=true\nchr1\tx\tCDS\t18\t29\t.\t+\t0\tID=c\n"
    genes, _ = gff_genes(tmp_path, lines, f">chr1\n{sequence}\n")
    assert (genes[0].dna, genes[0].location) == (ONE, "chr1:join(18..22,1..7)")
    with pytest.raises(InputError, match=r"g.gff, line 2: a CDS that ends at 29; expected at most 22, the length of 'chr1'"):
        gff_genes(tmp_path, lines.replace(";Is_circular=true", ""), f">chr1\n{sequence}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("##gff-version 2\n", "line 1: '##gff-version 2'; expected ##gff-version 3"),
        ("##gff-version 3\n", "holds no feature"),
        ("chr1\tx\tCDS\t1\t5\n", "line 1: 5 columns; expected 9"),
        ("chr1\tx\tCDS\t9\t5\t.\t+\t0\tID=a\n", "line 1: positions '9' to '5'"),
        ("chr1\tx\tCDS\t1\t5\t.\tp\t0\tID=a\n", "line 1: strand 'p'"),
        ("#c\n\nchr1\tx\tCDS\t1\t5\t.\t+\t.\tID=a\n", "line 3: a CDS of phase '.'"),
        ('chr1\tx\tCDS\t1\t5\t.\t+\t0\tgene_id "a";\n', "line 1: attribute 'gene_id \"a\"'; expected KEY=VALUE. A GTF file"),
        (GFF + ">chr1\nACGT\n", "line 10: a FASTA header among features"),
    ],
)
def test_a_damaged_gff_file_is_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"g.gff,? {message}"):
        gff_genes(tmp_path, text)
