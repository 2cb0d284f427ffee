"""Genes to proteins: what is translated, and why the rest is not; real genomes make their proteins."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.features import exon_states
from llama_gene.sequences.genbank import read_genbank
from llama_gene.sequences.genes import CodingSequence, coding_sequences
from llama_gene.sequences.gff import read_gff
from llama_gene.sequences.records import read_records
from tests.fixtures.annotated_files import GENES, ONE, SEQUENCE, TWO, genbank, write

DATA = Path(os.environ.get("LLAMA_GENE_DATA", "none"))


def coded(features: str, sequence: str = SEQUENCE, topology: str = "linear", code: int = 1) -> tuple[list[CodingSequence], Counter[str]]:
    """Return the coding sequences of a GenBank record, and their counts."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "r.gb", genbank(sequence, features, topology=topology))
        return [found for record in read_genbank(path, code) for found in coding_sequences(record, counts)], counts


def test_genes_are_translated_by_their_own_code_with_their_start_read_as_m() -> None:
    found, counts = coded(GENES)
    assert found[0] == CodingSequence("one", "protein one", ONE, "MAK", 11, ("1.1.1.1",), "REC1.1:5..16")
    assert found[1] == CodingSequence("L2", "", TWO, "MAW", 11, (), "REC1.1:complement(19..30)")
    assert counts == {"read": 2, "kept": 2}


def test_the_default_code_holds_where_a_cds_states_none() -> None:
    assert coded("CDS complement(19..30)")[1] == {"read": 1, "skipped:no_start": 1}  # GTG starts nothing in code 1
    assert [gene.protein for gene in coded("CDS complement(19..30)", code=11)[0]] == ["MAW"]
    assert coded("CDS complement(19..30)", code=4)[1] == {"read": 1, "skipped:no_stop": 1}  # TGA is W in code 4


def test_introns_are_taken_out() -> None:
    sequence = ONE[:5] + "GTAAGTTTTTTTAG" + ONE[5:]
    found, _ = coded("CDS join(1..5,20..26)", sequence)
    assert (found[0].dna, found[0].location) == (ONE, "REC1.1:join(1..5,20..26)")
    found, _ = coded("CDS complement(join(1..7,22..26))", reverse_complement(sequence))
    assert (found[0].dna, found[0].protein, found[0].location) == (ONE, "MAK", "REC1.1:complement(join(1..7,22..26))")


def test_a_gene_over_the_origin_of_a_circle_is_whole() -> None:
    sequence = ONE[5:] + "CCCCCC" + ONE[:5]
    assert coded("CDS join(14..18,1..7)", sequence, "circular")[0][0].dna == ONE
    assert coded("CDS join(14..18,1..7)", sequence)[1] == {"read": 1, "skipped:trans_spliced": 1}


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        ("CDS 5..16\n/pseudo", "pseudogene"),
        ('CDS 5..16\n/pseudogene="unitary"', "pseudogene"),
        ("CDS join(5..10,complement(20..25))", "trans_spliced"),
        ("CDS 5..16\n/trans_splicing", "trans_spliced"),
        ("CDS join(20..25,5..10)", "trans_spliced"),
        ("CDS join(X00001.1:5..10,11..16)", "other_record"),
        ("CDS order(5..10,14..16)", "no_join"),
        ("CDS join(5..10,10..16)", "frameshift"),
        ("CDS join(5..10,12..16)", "frameshift"),
        ("CDS complement(join(5..10,10..16))", "frameshift"),
        ("CDS 5..16\n/ribosomal_slippage", "frameshift"),
        ("CDS 5..16\n/transl_except=(pos:8..10,aa:Sec)", "transl_except"),
        ('CDS 5..16\n/exception="RNA editing"', "exception"),
        ("CDS <5..16", "partial"),
        ("CDS 5..>16", "partial"),
        ("CDS 5..16\n/codon_start=2", "partial"),
        ("CDS 5..16\n/transl_table=7", "unknown_genetic_code"),
        ("CDS 5..16\n/transl_table=x", "unknown_genetic_code"),
        ("CDS 5..15", "broken_codon"),
        ("CDS 8..16", "no_start"),
        ("CDS 5..13", "no_stop"),
        ('CDS 5..16\n/translation="MAR"', "mismatch"),
    ],
)
def test_a_cds_that_does_not_make_its_protein_is_counted_with_the_reason(feature: str, reason: str) -> None:
    assert coded(feature) == ([], {"read": 1, f"skipped:{reason}": 1})


