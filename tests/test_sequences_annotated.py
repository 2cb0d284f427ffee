"""Annotated sequences: GenBank, GFF3 with FASTA, UniProt; genes to proteins; and what damaged files do."""

from __future__ import annotations

import gzip
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.annotated import (
    AnnotatedRecord,
    CodingSequence,
    Feature,
    coding_sequences,
    exon_states,
    parse_uniprot_header,
    read_genbank,
    read_gff,
    read_uniprot,
)
from llama_gene.sequences.records import read_records

DATA = Path(os.environ.get("LLAMA_GENE_DATA", "none"))

ONE = "ATGGCTAAATAA"  # M A K stop
TWO = "GTGGCTTGGTGA"  # alternative start, A W, stop (code 11; W in code 4)
SEQUENCE = "CCCC" + ONE + "GG" + reverse_complement(TWO) + "CATG"


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def genbank(sequence: str = SEQUENCE, features: str = "", name: str = "REC1", topology: str = "linear") -> str:
    """Return a GenBank record; each line of `features` is indented as the format wants it: KEY LOCATION, or /qualifier."""
    lines = [f"LOCUS       {name:<16} {len(sequence)} bp    DNA     {topology:<8} BCT 01-JAN-2020"]
    lines += ["DEFINITION  A test record.", f"ACCESSION   {name}", f"VERSION     {name}.1", "KEYWORDS    ."]
    lines += ["SOURCE      Testus primus", "  ORGANISM  Testus primus", "            Bacteria.", "FEATURES             Location/Qualifiers"]
    for line in features.strip().splitlines():
        line = line.strip()
        lines.append(" " * 21 + line if line.startswith("/") else "     {:<16}{}".format(*line.split(maxsplit=1)))
    lines.append("ORIGIN")
    for start in range(0, len(sequence), 60):
        groups = [sequence[at : at + 10].lower() for at in range(start, min(start + 60, len(sequence)), 10)]
        lines.append(f"{start + 1:>9} {' '.join(groups)}")
    return "\n".join(lines) + "\n//\n"


GENES = """
source 1..34
CDS 5..16
/gene="one"
/product="protein one"
/EC_number="1.1.1.1"
/codon_start=1
/transl_table=11
/translation="MAK"
CDS complement(19..30)
/locus_tag="L2"
/transl_table=11
"""


def coded(features: str, sequence: str = SEQUENCE, topology: str = "linear", code: int = 1) -> tuple[list[CodingSequence], Counter[str]]:
    """Return the coding sequences of a GenBank record, and their counts."""
    import tempfile

    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "r.gb", genbank(sequence, features, topology=topology))
        return [found for record in read_genbank(path, code) for found in coding_sequences(record, counts)], counts


# GenBank


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


# Genes and proteins


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


def test_exon_states_name_each_base() -> None:
    features = (
        Feature("gene", ((0, 12),), 1, {}),
        Feature("mRNA", ((1, 3), (6, 8)), 1, {}),
        Feature("CDS", ((15, 16), (10, 12)), -1, {}),
        Feature("CDS", ((16, 18), (19, 20)), 1, {}),  # a slip of the ribosome, no intron
        Feature("CDS", ((0, 1), (21, 22)), 1, {"pseudo": ("",)}),
    )
    states = exon_states(AnnotatedRecord("r", "", "", "A" * 22, False, 1, features))
    assert states == "OEEIIIEEOOEEIIIEEEOEOO"


# GFF3

GFF = """##gff-version 3
chr1\tx\tregion\t1\t34\t.\t+\t.\tID=chr1;Is_circular=true;organism=Testus primus
chr1\tx\tgene\t1\t20\t.\t+\t.\tID=g1;Name=abc
chr1\tx\tmRNA\t1\t20\t.\t+\t.\tID=t1;Parent=g1;product=protein%2C one
chr1\tx\texon\t1\t5\t.\t+\t.\tID=e1;Parent=t1
chr1\tx\texon\t14\t20\t.\t+\t.\tID=e2;Parent=t1
chr1\tx\tCDS\t1\t5\t.\t+\t0\tID=c1;Parent=t1;EC_number=1.1.1.1,2.2.2.2
chr1\tx\tCDS\t14\t20\t.\t+\t1\tID=c1;Parent=t1;EC_number=1.1.1.1,2.2.2.2
###
"""
GFF_SEQUENCE = ONE[:5] + "GTTTTTAG" + ONE[5:] + "C" * 14
FASTA = f">chr1 words\n{GFF_SEQUENCE[:20]}\n{GFF_SEQUENCE[20:]}\n>chr2\nACGT\n"


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
    with pytest.raises(InputError, match=r"g.gff names chr1, .*g.fa names I, II; .* pass names: \{chr1: "):
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


