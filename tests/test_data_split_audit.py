"""What test rows share with the train rows of an instruction set."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from llama_gene.data.split_audit import train_relatives
from llama_gene.data.tasks import Task, load_task, read_task
from llama_gene.sequences.alphabet import reverse_complement

RNG = random.Random(11)


def dna(length: int) -> str:
    return "".join(RNG.choices("ACGT", k=length))


def write(path: Path, header: str, rows: list[tuple[str, ...]]) -> None:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")


def test_planted_relatives_are_counted_by_how_they_are_related(tmp_path: Path) -> None:
    genes = [dna(300) for _ in range(20)]
    write(tmp_path / "train.csv", "sequence,label", [(gene, str(number % 2)) for number, gene in enumerate(genes)])
    mutant = "".join("A" if place % 12 == 0 else letter for place, letter in enumerate(genes[5]))
    tests = [genes[0][100:170], reverse_complement(genes[1])[50:200], genes[2][200:] + dna(200), mutant, *(dna(300) for _ in range(6))]
    write(tmp_path / "test.csv", "sequence,label", [(sequence, "01"[number % 2]) for number, sequence in enumerate(tests)])
    write(tmp_path / "dev.csv", "sequence,label", [(dna(300), "0"), (dna(300), "1")])
    table = load_task(Task("t", "t", "classification", strand="sense", train=["train.csv"], dev=["dev.csv"], test=["test.csv"]), tmp_path)
    found = train_relatives(table)
    assert found is not None and found["rows"] == 10
    assert {key: found[key] for key in ("contained", "overlap")} == {"contained": 2, "overlap": 1} and found["found"] == 3
    assert found["examples"][0]["row"] == ("test.csv", 1) and found["examples"][0]["other"] == ("train.csv", 1)
    aligned = train_relatives(table, is_aligned=True)
    assert aligned is not None and aligned["similar"] == 1 and aligned["found"] == 4
    table.splits["train"] = []
    assert train_relatives(table) is None


def test_a_pair_counts_when_either_member_was_trained_on(tmp_path: Path) -> None:
    old = [dna(120) for _ in range(6)]
    write(tmp_path / "train.csv", "a,b,label", [(old[0], old[1], "1"), (old[2], old[3], "0"), (old[4], old[5], "1")])
    write(tmp_path / "dev.csv", "a,b,label", [(dna(120), dna(120), "1")])
    write(tmp_path / "test.csv", "a,b,label", [(old[0], old[3], "1"), (old[1], dna(120), "0"), (dna(120), dna(120), "0")])
    values = {"train": ["train.csv"], "dev": ["dev.csv"], "test": ["test.csv"], "kinds": ["dna", "dna"], "columns": ["a", "b"]}
    table = load_task(Task("t", "t", "pair", strand="sense", **values), tmp_path)  # type: ignore[arg-type]
    found = train_relatives(table)
    assert found is not None and (found["copy"], found["all_members"], found["same_pair"]) == (2, 1, 0)
    assert [row["subsets"] for row in table.splits["test"]] == [["C1"], ["C2"], ["C3"]]


@pytest.mark.real_data
@pytest.mark.skipif("LLAMA_GENE_DATA" not in os.environ, reason="LLAMA_GENE_DATA names no data folder")
def test_nearly_every_yeast_test_pair_has_proteins_that_were_trained_on() -> None:
    task = read_task(Path(__file__).parents[1] / "launch/configs/tasks/ppi_yeast.yaml")
    task.max_train = task.max_test = None
    table = load_task(task, Path(os.environ["LLAMA_GENE_DATA"]))
    names = [row["subsets"][0] for row in table.splits["test"]]
    assert len(names) == 782 and names.count("C1") / 782 > 0.9 and names.count("C3") < 10