def test_ambiguous_letters_and_inner_stops_are_counted() -> None:
    assert coded("CDS 1..12", "ATGGCNAAATAA")[1] == {"read": 1, "skipped:ambiguous_letters": 1}
    assert coded("CDS 1..12", "ATGTAAAAATAA")[1] == {"read": 1, "skipped:inner_stop": 1}


def test_a_start_codon_that_the_annotator_read_literally_is_mended_and_noted() -> None:
    found, counts = coded('CDS complement(19..30)\n/transl_table=11\n/translation="VAW"')
    assert found[0].protein == "MAW"
    assert counts == {"read": 1, "kept": 1, "noted:literal_start": 1}


# Real files


@pytest.mark.parametrize(
    ("name", "code", "records", "letters", "expected"),
    [
        ("escherichia_coli_K12_NC_000913.gbk.xz", 1, 1, 4_641_652, "read 4319 kept 4136 pseudogene 179 transl_except 3 frameshift 1"),
        ("mycoplasma_mycoides_GCF_000023685.1.gbff.gz", 1, 1, 1_084_586, "read 861 kept 849 frameshift 8 pseudogene 4"),
        ("drosophila_chr2L_genes_train.gb.gz", 1, 392, 2_595_032, "read 392 kept 392"),
        ("drosophila_chr2L_genes_test.gb.gz", 1, 100, 771_631, "read 100 kept 100"),
        ("enterobacteria_phage_NC_013600.gbk", 1, 1, 45_169, "read 59 kept 59"),
        (
            "hundred_microviruses.gbk.gz",
            11,
            100,
            586_883,
            "read 1081 kept 1026 no_stop 37 no_start 4 ambiguous_letters 14 literal_start 151",
        ),
    ],
)
@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_real_genbank_files_translate(name: str, code: int, records: int, letters: int, expected: str) -> None:
    counts: Counter[str] = Counter()
    num_letters = []
    for record in read_genbank(DATA / "genomes" / "genbank" / name, code):
        num_letters.append(len(record.sequence))
        assert len(exon_states(record)) == len(record.sequence)
        for gene in coding_sequences(record, counts):
            assert len(gene.protein) == len(gene.dna) // 3 - 1
    assert (len(num_letters), sum(num_letters)) == (records, letters)
    words = expected.split()
    assert {key.rpartition(":")[2]: number for key, number in counts.items()} == {
        key: int(n) for key, n in zip(words[::2], words[1::2], strict=True)
    }


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_the_yeast_genome_makes_the_yeast_proteome() -> None:
    gff = DATA / "genomes" / "yeast" / "saccharomyces_cerevisiae.gff.gz"
    fasta = DATA / "genomes" / "yeast" / "saccharomyces_cerevisiae_R64-1-1.fa.gz"
    with pytest.raises(InputError, match=r"names NC_001133.9, NC_001134.8, NC_001135.5, ... \(17\), .* names I, II, III, ... \(17\)"):
        next(read_gff(gff, fasta))
    with gzip.open(gff, "rt") as handle:
        regions = [line.split()[1] for line in handle if line.startswith("##sequence-region")]
    names = dict(zip(regions, [record.id for record in read_records(fasta)], strict=True))
    counts: Counter[str] = Counter()
    records = list(read_gff(gff, fasta, names))
    proteins = {gene.protein for record in records for gene in coding_sequences(record, counts)}
    assert sum(len(record.sequence) for record in records) == 12_157_105
    assert counts == {"read": 6020, "kept": 5967, "skipped:frameshift": 47, "skipped:pseudogene": 6}
    published = [record.sequence for record in read_records(DATA / "proteins" / "uniprot_yeast.fasta.xz", "protein")]
    assert sum(sequence in proteins for sequence in published) == 5941  # of 6,077
