"""Pairs of genes: of one family, or of two."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from llama_gene.data.derived.pairs import FamilyPairOptions, family_pair_rows
from llama_gene.data.tasks import load_task, read_task, sequence_key
from llama_gene.errors import ConfigError, InputError
from tests.test_data_tasks import dna

DATA = Path(os.environ.get("LLAMA_GENE_DATA", "nowhere"))
TASKS = Path(__file__).parent.parent / "launch" / "configs" / "tasks"


def write_families(path: Path, sizes: tuple[int, ...] = (6, 5, 4)) -> Path:
    lines = ["sequence,label", *(f"{dna()},{family}" for family, size in enumerate(sizes) for _ in range(size))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_as_many_pairs_of_one_family_as_of_two_and_each_pair_once(tmp_path: Path) -> None:
    path = write_families(tmp_path / "genes.csv")
    family = dict(line.split(",") for line in path.read_text().split()[1:])
    rows = family_pair_rows(path, FamilyPairOptions(), Counter())
    assert Counter(row["label"] for row in rows) == {"1": 15, "0": 15}
    assert all((family[row["first"]] == family[row["second"]]) == (row["label"] == "1") for row in rows)
    assert len({frozenset((row["first"], row["second"])) for row in rows}) == 30
    assert all(row["first"] != row["second"] for row in rows)
    assert Counter(Counter((row["first"], row["label"]) for row in rows).values()) == {1: 30}  # each gene first, once of each sort


def test_repeated_other_strand_long_and_faulty_sequences_are_counted(tmp_path: Path) -> None:
    path = write_families(tmp_path / "genes.csv", (3, 3))
    with path.open("a") as handle:
        handle.write("AACC,0\nGGTT,1\n,1\nAAZZ,1\n" + "A" * 50 + ",0\n")
    rejected: Counter[str] = Counter()
    family_pair_rows(path, FamilyPairOptions(max_letters=45), rejected)
    assert rejected.pop("gene without a partner left in its family", 0) <= 7
    assert rejected == {
        "sequence seen before in its file": 1,
        "empty sequence or family": 1,
        "letters outside the dna alphabet": 1,
        "longer than max_letters": 1,
    }


def test_a_family_of_one_makes_no_pair_and_is_counted(tmp_path: Path) -> None:
    rejected: Counter[str] = Counter()
    rows = family_pair_rows(write_families(tmp_path / "genes.csv", (6, 1)), FamilyPairOptions(), rejected)
    assert len(rows) == 2 * (7 - rejected["gene without a partner left in its family"])
    assert rejected["gene without a partner left in its family"] >= 1


def test_the_seed_decides(tmp_path: Path) -> None:
    path = write_families(tmp_path / "genes.csv")
    first, again, other = (family_pair_rows(path, FamilyPairOptions(seed=seed), Counter()) for seed in (0, 0, 1))
    assert first == again != other


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds 1 family"):
        family_pair_rows(write_families(tmp_path / "genes.csv", (5,)), FamilyPairOptions(), Counter())
    with pytest.raises(InputError, match="no column 'family'"):
        family_pair_rows(tmp_path / "genes.csv", FamilyPairOptions(family_column="family"), Counter())
    with pytest.raises(ConfigError, match="per_gene"):
        family_pair_rows(tmp_path / "genes.csv", FamilyPairOptions(per_gene=0), Counter())


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_no_real_test_gene_is_in_train_and_the_labels_are_even() -> None:
    table = load_task(read_task(TASKS / "gene_family_pairs.yaml"), DATA)
    genes = {split: {sequence_key("dna", text) for row in rows for text in row["sequences"]} for split, rows in table.splits.items()}
    assert not genes["test"] & (genes["train"] | genes["dev"])
    assert {split: Counter(row["label"] for row in rows) for split, rows in table.splits.items()} == {
        "train": {"Same family": 1970, "Different family": 1970},
        "dev": {"Same family": 150, "Different family": 150},
        "test": {"Same family": 250, "Different family": 250},
    }
