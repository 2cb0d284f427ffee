"""UniProt: flat files, and what FASTA headers say."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from llama_gene.errors import InputError
from llama_gene.sequences.records import read_records
from llama_gene.sequences.uniprot import ProteinEntry, describe_protein, parse_uniprot_header, read_uniprot
from tests.fixtures.annotated_files import ENTRY, write

DATA = Path(os.environ.get("LLAMA_GENE_DATA", "none"))


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


def test_a_protein_of_which_nothing_is_known_has_no_description() -> None:
    assert describe_protein(ProteinEntry("P1", "")) == ""
    assert describe_protein(ProteinEntry("P1", "", go_terms=("GO:1 odd", "GO:2 C:"))) == "GO terms: GO:1 odd; GO:2 C:"


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
