"""Mutation lists and VCF files: what a row means, and what is refused or counted."""

from __future__ import annotations

import csv
import gzip
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gene.errors import InputError, MissingFileError
from llama_gene.sequences.variants import (
    Edit,
    mutate,
    parse_mutations,
    read_mutations,
    read_reference,
    read_vcf,
    vcf_contigs,
    windows,
)

PROTEIN = "MKYLILNGKT"
HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
CONTIGS = {"chr1": "ACGTACGTAC", "chr2": "NNACGRTTTT"}


def mutant(text: str, sequence: str = PROTEIN, kind: str = "protein", first: int = 1) -> str:
    """Return the sequence that a list's cell names."""
    edits = parse_mutations(text, sequence, kind, "list.csv, line 2", first)
    assert not isinstance(edits, str), edits
    return mutate(sequence, edits)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("K2R", "MRYLILNGKT"),
        ("k2r", "MRYLILNGKT"),
        ("p.Lys2Arg", "MRYLILNGKT"),
        ("p.(Lys2Arg)", "MRYLILNGKT"),
        ("K2R:T10A", "MRYLILNGKA"),
        ("T10A;K2R", "MRYLILNGKA"),
        ("p.[Lys2Arg;Thr10Ala]", "MRYLILNGKA"),
        ("K2del", "MYLILNGKT"),
        ("2del", "MYLILNGKT"),
        ("K2_L4del", "MILNGKT"),
        ("2_4delKYL", "MILNGKT"),
        ("K2_Y3insGP", "MKGPYLILNGKT"),
        ("2_3insGP", "MKGPYLILNGKT"),
        ("1_2insGP:K2R", "MGPRYLILNGKT"),
        ("K2_Y3delinsG", "MGLILNGKT"),
        ("K2delinsGG", "MGGYLILNGKT"),
        ("K2dup", "MKKYLILNGKT"),
        ("2_3dup", "MKYKYLILNGKT"),
        ("M1del", "KYLILNGKT"),
        ("T10_T10dup", "MKYLILNGKTT"),
        ("WT", PROTEIN),
        ("=", PROTEIN),
        ("K2=", PROTEIN),
    ],
)
def test_each_way_of_writing_a_mutation(text: str, expected: str) -> None:
    assert mutant(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("c.3G>A", "ACATA"), ("3G>A", "ACATA"), ("G3A", "ACATA"), ("g.2_3delinsTT", "ATTTA")])
def test_bases_are_written_as_hgvs_does(text: str, expected: str) -> None:
    assert mutant(text, "ACGTA", "dna") == expected


def test_three_letters_are_residues_only_in_a_protein() -> None:
    with pytest.raises(InputError, match="'Lys2Arg' is no mutation"):
        mutant("Lys2Arg", "ACGTA", "dna")


def test_numbers_may_begin_anywhere() -> None:
    assert mutant("K228R", first=227) == "MRYLILNGKT"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A2R", "line 2: 'A2R' names A at 2, where the sequence has K"),
        ("Y2R", r"names Y at 2, where the sequence has K.*\(position 3 has it: see first_position\)"),
        ("K2_A4del", "names A at 4, where the sequence has L"),
        ("2_4delKYY", "names KYY at 2, where the sequence has KYL"),
        ("K11R", "'K11R' lies outside its sequence; expected positions 1 to 10"),
        ("K0R", "lies outside its sequence"),
        ("4_2del", "lies outside its sequence"),
        ("2_4insG", "inserts at no boundary"),
        ("2R", "does not say which letter it replaces"),
        ("K2Z!", "is no mutation; expected such as A123G"),
        ("", "'' is no mutation"),
        ("K2R:K2A", "change position 2"),
        ("K2_L4del:Y3A", "change position 3"),
        ("2_3insG:2_3insP", "change position 3"),
        ("K2delins1", "is no mutation"),
    ],
)
def test_what_is_no_mutation_of_this_sequence_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mutant(text)


def test_a_new_letter_must_be_of_the_alphabet() -> None:
    with pytest.raises(InputError, match="'E' is not a letter of dna"):
        mutant("G3E", "ACGTA", "dna")


@pytest.mark.parametrize(
    ("text", "reason"), [("K2*", "stop"), ("p.Lys2Ter", "stop"), ("p.Lys2ArgfsTer5", "frame shift"), ("K2fs", "frame shift")]
)
def test_stops_and_frame_shifts_have_no_score(text: str, reason: str) -> None:
    assert parse_mutations(text, PROTEIN, "protein", "") == reason


