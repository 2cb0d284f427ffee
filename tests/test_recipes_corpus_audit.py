"""corpus audit: the report of leaks between splits and tasks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from llama_gene.errors import ConfigError
from llama_gene.recipes.corpus_audit import Config, audit, read_splits, run
from llama_gene.runtime import read_manifest
from llama_gene.sequences.alphabet import reverse_complement
from tests.fixtures.tiny_vocabularies import DATA, needs_data

REAL_TASKS = Path(__file__).resolve().parents[1] / "launch" / "configs" / "tasks"


def random_dna(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length))


def write_table(path: Path, rows: list[str]) -> Path:
    path.write_text("sequence,label\n" + "".join(f"{row},0\n" for row in rows))
    return path


def planted(folder: Path) -> Config:
    """Write a task of 300 bp and one of 70 bp that is cut out of it, and return a config that audits both."""
    long = {split: [random_dna(300, 1000 * number + row) for row in range(20)] for number, split in enumerate(("train", "dev", "test"))}
    core = {split: [random_dna(70, 9000 + 1000 * number + row) for row in range(10)] for number, split in enumerate(long)}
    core["dev"] += [text[216:286] for text in long["train"][:6]]
    core["test"] += [text[216:286] for text in long["test"][:4]]
    core["test"].append(reverse_complement(core["train"][0]))
    for name, rows in (("long", long), ("core", core)):
        for split in rows:
            write_table(folder / f"{name}_{split}.csv", rows[split])
        files = "".join(f"{split}: {name}_{split}.csv\n" for split in rows)
        (folder / f"{name}.yaml").write_text(f"name: {name}\ntitle: promoter detection\nfamily: classification\nstrand: sense\n{files}")
    return Config(tasks=[folder / "long.yaml", folder / "core.yaml"], out=folder / "audit")


def test_leaks_within_and_between_tasks_are_reported(tmp_path: Path) -> None:
    report = json.loads((run(planted(tmp_path)) / "audit.json").read_text())
    leaks = {
        (item["task"], item["split"], item["other_task"], item["other_split"]): item for item in report["comparisons"] if item["found"]
    }
    assert set(leaks) == {
        ("long", "train", "core", "dev"),
        ("core", "dev", "long", "train"),
        ("long", "test", "core", "test"),
        ("core", "test", "long", "test"),
        ("core", "train", "core", "test"),
        ("core", "test", "core", "train"),
    }
    assert leaks["long", "train", "core", "dev"]["offsets"] == [{"strand": 1, "offset": 216, "rows": 6}]
    assert leaks["core", "dev", "long", "train"]["contained"] == 6
    assert leaks["core", "train", "core", "test"]["reverse_complement"] == 1
    assert leaks["core", "test", "core", "train"]["share"] == round(1 / 15, 6)


def test_the_report_is_json_markdown_and_a_manifest_with_the_hash_of_every_file(tmp_path: Path) -> None:
    folder = run(planted(tmp_path))
    text = (folder / "audit.md").read_text()
    assert "| long train | core dev | 20 | 6 | 30.0% |" in text and "6 rows at 216 (+)" in text
    assert "10 of 12 comparisons found nothing" in text
    assert len(read_manifest(folder, "corpus audit")["files"]) == 8


def test_train_of_one_task_is_not_compared_with_train_of_another(tmp_path: Path) -> None:
    config = planted(tmp_path)
    pairs = {(item.split.name, item.other.name) for item in audit(read_splits(config), config)}
    assert ("long train", "core train") not in pairs and len(pairs) == 6 + 6 + 2 * 8


def test_files_without_a_task_are_one_task(tmp_path: Path) -> None:
    text = random_dna(100, 1)
    train = write_table(tmp_path / "a.csv", [text, random_dna(100, 2)])
    fasta = tmp_path / "b.fa"
    fasta.write_text(f">one\n{text}\n")
    report = json.loads((run(Config(train=[train], test=[fasta], similar="none", out=tmp_path / "out")) / "audit.json").read_text())
    assert [(item["split"], item["rows"], item.get("copy", 0)) for item in report["comparisons"]] == [("test", 1, 1), ("train", 2, 1)]


def test_mutants_are_similar_and_skipped_where_similar_is_none(tmp_path: Path) -> None:
    rng = random.Random(0)
    text = random_dna(300, 1)
    mutant = "".join(rng.choice("ACGT".replace(letter, "")) if rng.random() < 0.15 else letter for letter in text)
    train = write_table(tmp_path / "a.csv", [text, *(random_dna(300, seed) for seed in range(10, 30))])
    test = write_table(tmp_path / "b.csv", [mutant, *(random_dna(300, seed) for seed in range(30, 50))])
    for similar, expected in (("task", 1), ("none", 0)):
        config = Config(train=[train], test=[test], similar=similar, out=tmp_path / similar)  # type: ignore[arg-type]
        report = json.loads((run(config) / "audit.json").read_text())
        assert [item.get("similar", 0) for item in report["comparisons"]] == [expected, expected]


def test_one_split_alone_is_refused(tmp_path: Path) -> None:
    train = write_table(tmp_path / "a.csv", [random_dna(100, 1)])
    with pytest.raises(ConfigError, match="nothing to compare: train"):
        run(Config(train=[train], out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_out_and_inputs_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Set --out"):
        run(Config())
    with pytest.raises(ConfigError, match="Set --train and --test, or --tasks"):
        run(Config(out=tmp_path / "out"))


@needs_data
def test_the_core_promoter_leaks_are_those_that_are_known(tmp_path: Path) -> None:
    tasks = [REAL_TASKS / "gue_prom_300_all.yaml", REAL_TASKS / "gue_prom_core_all.yaml"]
    config = Config(tasks=tasks, data_dir=Path(str(DATA)), similar="none")
    rows = {}
    for item in audit(read_splits(config), config):
        if (item.split.task, item.other.task) == ("gue_prom_300_all", "gue_prom_core_all"):
            at_216 = [offset["rows"] for offset in item.leak.offsets if (offset["strand"], offset["offset"]) == (1, 216)]
            rows[item.split.split, item.other.split] = sum(at_216)
    assert rows == {
        ("train", "dev"): 1310,
        ("train", "test"): 0,
        ("dev", "train"): 1166,
        ("dev", "dev"): 152,
        ("dev", "test"): 0,
        ("test", "train"): 0,
        ("test", "dev"): 0,
        ("test", "test"): 408,
    }
