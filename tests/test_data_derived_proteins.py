"""Proteins with their names, and with their GO slim terms."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from llama_gene.data.derived.proteins import NameOptions, SlimOptions, go_slim_rows, name_rows
from llama_gene.data.derived.tables import derived_rows
from llama_gene.data.tasks import read_task
from llama_gene.errors import InputError

DATA = Path(os.environ.get("LLAMA_GENE_DATA", "nowhere"))
TASKS = Path(__file__).parent.parent / "launch" / "configs" / "tasks"
FASTA = """\
>sp|P1|A_YEAST Protein kinase A OS=Saccharomyces cerevisiae OX=559292 GN=KIN1 PE=1 SV=1
MKAAAAAAAAAAAAAAAAAAAAA
>tr|P2|B_YEAST Predicted thing OS=Saccharomyces cerevisiae OX=559292 GN=YAL001C PE=4 SV=1
MKCCCCCCCCCCCCCCCCCCCCC
>sp|P3|C_YEAST Putative uncharacterized protein YAL002C OS=Saccharomyces cerevisiae OX=559292 GN=YAL002C PE=5 SV=1
MKDDDDDDDDDDDDDDDDDDDDD
>P4 2.7.1.1~~~hxk~~~Hexokinase~~~
MKEEEEEEEEEEEEEEEEEEEEE
>sp|P5|E_YEAST Short one OS=Saccharomyces cerevisiae OX=559292 GN=SHO1 PE=1 SV=1
MK
>sp|P6|F_YEAST Isoform OS=Saccharomyces cerevisiae OX=559292 GN=KIN1 PE=1 SV=1
MKFFFFFFFFFFFFFFFFFFFFF
"""
SLIM = "YBR1W\tKIN1\tGO:0016301\nYBR1W\tKIN1\tGO:0005575\nYBR1W\tKIN1\tGO:0005737\nYAL001C\t\tGO:0005634\nYAL002C\t\tGO:0008150\nX\tY\t\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.fasta").write_text(FASTA)
    (tmp_path / "slim.tsv").write_text(SLIM)
    return tmp_path


def test_names_that_say_something_are_kept_and_the_rest_is_counted(folder: Path) -> None:
    rejected: Counter[str] = Counter()
    rows = name_rows(folder / "p.fasta", NameOptions(), rejected)
    assert [(row["name"], row["accession"], row["source"]) for row in rows] == [
        ("Protein kinase A", "P1", "p.fasta:1"),
        ("Hexokinase", "P4", "p.fasta:4"),
        ("Isoform", "P6", "p.fasta:6"),
    ]
    assert rejected == {"entry not reviewed": 1, "name that says nothing": 1, "protein shorter than min_residues": 1}


def test_a_sample_is_seeded_in_the_order_of_the_file_and_counted(folder: Path) -> None:
    rejected: Counter[str] = Counter()
    rows = name_rows(folder / "p.fasta", NameOptions(sample=2), rejected)
    assert rows == name_rows(folder / "p.fasta", NameOptions(sample=2), Counter()) and len(rows) == 2
    assert rejected["not in the sample"] == 1
    assert [row["source"] for row in rows] == sorted(row["source"] for row in rows)


def test_slim_terms_are_found_by_either_name_without_roots(folder: Path) -> None:
    rejected: Counter[str] = Counter()
    rows = go_slim_rows(folder / "p.fasta", SlimOptions(folder / "slim.tsv"), rejected)
    assert [(row["gene"], row["terms"]) for row in rows] == [("KIN1", "GO:0005737;GO:0016301"), ("YAL001C", "GO:0005634")]
    assert rejected == {
        "gene with root terms only": 1,
        "gene not in the slim table": 1,
        "protein shorter than min_residues": 1,
        "second protein of a gene": 1,
    }


def test_a_table_of_another_width_is_refused_with_its_line(folder: Path) -> None:
    (folder / "slim.tsv").write_text("a\tb\tGO:1\na\tb\n")
    with pytest.raises(InputError, match="slim.tsv, line 2: 2 columns"):
        go_slim_rows(folder / "p.fasta", SlimOptions(folder / "slim.tsv"), Counter())


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_real_yeast_proteins_have_162_slim_terms_each_with_a_name() -> None:
    task = read_task(TASKS / "yeast_go_slim.yaml")
    rejected: Counter[str] = Counter()
    rows = derived_rows(task.derive, task.derive_options, DATA / task.files[0], ["sequence", "terms"], DATA, rejected)
    terms = Counter(term for row in rows for term in row["terms"].split(";"))
    assert (len(rows), len(terms), terms.most_common(1)) == (4969, 162, [("GO:0005737", 3656)])
    assert set(terms) <= set(task.labels)
    assert not any("," in name for name in task.labels.values())


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_real_headers_give_names() -> None:
    task = read_task(TASKS / "uniprot_function.yaml")
    rejected: Counter[str] = Counter()
    rows = [row for name in task.files for row in derived_rows(task.derive, task.derive_options, DATA / name, ["sequence"], DATA, rejected)]
    assert len(rows) == 7500 and rejected["not in the sample"] == 3659 and rejected["name that says nothing"] == 1517
    assert all(row["name"] and "OS=" not in row["name"] and "~~~" not in row["name"] for row in rows)