def test_a_list_names_its_sequences(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    path.write_bytes(b"id\tmutation\tfitness\r\na\tK2R\t0.5\r\nb\tC2*\t0\r\nb\tC2T\t1\r\n")
    rejected: Counter[str] = Counter()
    found = list(read_mutations(path, {"a": PROTEIN, "b": "ACG"}, "protein", rejected, keep=["fitness"]))
    assert [(item.sequence, item.name, item.line, item.cells["fitness"]) for item in found] == [
        ("a", "K2R", 2, "0.5"),
        ("b", "C2T", 4, "1"),
    ]
    assert rejected == {"stop": 1}


def test_a_list_without_names_is_of_the_only_sequence(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("mutation\nK2R\n")
    [variant] = read_mutations(path, {"a": PROTEIN}, "protein", Counter())
    assert variant.sequence == "a"
    with pytest.raises(InputError, match="has no column 'id'; expected one, for there are 2 sequences"):
        list(read_mutations(path, {"a": PROTEIN, "b": PROTEIN}, "protein", Counter()))
    path.write_text("id,mutation\ngfpp,K2R\n")
    with pytest.raises(InputError, match="line 2: no sequence is named 'gfpp'; expected one of gfp. Did you mean 'gfp'?"):
        list(read_mutations(path, {"gfp": PROTEIN}, "protein", Counter()))


def test_windows_are_clipped_at_the_ends() -> None:
    assert windows("ACGTACGT", (Edit(0, "A", "G"),), 2) == (0, "ACG", "GCG")
    assert windows("ACGTACGT", (Edit(7, "T", ""),), 2) == (5, "CGT", "CG")
    assert windows("ACGTACGT", (Edit(1, "C", "T"), Edit(5, "C", "")), 1) == (0, "ACGTACG", "ATGTAG")
    assert windows("ACGT", (Edit(1, "C", "T"),), None) == (0, "ACGT", "ATGT")


@given(st.text("ACGT", min_size=1, max_size=40), st.data())
def test_a_window_of_a_mutant_is_the_mutants_own(sequence: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(sequence) - 1))
    end = data.draw(st.integers(start, len(sequence)))
    edit = Edit(start, sequence[start:end], data.draw(st.text("ACGT", max_size=5)))
    begin, reference, mutated = windows(sequence, (edit,), data.draw(st.integers(1, 50)))
    assert sequence[begin : begin + len(reference)] == reference
    assert sequence[:begin] + mutated + sequence[begin + len(reference) :] == mutate(sequence, (edit,))


def vcf(folder: Path, *rows: str, header: str = HEADER, name: str = "calls.vcf") -> Path:
    """Write a VCF file; blanks in rows become tabs."""
    path = folder / name
    text = header + "".join(row.replace(" ", "\t") + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_each_allele_is_a_variant(tmp_path: Path) -> None:
    path = vcf(tmp_path, "chr1 2 rs1 C G,T . PASS .", "chr1 4 . TAC T . . .", "chr2 3 . a ACC", name="calls.vcf.gz")
    rejected: Counter[str] = Counter()
    found = [(item.name, item.edits[0], item.cells["vcf_id"]) for item in read_vcf(path, CONTIGS, rejected)]
    assert found == [
        ("chr1:2:C>G", Edit(1, "C", "G"), "rs1"),
        ("chr1:2:C>T", Edit(1, "C", "T"), "rs1"),
        ("chr1:4:TAC>T", Edit(3, "TAC", "T"), "."),
        ("chr2:3:A>ACC", Edit(2, "A", "ACC"), "."),
    ]
    assert not rejected and vcf_contigs(path) == {"chr1": 3, "chr2": 5}


def test_alleles_without_a_sequence_are_counted_by_reason(tmp_path: Path) -> None:
    path = vcf(tmp_path, "chr1 1 . A *,<DEL>,.,G", "chr1 2 . C C,N,]chr2:5]C,.C", "chr2 6 . A T", "chr2 1 . N A")
    rejected: Counter[str] = Counter()
    assert [item.name for item in read_vcf(path, CONTIGS, rejected)] == ["chr1:1:A>G", "chr2:1:N>A"]
    assert rejected == {
        "overlapping deletion": 1, "symbolic allele": 1, "no alternative": 1, "same as the reference": 1, "ambiguous allele": 1,
        "breakend": 2, "ambiguous reference": 1,
    }  # fmt: skip


def test_windows_line_ends_and_empty_lines_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "calls.vcf"
    path.write_bytes(HEADER.replace("\n", "\r\n").encode() + b"chr1\t2\t.\tC\tG\r\n\r\n")
    assert [item.name for item in read_vcf(path, CONTIGS, Counter())] == ["chr1:2:C>G"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("chr1 2 . A G", "calls.vcf, line 3: REF is A, and the reference has C at chr1:2; expected the same letters"),
        ("chr1 10 . CA C", "line 3: chr1:10 with REF CA ends beyond the contig; expected positions 1 to 10"),
        ("chr1 11 . C G", "ends beyond the contig"),
        ("chr1 0 . A G", "POS is '0'"),
        ("chr1 x . A G", "POS is 'x'"),
        ("chr1 1 . A* G", r"REF is 'A\*'"),
        ("chr1 1 . A Q", "ALT is 'Q'"),
        ("chr1 1 . A", "line 3: 4 columns; expected CHROM POS ID REF ALT, with tabs"),
        ("1 1 . A G", "no contig '1'.*The same contig is 'chr1' there: the FASTA writes chr before the name"),
        ("chr3 1 . A G", "no contig 'chr3'; expected one of chr1, chr2"),
    ],
)
def test_a_row_that_does_not_fit_names_its_line(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_vcf(vcf(tmp_path, row), CONTIGS, Counter()))


def test_columns_with_blanks_are_told(tmp_path: Path) -> None:
    path = tmp_path / "calls.vcf"
    path.write_text(HEADER + "chr1 2 . C G\n")
    with pytest.raises(InputError, match="are its columns separated by spaces"):
        list(read_vcf(path, CONTIGS, Counter()))


def test_what_is_no_vcf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without a header"):
        vcf_contigs(vcf(tmp_path, "chr1 2 . C G", header=""))
    with pytest.raises(InputError, match="holds no variant"):
        vcf_contigs(vcf(tmp_path))
    with pytest.raises(InputError, match="has no header"):
        vcf_contigs(vcf(tmp_path, header=""))
    with pytest.raises(MissingFileError):
        vcf_contigs(tmp_path / "gone.vcf")
    path = vcf(tmp_path, *["chr1 2 . C G"] * 2000, name="cut.vcf.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cut.vcf.gz cannot be decompressed"):
        vcf_contigs(path)


def test_only_the_named_contigs_are_held(tmp_path: Path) -> None:
    fasta = tmp_path / "genome.fa"
    fasta.write_text(">chr1 first\nacgt\nNN\n>chr2\nTTTT\n")
    assert read_reference(fasta, {"chr1": 3}, Path("calls.vcf")) == {"chr1": "ACGTNN"}
    with pytest.raises(InputError, match="calls.vcf, line 7: the reference has no contig 'chrM'"):
        read_reference(fasta, {"chr1": 3, "chrM": 7}, Path("calls.vcf"))
    with pytest.raises(InputError, match="The same contig is 'chr2' there"):
        read_reference(fasta, {"2": 3}, Path("calls.vcf"))
    fasta.write_text(">chr1\nAC\n>chr1\nAC\n")
    with pytest.raises(InputError, match="two records are named 'chr1'"):
        read_reference(fasta, {"chr1": 3}, Path("calls.vcf"))


@pytest.mark.real_data
@pytest.mark.skipif("LLAMA_GENE_DATA" not in os.environ, reason="LLAMA_GENE_DATA is not set")
def test_the_mutants_of_a_real_scan_are_rebuilt_letter_by_letter() -> None:
    """GFP (Sarkisyan et al. 2016), 38,820 mutants with 1 to 15 substitutions each; its positions begin at 0, and "S" is before each."""
    folder = Path(os.environ["LLAMA_GENE_DATA"]) / "tasks/protein_gfp_fluorescence"
    rows = []
    for split in ("train", "test"):
        with gzip.open(folder / f"{split}.csv.gz", "rt", encoding="utf-8", newline="") as handle:
            rows += list(csv.DictReader(handle))
    [wild_type] = [row["sequence"] for row in rows if row["num_mutations"] == "0"]
    mutants = [row for row in rows if row["num_mutations"] != "0"]
    assert len(mutants) == 38_820
    for row in mutants:
        text = ":".join(part[1:] for part in row["mutations"].split(":"))
        assert mutant(text, wild_type, first=0) == row["sequence"]