# UniProt

ENTRY = """ID   PUUE_ECOLI              Reviewed;          12 AA.
AC   P50457; P76035;
DT   01-OCT-1996, integrated into UniProtKB/Swiss-Prot.
DT   01-OCT-1996, sequence version 1.
DT   02-JUN-2021, entry version 150.
DE   RecName: Full=4-aminobutyrate aminotransferase PuuE {ECO:0000303|PubMed:1};
DE            EC=2.6.1.19 {ECO:0000269|PubMed:12617754};
GN   Name=puuE {ECO:0000303|PubMed:2}; Synonyms=goaG; OrderedLocusNames=b1302, JW1295;
OS   Escherichia coli (strain K12).
OC   Bacteria; Proteobacteria.
OX   NCBI_TaxID=83333;
CC   -!- FUNCTION: Catalyzes the transfer of the amino group (PubMed:12617754).
CC       Degrades putrescine. {ECO:0000269|PubMed:12617754}.
DR   GO; GO:0005829; C:cytosol; IDA:EcoCyc.
DR   GO; GO:0042802; F:identical protein binding; IDA:EcoCyc.
PE   1: Evidence at protein level;
KW   Aminotransferase; Pyridoxal phosphate {ECO:0000250};
KW   Transferase.
SQ   SEQUENCE   12 AA;  1300 MW;  0123456789ABCDEF CRC64;
     MSNNEFHQRR LS
//
"""


def test_a_uniprot_entry_has_function_terms_and_sequence_without_evidence_tags(tmp_path: Path) -> None:
    entry, second = read_uniprot(write(tmp_path / "u.dat", ENTRY + ENTRY.replace("PUUE", "QUUE")))
    assert (entry.accession, entry.name) == ("P50457", "4-aminobutyrate aminotransferase PuuE")
    assert (entry.organism, entry.gene, entry.ec_numbers) == ("Escherichia coli (strain K12)", "puuE", ("2.6.1.19",))
    assert entry.function == "Catalyzes the transfer of the amino group. Degrades putrescine."
    assert entry.go_terms == ("GO:0005829 C:cytosol", "GO:0042802 F:identical protein binding")
    assert entry.keywords == ("Aminotransferase", "Pyridoxal phosphate", "Transferase")
    assert entry.sequence == second.sequence == "MSNNEFHQRRLS"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "u.dat holds no record"),
        (ENTRY.replace("12 AA.", "13 AA."), r"u.dat, line 1: a sequence of 12 letters .*; expected 13"),
        (ENTRY + ENTRY.replace("LS\n", "LS1\n").replace("12 AA", "13 AA"), "u.dat, line 22, entry 'P50457': '1' is not a protein letter"),
        (ENTRY.replace("AC   P50457; P76035;\n", ""), "u.dat, line 1: "),
        (ENTRY.replace("KW ", "?? "), "u.dat, line 1: Unknown keyword"),
        (ENTRY[:-3], "u.dat ends inside the record of line 1"),
    ],
)
def test_a_damaged_uniprot_file_is_one_line_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_uniprot(write(tmp_path / "u.dat", content)))


