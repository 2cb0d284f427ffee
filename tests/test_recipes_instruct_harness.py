"""instruct harness: which tasks are exported, what is counted, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llama_gene import runtime
from llama_gene.data.harness_tasks import harness_task
from llama_gene.data.instructions import Example, write_examples
from llama_gene.data.prompts import ALPACA, encode_prompt, prompt_fingerprint, render_prompt, render_user
from llama_gene.errors import ConfigError, InputError
from llama_gene.recipes.instruct_harness import Config, run
from tests.tiny_models import save_model, tiny_llama, tiny_tokenizer

LABELS = ["Not Conform", "Conform"]


def example(task: str, labels: list[str], output: str, sequence: str = "ACGT") -> Example:
    return Example(
        task=task, family="classification", split="test", instruction="Determine it.", input=sequence, output=output, labels=labels,
        sequences=[sequence], kinds=["dna"], group="gene 1", oracle=None, value=None,
    )  # fmt: skip


@pytest.fixture
def instructions(tmp_path: Path) -> Path:
    folder = tmp_path / "instructions"
    folder.mkdir()
    rows = [example("match", LABELS, LABELS[i % 2], "ACGT" * (1 + 20 * (i == 2))) for i in range(4)]
    write_examples(folder / "test.jsonl", [*rows, example("function", [], "binds zinc")])
    write_examples(folder / "dev.jsonl", rows[:1])
    runtime.write_manifest(folder, "instruct", {}, tasks={"match": {}, "function": {}})
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return str(save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "model"))


def config(instructions: Path, **changes: Any) -> Config:
    return Config(**{"instructions": instructions, "output_dir": instructions.parent / "harness", **changes})


def test_closed_tasks_become_yaml_and_jsonl_and_free_text_is_left_out_by_name(instructions: Path) -> None:
    folder = run(config(instructions))
    assert {path.name for path in folder.iterdir()} == {"match.yaml", "match.jsonl", "manifest.json"}
    task = yaml.safe_load((folder / "match.yaml").read_text())
    assert (task["task"], task["tag"], task["output_type"], task["num_fewshot"]) == ("llama_gene_match", "llama_gene", "multiple_choice", 0)
    assert Path(task["dataset_kwargs"]["data_files"]["test"]) == folder.resolve() / "match.jsonl"
    assert task["metadata"]["prompt"] == prompt_fingerprint()
    rows = [json.loads(line) for line in (folder / "match.jsonl").read_text().splitlines()]
    assert [row["gold"] for row in rows] == [0, 1, 0, 1] and rows[0]["group"] == "gene 1"
    assert rows[0]["prompt"] + rows[0]["choices"][1] == render_prompt(render_user("Determine it.", "ACGT")) + "Conform"
    manifest = runtime.read_manifest(folder, "instruct harness")
    assert manifest["left_out"] == {"function": "free text"}
    assert manifest["tasks"] == {"match": {"rows": 4, "too_long": 0, "other_ids": 0}}


def test_with_a_tokenizer_bos_and_eos_are_written_and_long_rows_counted(instructions: Path, tokenizer: str) -> None:
    length = len(encode_prompt(tiny_tokenizer(), render_user("Determine it.", "ACGT"))) + len("Not Conform") + 1
    folder = run(config(instructions, tokenizer=tokenizer, max_length=length))
    rows = [json.loads(line) for line in (folder / "match.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 3]
    assert rows[0]["prompt"].startswith("<s>Below is") and rows[0]["choices"][0].endswith("### Response:\nNot Conform</s>")
    assert runtime.read_manifest(folder)["tasks"]["match"] == {"rows": 3, "too_long": 1, "other_ids": 0}
    with pytest.raises(InputError, match="no row of task 'match' fits 40 tokens"):
        run(config(instructions, tokenizer=tokenizer, max_length=40))


def test_two_exports_give_the_same_bytes(instructions: Path) -> None:
    first = {path.name: path.read_bytes() for path in run(config(instructions)).iterdir()}
    assert first == {path.name: path.read_bytes() for path in run(config(instructions)).iterdir()}


def test_a_label_that_begins_another_needs_the_end_of_sequence() -> None:
    rows = [example("ec", ["1.1", "1.1.2"], "1.1")]
    with pytest.raises(InputError, match=r"label '1.1' of task 'ec' begins '1.1.2'.*Give --tokenizer"):
        harness_task("ec", rows)
    assert harness_task("ec", rows, tokenizer=tiny_tokenizer()).rows[0]["choices"] == [ALPACA.after + x + "</s>" for x in ("1.1", "1.1.2")]


def test_what_cannot_be_exported_is_one_line(instructions: Path) -> None:
    with pytest.raises(InputError, match="task 'function' has no closed list of single answers"):
        run(config(instructions, tasks=["function"]))
    with pytest.raises(ConfigError, match="there is no task 'macth'"):
        run(config(instructions, tasks=["macth"]))
    with pytest.raises(ConfigError, match="max_length is given without a tokenizer"):
        run(config(instructions, max_length=9))
    with pytest.raises(ConfigError, match="instructions or output_dir is not given"):
        run(Config())
    several: Any = {**example("many", LABELS, "Conform"), "answers": ["Conform", "Not Conform"]}
    with pytest.raises(InputError, match="no closed list of single answers"):
        harness_task("many", [several])
    with pytest.raises(InputError, match="different lists of labels"):
        harness_task("mixed", [example("mixed", LABELS, "Conform"), example("mixed", LABELS[::-1], "Conform")])
    with pytest.raises(InputError, match="has the answer 'conform'"):
        harness_task("typo", [example("typo", LABELS, "conform")])
