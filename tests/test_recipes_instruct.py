"""The stage `instruct`: tables in, three JSON Lines files and a manifest out."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from llama_gene.data.instructions import read_examples
from llama_gene.errors import ConfigError, LlamaGeneError, MissingFileError
from llama_gene.recipes.instruct import Config, input_files, run
from llama_gene.runtime import read_manifest
from tests.fixtures.tiny_tokenizers import tiktoken_like

REAL_TASKS = Path(__file__).parent.parent / "launch" / "configs" / "tasks"


def dna(rng: random.Random) -> str:
    return "".join(rng.choices("ACGT", k=60))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with one classification, one regression and one structure task."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = random.Random(0)
    for split, num in (("train", 100), ("test", 24)):
        rows = [f"{dna(rng)},{number % 2},{1 if number % 4 else 0}" for number in range(num)]
        (folder / f"core_{split}.csv").write_text("sequence,label,truth\n" + "\n".join(rows) + "\n,1,1\n")
        rows = [f"{dna(rng)},{rng.random()}" for _ in range(num)]
        (folder / f"level_{split}.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
        proteins = ["".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=50)) for _ in range(num)]
        rows = [f"{protein},{''.join(rng.choices('HEC', k=50))}" for protein in proteins]
        (folder / f"fold_{split}.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
    for name, extra in {
        "core": "title: core promoter detection\nfamily: classification\nstrand: sense\n"
        "labels: {0: Non-promoter, 1: promoter}\noracle_column: truth\npublished: accuracy 0.9 (from memory)\n",
        "level": "title: gene expression level prediction\nfamily: regression\nbins: 2\nstrand: sense\n",
        "fold": "title: secondary structure prediction\nfamily: structure\nform: token\nkinds: [protein]\nper_protein: 2\n",
    }.items():
        (folder / f"{name}.yaml").write_text(f"name: {name}\ntrain: {name}_train.csv\ntest: {name}_test.csv\n{extra}")
    return folder


def config(data: Path, **changes: Any) -> Config:
    values: dict[str, Any] = {"tasks": [data / "core.yaml", data / "level.yaml"], "output_dir": data.parent / "out"}
    return Config(**{**values, **changes})


def test_three_files_and_a_manifest_that_counts_everything(data: Path) -> None:
    folder = run(config(data))
    assert sorted(path.name for path in folder.iterdir()) == ["dev.jsonl", "manifest.json", "test.jsonl", "train.jsonl"]
    manifest = read_manifest(folder, "instruct")
    entry = manifest["tasks"]["core"]
    assert entry["family"] == "classification" and entry["labels"] == ["Non-promoter", "promoter"]
    assert entry["num_rows"] == {"train": 90, "dev": 10, "test": 24}
    assert entry["majority"] == 0.5 and entry["ceiling"] == 0.75
    assert entry["rejected"] == {"empty sequence": 2} and entry["published"] == "accuracy 0.9 (from memory)"
    assert manifest["tasks"]["level"]["bins"]["names"] == ["low", "high"]
    tests = read_examples(folder / "test.jsonl")
    assert [example["task"] for example in tests] == ["core"] * 24 + ["level"] * 24
    assert all(example["output"] in example["labels"] for example in tests)


@pytest.mark.parametrize("changes", [{"max_train": 50}, {"shots": 2, "max_train": 30}, {"template": "dnahlm"}])
def test_law_15_the_same_seed_writes_the_same_bytes(data: Path, changes: dict[str, Any]) -> None:
    folders = [run(config(data, output_dir=data.parent / name, **changes)) for name in ("one", "two")]
    for name in ("train.jsonl", "dev.jsonl", "test.jsonl"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_structure_task_is_asked_with_a_tokenizer_and_refused_without(data: Path) -> None:
    with pytest.raises(ConfigError, match="Set --tokenizer"):
        run(config(data, tasks=[data]))
    assert not (data.parent / "out").exists()
    tiktoken_like().save_pretrained(data.parent / "tokenizer")
    folder = run(config(data, tasks=[data], tokenizer=data.parent / "tokenizer"))
    assert read_manifest(folder)["tasks"]["fold"]["num_rows"]["test"] == 48


def test_caps_on_the_command_line_override_the_yaml(data: Path) -> None:
    folder = run(config(data, max_train=20, max_dev=4, max_test=10))
    assert read_manifest(folder)["num_rows"] == {"train": 40, "dev": 8, "test": 20}


def test_paths_are_relative_to_the_data_folder_if_one_is_given(data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "yaml"
    elsewhere.mkdir()
    (data / "core.yaml").rename(elsewhere / "core.yaml")
    with pytest.raises(MissingFileError, match=r"core_train.csv"):
        run(config(data, tasks=[elsewhere]))
    assert run(config(data, tasks=[elsewhere], data_dir=data)).is_dir()


def test_english_is_mixed_into_train_up_to_its_cap(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{"instruction": f"Say {number}.", "input": "", "output": str(number)} for number in range(30)]))
    folder = run(config(data, english_inputs=[path], max_english=12))
    assert read_manifest(folder)["num_english"] == 12
    families = [example["family"] for example in read_examples(folder / "train.jsonl")]
    assert families.count("english") == 12
    assert "english" not in (folder / "test.jsonl").read_text()


def test_sequences_that_another_task_tests_are_counted(data: Path) -> None:
    shared = (data / "core_test.csv").read_text().splitlines()[1].split(",")[0]
    with (data / "level_train.csv").open("a") as handle:
        handle.write(f"{shared},0.5\n")
    tasks = read_manifest(run(config(data, seed=1)))["tasks"]
    assert (tasks["level"]["train_sequences_in_other_tests"], tasks["core"]["train_sequences_in_other_tests"]) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": []}, "Set --tasks"),
        ({"output_dir": None}, "Set --output_dir"),
        ({"tasks": [Path("nowhere.yaml")]}, "nowhere.yaml"),
        ({"english_inputs": [Path("nowhere.json")]}, "nowhere.json"),
        ({"template": "papers"}, "template 'papers'.*Did you mean 'paper'"),
        ({"held_out_paraphrases": True}, "no held-out paraphrases in core, level"),
        ({"held_out_paraphrases": True, "template": "paper"}, "held_out_paraphrases with template paper"),
        ({"shots": -1}, "shots -1"),
        ({"max_train": -1}, "max_train -1; expected 0 or more rows"),
        ({"max_test": 0}, "max_test 0; expected 1 or more rows"),
        ({"max_english": -1}, "max_english -1; expected 0 or more"),
        ({"shots_max_tokens": 100}, "shots_max_tokens without shots or without a tokenizer"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LlamaGeneError, match=message) as caught:
        run(config(data, **changes))
    assert "\n" not in str(caught.value)
    assert not (data.parent / "out").exists()
    assert [path.name for path in data.parent.iterdir() if path.name.startswith(".")] == []


def test_input_files_are_all_that_a_run_reads(data: Path) -> None:
    names = ["core.yaml", "core_test.csv", "core_train.csv", "level.yaml", "level_test.csv", "level_train.csv"]
    assert sorted(path.name for path in input_files(config(data))) == names


def test_a_manifest_says_strand_template_words_tokens_and_relatives(data: Path) -> None:
    yaml = (data / "core.yaml").read_text()
    (data / "core.yaml").write_text(
        f"{yaml}paraphrases: ['Is it {{labels}}?']\nheld_out_paraphrases: ['Say: {{labels}}.']\npositive: promoter\n"
    )
    tiktoken_like().save_pretrained(data.parent / "tokenizer")
    folder = run(config(data, tokenizer=data.parent / "tokenizer", held_out_paraphrases=True))
    manifest = read_manifest(folder)
    entry = manifest["tasks"]["core"]
    assert (manifest["template"], manifest["vocabulary"]) == ("default", None)  # no question is about tokens
    assert (entry["strand"], entry["positive"], entry["prior"], entry["multi_label"]) == ("sense", "promoter", None, False)
    assert entry["paraphrases"] == {"train": 1, "held_out": True}
    assert manifest["tasks"]["level"]["paraphrases"] == {"train": 0, "held_out": False}
    assert entry["test_rows_with_train_relatives"]["found"] == 0 and entry["test_rows_with_train_relatives"]["rows"] == 24
    tokens = entry["tokens"]["test"]
    assert 40 < tokens["min"] <= tokens["median"] <= tokens["p95"] <= tokens["max"] < 200
    asked = {example["instruction"] for example in read_examples(folder / "test.jsonl") if example["task"] == "core"}
    assert asked == {"Say: Non-promoter, promoter."}
    assert {example["source"].split(":")[0] for example in read_examples(folder / "test.jsonl")} == {"core_test.csv", "level_test.csv"}


def test_shots_stand_in_dev_and_test_and_are_counted(data: Path) -> None:
    folder = run(config(data, shots=2, audit="none"))
    entry = read_manifest(folder)["tasks"]["core"]
    assert entry["shots"] == {"dev": {"2": 10}, "test": {"2": 24}} and "test_rows_with_train_relatives" not in entry
    trained = {example["input"] for example in read_examples(folder / "train.jsonl")}
    for example in read_examples(folder / "test.jsonl"):
        shown = [part.split("\n\n### Response:")[0] for part in example["instruction"].split("### Input:\n")[1:]]
        assert len(shown) == 2 and set(shown) <= trained
    assert not any("### Input" in example["instruction"] for example in read_examples(folder / "train.jsonl"))


def test_questions_by_residue_need_no_tokenizer_and_by_token_the_ceiling_of_the_vote_is_given(data: Path) -> None:
    (data / "residue.yaml").write_text((data / "fold.yaml").read_text().replace("name: fold", "name: residue").replace("form: token\n", ""))
    entry = read_manifest(run(config(data, tasks=[data / "residue.yaml"])))["tasks"]["residue"]
    assert (entry["unit"], entry["vote_ceiling"]) == ("residue", None) and entry["num_rows"]["test"] == 48
    tiktoken_like().save_pretrained(data.parent / "tokenizer")
    entry = read_manifest(run(config(data, tasks=[data / "fold.yaml"], tokenizer=data.parent / "tokenizer")))["tasks"]["fold"]
    assert entry["unit"] == "token" and 0.5 < entry["vote_ceiling"]["test"] < 1.0


def test_a_choice_of_two_is_asked_with_an_empty_input(data: Path) -> None:
    folder = run(config(data, tasks=[data / "core.yaml"], template="dnahlm"))
    (first, *_) = read_examples(folder / "test.jsonl")
    assert first["input"] == "" and first["instruction"].endswith(f"sequence {first['sequences'][0]} answer with Non-promoter or promoter")
    assert read_manifest(folder)["template"] == "dnahlm"


def test_a_folder_of_datasets_is_a_table(data: Path) -> None:
    from datasets import Dataset

    Dataset.from_csv(str(data / "core_train.csv")).save_to_disk(str(data / "core_folder"))
    (data / "core.yaml").write_text((data / "core.yaml").read_text().replace("core_train.csv", "core_folder"))
    folder = run(config(data, tasks=[data / "core.yaml"]))
    entry = read_manifest(folder)["tasks"]["core"]
    assert entry["num_rows"]["train"] == 90 and set(entry["files"]) == {"core_folder", "core_test.csv"}
    assert {"dataset_info.json", "core_test.csv"} <= {path.name for path in input_files(config(data, tasks=[data / "core.yaml"]))}


def test_two_tasks_of_one_name_are_refused(data: Path) -> None:
    (data / "again.yaml").write_text((data / "core.yaml").read_text())
    with pytest.raises(ConfigError, match="a second task is called 'core'"):
        run(config(data, tasks=[data / "again.yaml", data / "core.yaml"]))


def test_every_yaml_of_the_real_tasks_is_a_task_with_caps() -> None:
    from llama_gene.data.tasks import FAMILIES, read_task

    tasks = [read_task(path) for path in sorted(REAL_TASKS.glob("*.yaml"))]
    assert {task.family for task in tasks} == set(FAMILIES)
    for task in tasks:
        assert task.files or not task.train or (task.max_train is not None and task.max_train <= 4000)
        assert task.files or (task.max_test is not None and task.max_test <= 800)


@pytest.mark.real_data
@pytest.mark.skipif("LLAMA_GENE_DATA" not in os.environ, reason="LLAMA_GENE_DATA names no data folder")
def test_a_real_task_loads_within_its_caps(tmp_path: Path) -> None:
    folder = run(Config(tasks=[REAL_TASKS / "gue_splice.yaml"], data_dir=Path(os.environ["LLAMA_GENE_DATA"]), output_dir=tmp_path / "out"))
    entry = read_manifest(folder)["tasks"]["gue_splice"]
    assert entry["num_rows"]["test"] == 500 and entry["labels"] == ["Acceptor Sites", "Donor Sites", "Non-Splice Sites"]