def test_fasta_headers_of_three_kinds() -> None:
    entry = parse_uniprot_header(
        ">tr|Q8IJT7-2|Q8IJT7_PLAF7 Protein a=b (EC 3.6.4.-) OS=Nostoc sp. (strain PCC 7120) OX=1 GN=alr1 PE=4 SV=1", "MK"
    )
    assert (entry.accession, entry.name, entry.gene) == ("Q8IJT7-2", "Protein a=b (EC 3.6.4.-)", "alr1")
    assert (entry.organism, entry.ec_numbers, entry.sequence) == ("Nostoc sp. (strain PCC 7120)", ("3.6.4.-",), "MK")
    assert parse_uniprot_header("sp|P1|A_B OS=X").name == "A_B"
    entry = parse_uniprot_header("P18940 1.6.5.3;7.1.1.2~~~MT-ND5~~~NADH oxidoreductase 1.2.3.4~~~COG1")
    assert (entry.accession, entry.gene, entry.name) == ("P18940", "MT-ND5", "NADH oxidoreductase 1.2.3.4")
    assert entry.ec_numbers == ("1.6.5.3", "7.1.1.2")
    assert parse_uniprot_header("O79675 ~~~~~~ATP synthase").name == "ATP synthase"
    entry = parse_uniprot_header("WP_1.1 dnaA protein 1.2.3.4 [Escherichia coli]")
    assert (entry.name, entry.organism, entry.ec_numbers) == ("dnaA protein 1.2.3.4", "Escherichia coli", ())
    assert parse_uniprot_header("x").accession == "x"


# Damage at random

FILES = st.sampled_from(["gb", "gff", "dat"])
WHOLE = {"gb": genbank(features=GENES) + genbank("ACGT" * 40, "CDS join(1..6,70..99)"), "gff": GFF + "##FASTA\n" + FASTA, "dat": ENTRY * 2}


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str]:
    """Return a file kind and a good file with up to four places overwritten, cut out, doubled, or filled with something else."""
    suffix = draw(FILES)
    text = WHOLE[suffix]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 1, 1, 2, 7, 40, 200])))
        junk = draw(
            st.sampled_from(["", "", text[start:end] * 2, "N", "\n", "\n//\n", "0", "é", "\t", "\x00", "#", "/", ";", "=", ")", "-1", "\r"])
        )
        text = text[:start] + junk + text[end:]
    return suffix, text


def letters_of_the_text(suffix: str, text: str) -> int:
    """Count the sequence letters of a file with a loop of its own."""
    opening, closing = {"gb": ("ORIGIN", "//"), "gff": ("##FASTA", "\0"), "dat": ("SQ ", "//")}[suffix]
    inside, number = False, 0
    for line in re.split("\r\n|\r|\n", text):
        if line.startswith(opening) and not inside:
            inside = True
        elif line.startswith(closing):
            inside = False
        elif inside and not (suffix == "gff" and line.lstrip().startswith(">")):
            number += sum(letter.isalpha() or letter in "-*" for letter in line)
    return number


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_law_13_a_damaged_file_is_refused_in_one_line_or_read_to_the_last_letter(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, str]
) -> None:
    suffix, text = file
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_bytes(text.encode())
    counts: Counter[str] = Counter()
    try:
        if suffix == "dat":
            num_letters = sum(len(entry.sequence) for entry in read_uniprot(path))
        else:
            records = list(read_genbank(path) if suffix == "gb" else read_gff(path))
            num_letters = sum(len(record.sequence) for record in records)
            assert all(len(exon_states(record)) == len(record.sequence) for record in records)
            assert all(gene.protein for record in records for gene in coding_sequences(record, counts))
    except InputError as error:
        assert "\n" not in str(error) and f"damaged.{suffix}" in str(error)
        return
    assert num_letters == letters_of_the_text(suffix, text)
    stated = {"gb": r"LOCUS +\S+ +(\d+) bp", "dat": r"ID  .*?(\d+)\s+\S+\s*$", "gff": None}[suffix]
    if stated is not None:
        lines = re.split("\r\n|\r|\n", text)
        assert num_letters == sum(int(match[1]) for line in lines if (match := re.match(stated, line)))
    assert counts["read"] == counts["kept"] + sum(number for reason, number in counts.items() if reason.startswith("skipped:"))


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


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_the_headers_of_real_proteins_are_understood() -> None:
    counts: Counter[str] = Counter()
    for path in sorted((DATA / "proteins").glob("*.fasta.*")):
        for record in read_records(path, "protein"):
            entry = parse_uniprot_header(f"{record.id} {record.description}")
            assert entry.accession and entry.name and "~~~" not in entry.name and "OS=" not in entry.name
            counts.update({"all": 1, "gene": bool(entry.gene), "organism": bool(entry.organism), "EC": bool(entry.ec_numbers)})
    assert counts["all"] == 53_740
