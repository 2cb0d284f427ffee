"""The simulator: law 15, balance, families, and answers that follow from the stated process."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_gene.errors import ConfigError
from llama_gene.runtime import file_hash
from llama_gene.sequences.alphabet import reverse_complement, translate
from llama_gene.sequences.records import read_records
from llama_gene.sequences.similarity import clusters
from llama_gene.sequences.simulate import TASKS, SimulationConfig, most_probable_structure, simulate

SMALL = SimulationConfig(
    genome_train=40_000,
    genome_valid=8_000,
    num_chromosomes=2,
    proteome_train=20_000,
    proteome_valid=2_000,
    rows_train=200,
    rows_dev=40,
    rows_test=100,
    proteins_train=60,
    proteins_dev=10,
    proteins_test=40,
)
SPLITS = ("train", "dev", "test")
MEASURED = [task for task in TASKS if task.name not in ("secondary_structure", "central_dogma")]
CLASSIFICATIONS = [task.name for task in TASKS if task.family not in ("structure", "regression")]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a small simulation and its facts."""
    folder = tmp_path_factory.mktemp("simulated")
    return folder, simulate(folder, SMALL)


def rows(folder: Path, task: str, split: str) -> list[dict[str, str]]:
    with (folder / "tasks" / task / f"{split}.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_law_15_same_seed_same_bytes(simulated: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, facts = simulated
    assert simulate(tmp_path / "again", SMALL) == facts
    assert hashes(tmp_path / "again") == hashes(folder)
    simulate(tmp_path / "other", SimulationConfig(**{**vars(SMALL), "seed": 1}))
    other = hashes(tmp_path / "other")
    same = {name for name, digest in hashes(folder).items() if other[name] == digest}
    assert same == {"english.train.jsonl", "english.valid.jsonl", *(f"tasks/{task.name}.yaml" for task in TASKS)}


def test_a_larger_train_split_leaves_the_test_split_as_it_is(simulated: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    simulate(tmp_path, SimulationConfig(**{**vars(SMALL), "rows_train": 240}))
    assert rows(tmp_path, "protein_function", "test") == rows(simulated[0], "protein_function", "test")


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_no_family_straddles_train_and_test(simulated: tuple[Path, dict[str, Any]], task: str) -> None:
    groups = {split: {row["group"] for row in rows(simulated[0], task, split)} for split in SPLITS}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))
    assert all(len(groups[split]) < len(rows(simulated[0], task, split)) for split in SPLITS)  # relatives exist


@pytest.mark.parametrize(
    ("task", "column", "kind"),
    [("promoter_detection", "sequence", "dna"), ("promoter_expression", "sequence", "dna"), ("secondary_structure", "sequence", "protein")],
)
def test_relatives_are_found_in_one_split_only(simulated: tuple[Path, dict[str, Any]], task: str, column: str, kind: str) -> None:
    found = [(row["group"], row[column]) for split in SPLITS for row in rows(simulated[0], task, split)]
    by_similarity = clusters([sequence for _, sequence in found], kind)
    assert len(set(zip(by_similarity, (group for group, _ in found), strict=True))) == len({group for group, _ in found})


