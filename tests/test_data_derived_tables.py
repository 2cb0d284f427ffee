"""A task that derives its rows is a task as any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gene.data.derived.tables import DERIVATIONS, derived_rows
from llama_gene.data.splits import read_task_splits
from llama_gene.data.tasks import Task, load_task, read_task
from llama_gene.errors import ConfigError, MissingFileError

ROOT = Path(__file__).parent.parent
CODONS = {"GCT": "A", "TGT": "C", "GAT": "D", "GAA": "E", "TTT": "F", "GGT": "G", "CAT": "H", "ATT": "I"}
GENES = "locus_tag,cds,protein\n" + "".join(f"b{n},ATG{codon * 20}TAA,M{CODONS[codon] * 20}\n" for n, codon in enumerate(CODONS))


def write_task(folder: Path, extra: str = "derive_options: {residues: 10}\n") -> Path:
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_text(GENES if split == "train" else GENES.replace("GCT", "GTT").replace("A" * 20, "V" * 20))
    (folder / "task.yaml").write_text(
        "name: code\ntitle: protein translation\nfamily: function\nstrand: sense\ncolumns: dna\nlabel_column: protein\n"
        "oracle_column: oracle\n"
        f"group_column: gene\nderive: cds_translation\ntrain: train.csv\ntest: test.csv\n{extra}"
    )
    return folder / "task.yaml"


def test_a_derived_task_is_loaded_split_and_counted_as_any_other(tmp_path: Path) -> None:
    with (write_task(tmp_path).parent / "train.csv").open("w") as handle:
        handle.write(GENES.replace("b2,ATG", "b2,ATA") + "b9,ATGAAATAA,MW\nb10,ATGCCCGGGTAA,MPG\n")
    table = load_task(read_task(tmp_path / "task.yaml"), tmp_path)
    assert table.rejected == {"the genetic code does not make the protein": 1}
    assert table.duplicates_removed == {"train row repeats test": 6, "train row shares a group with test": 2}
    assert {row["oracle"] == row["label"] for row in table.splits["test"]} == {True}
    assert table.splits["test"][0]["sequences"] == ["ATG" + "GTT" * 9]


def test_an_audit_reads_derived_rows(tmp_path: Path) -> None:
    splits = read_task_splits(read_task(write_task(tmp_path)), tmp_path)
    assert [(rows.split, len(rows.rows)) for rows in splits] == [("train", 8), ("test", 8)]


def test_the_files_of_the_options_are_inputs_of_the_task() -> None:
    task = read_task(ROOT / "launch/configs/tasks/yeast_go_slim.yaml")
    assert task.table_names() == ["proteins/uniprot_yeast.fasta.xz", "proteins/yeast_sgd_go_slim_2018.tsv.gz"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("derive_options: {residue: 10}\n", "task.yaml: task 'code', derive 'cds_translation': option 'residue' is not known.*'residues'"),
        ("derive_options: {residues: ten}\n", "option 'residues': 'ten'; expected int"),
    ],
)
def test_a_wrong_option_is_refused_when_the_yaml_is_read(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_task(write_task(tmp_path, extra))


def test_an_unknown_derivation_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="derive 'conforms'.*Did you mean 'conform'"):
        Task(name="t", title="t", family="classification", test=["t.csv"], derive="conforms")
    with pytest.raises(ConfigError, match="derive_options without derive"):
        Task(name="t", title="t", family="classification", test=["t.csv"], derive_options={"seed": "1"})


def test_a_column_that_a_derivation_does_not_make_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "genes.csv").write_text(GENES)
    with pytest.raises(ConfigError, match="makes no column 'sequence'; expected one of gene, dna, protein"):
        derived_rows("cds_translation", {}, tmp_path / "genes.csv", ["sequence"], tmp_path)
    with pytest.raises(MissingFileError, match="nowhere.csv"):
        derived_rows("cds_translation", {}, tmp_path / "nowhere.csv", ["dna"], tmp_path)


def test_there_is_a_task_for_each_derivation() -> None:
    tasks = [read_task(path) for path in sorted((ROOT / "launch/configs/tasks").glob("*.yaml"))]
    assert {task.derive for task in tasks} >= set(DERIVATIONS)