@pytest.mark.parametrize("task", CLASSIFICATIONS)
@pytest.mark.parametrize("split", SPLITS)
def test_classes_are_balanced(simulated: tuple[Path, dict[str, Any]], task: str, split: str) -> None:
    table = rows(simulated[0], task, split)
    num_classes = 4 if task == "protein_function" else 2
    for column in ("label", "oracle"):
        assert list(Counter(row[column] for row in table).values()) == [len(table) // num_classes] * num_classes
    agreement = np.mean([row["label"] == row["oracle"] for row in table])
    assert agreement == 1 if task == "central_dogma" else 0.9 <= agreement <= 0.96


def test_coding_dna_translates_to_its_protein(simulated: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = simulated
    for split in SPLITS:
        for row in rows(folder, "central_dogma", split):
            assert (translate(row["dna"]) == row["protein"]) == (row["label"] == "Conform")
            assert 45 <= len(row["dna"]) == 3 * len(row["protein"]) <= 75
    strands, num_introns = set(), 0
    for split in ("train", "valid"):
        chromosomes = {record.id: record.sequence for record in read_records(folder / f"genome.{split}.fa")}
        for record in read_records(folder / f"proteome.{split}.fa", "protein"):
            where = re.search(r"coded by (\w+):([\d,-]+):([+-])$", record.description)
            if where is None:
                continue
            exons = [tuple(map(int, exon.split("-"))) for exon in where[2].split(",")]
            coding = "".join(chromosomes[where[1]][start - 1 : end] for start, end in exons)
            coding = coding if where[3] == "+" else reverse_complement(coding)
            assert translate(coding) == record.sequence + "*"
            strands.add(where[3])
            for (_, end), (start, _) in itertools.pairwise(exons):
                intron = chromosomes[where[1]][end : start - 1]
                intron = intron if where[3] == "+" else reverse_complement(intron)
                assert intron.startswith("GT") and intron.endswith("AG")
                num_introns += 1
    assert strands == {"+", "-"} and num_introns > 0


def test_structure_answers_beat_the_majority_and_have_the_length_of_the_protein(simulated: tuple[Path, dict[str, Any]]) -> None:
    table = rows(simulated[0], "secondary_structure", "test")
    assert all(len(row["sequence"]) == len(row["label"]) == len(row["oracle"]) for row in table)
    labels, oracle = ("".join(row[column] for row in table) for column in ("label", "oracle"))
    assert set(labels) == set("HEC")
    assert max(Counter(labels).values()) / len(labels) < 0.55
    assert np.mean([a == b for a, b in zip(labels, oracle, strict=True)]) > 0.75


def test_the_most_probable_structure_of_clear_segments() -> None:
    assert most_probable_structure("GPNGPEALKEAMLKGNPGVIVTVYVGPDS") == "CCCCCHHHHHHHHHCCCCEEEEEEECCCC"


def test_expression_is_the_oracle_and_noise(simulated: tuple[Path, dict[str, Any]]) -> None:
    table = rows(simulated[0], "promoter_expression", "train")
    label, oracle = (np.array([float(row[column]) for row in table]) for column in ("label", "oracle"))
    assert 0.1 < np.std(label - oracle) < 0.2
    assert np.corrcoef(label, oracle)[0, 1] > 0.95


@pytest.mark.parametrize("task", MEASURED, ids=lambda task: task.name)
def test_a_kmer_model_beats_the_majority_and_not_the_oracle(tmp_path_factory: pytest.TempPathFactory, task: Any) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.getbasetemp() / "full"
    if not folder.exists():
        simulate(folder, SimulationConfig(genome_train=1, genome_valid=1, proteome_train=1, proteome_valid=1, num_chromosomes=1))
    train, test = rows(folder, task.name, "train"), rows(folder, task.name, "test")
    answers = {split: [row["label"] for row in table] for split, table in (("train", train), ("test", test))}
    if task.family == "regression":
        median = np.median([float(label) for label in answers["train"]])
        answers = {split: [str(float(label) > median) for label in labels] for split, labels in answers.items()}
    blocks: dict[str, list[Any]] = {"train": [], "test": []}
    for column, kind in zip(task.columns, task.kinds, strict=True):
        counter = CountVectorizer(analyzer="char", ngram_range=(3, 5) if kind == "dna" else (1, 2), lowercase=False)
        blocks["train"].append(counter.fit_transform([row[column] for row in train]).toarray())
        blocks["test"].append(counter.transform([row[column] for row in test]).toarray())
    model = LogisticRegression(C=0.1, max_iter=1000).fit(np.hstack(blocks["train"]), answers["train"])
    assert 0.68 <= model.score(np.hstack(blocks["test"]), answers["test"]) < 0.9


def test_english_topics_are_split_and_sources_are_stated(simulated: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = simulated
    topics = {
        split: {json.loads(line)["id"] for line in (folder / f"english.{split}.jsonl").read_text(encoding="utf-8").splitlines()}
        for split in ("train", "valid")
    }
    assert not topics["train"] & topics["valid"]
    assert len(topics["train"]) == facts["train"]["english_documents"] > 5 * len(topics["valid"]) > 0
    readme = (folder / "README.txt").read_text()
    assert "SIMULATED" in readme and "pydoc_data.topics" in readme
    for name in ("genome.train.fa", "genome.valid.fa", "proteome.train.fa", "proteome.valid.fa"):
        assert all("SIMULATED" in line for line in (folder / name).read_text().splitlines() if line.startswith(">"))


def test_task_files_name_their_tables(simulated: tuple[Path, dict[str, Any]]) -> None:
    import yaml

    for task in TASKS:
        path = simulated[0] / "tasks" / f"{task.name}.yaml"
        spec = yaml.safe_load(path.read_text())
        assert spec["name"] == task.name and spec["simulated"] is True
        assert len(spec["kinds"]) == len(spec["columns"])
        with (path.parent / spec["test"]).open(newline="") as handle:
            header = next(csv.reader(handle))
        assert header == [*spec["columns"], spec["label_column"], spec["group_column"], spec["oracle_column"]]
        raw = {row["label"] for row in rows(simulated[0], task.name, "test")}
        assert raw == set(spec["labels"]) if "labels" in spec else raw


def test_sizes_that_cannot_balance_are_refused() -> None:
    with pytest.raises(ConfigError, match="rows_dev 30; expected a multiple of 4"):
        SimulationConfig(rows_dev=30)
