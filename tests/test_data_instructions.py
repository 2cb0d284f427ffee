"""Instructions: the papers' words for the five families, and labels that stay themselves."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llama_gene.data.instructions import build_examples, read_examples, render_input, render_instruction, write_examples
from llama_gene.data.prompts import encode_answer
from llama_gene.data.structure import token_lengths, vote
from llama_gene.data.tasks import Task, TaskRow, TaskTable
from llama_gene.errors import ConfigError, InputError
from llama_gene.tokenization.tokenizer import decode
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like


def make(**changes: Any) -> Task:
    values: dict[str, Any] = {"name": "t", "title": "core promoter detection", "family": "classification", "test": ["t.csv"]}
    if set(changes.get("kinds", ["dna"])) == {"dna"}:
        values["strand"] = "sense"
    return Task(**{**values, **changes})


def row(*sequences: str, label: str, **changes: Any) -> TaskRow:
    values: dict[str, Any] = {"sequences": list(sequences), "label": label, "group": "", "oracle": None, "value": None}
    return TaskRow(**{**values, **changes})  # type: ignore[typeddict-item]


def table(task: Task, labels: list[str], **splits: list[TaskRow]) -> TaskTable:
    return TaskTable(task, {"train": [], "dev": [], "test": [], **splits}, labels, {}, {}, {}, {})


FAMILIES = [
    (
        make(),
        ["Non-promoter", "promoter"],
        "Determine the core promoter detection of following dna sequence, The result will be one of the following: Non-promoter, promoter.",
    ),
    (
        make(family="structure", kinds=["protein"], title="secondary structure prediction"),
        ["alpha helix", "beta sheet", "random coil"],
        "Determine the secondary structure prediction of following protein sequence, "
        "The result will be one of the following: alpha helix, beta sheet, random coil",
    ),
    (
        make(family="pair", kinds=["dna", "protein"], columns=["dna", "protein"], title="Conform to the Central Dogma prediction"),
        ["Conform", "Not Conform"],
        "Determine the Conform to the Central Dogma prediction of following DNA sequence and protein sequence , "
        "The result will be one of the following: Conform, Not Conform",
    ),
    (make(family="function", title="gene function prediction"), [], "Determine gene function prediction of following dna sequence."),
    (
        make(family="regression", title="gene expression level prediction", train=["a.csv"]),
        ["low", "high"],
        "Determine the gene expression level prediction of following DNA sequence, The result will be one of the following: low, high",
    ),
]


@pytest.mark.parametrize(("task", "labels", "text"), FAMILIES, ids=[task.family for task, _, _ in FAMILIES])
def test_each_family_is_asked_in_the_words_of_the_paper(task: Task, labels: list[str], text: str) -> None:
    assert render_instruction(task, labels) == text


def test_a_pair_stands_under_its_kinds() -> None:
    task = make(family="pair", kinds=["dna", "protein"], columns=["a", "b"])
    assert render_input(task, ["ACCAGT", "MASGRL"]) == "DNA sequence: ACCAGT\n####\nprotein sequence: MASGRL"


def test_an_example_carries_what_training_scoring_and_tables_need() -> None:
    examples = build_examples(table(make(), ["Non-promoter", "promoter"], train=[row("ACGT", label="promoter", oracle="promoter")]))
    assert examples["train"] == [
        {
            "task": "t",
            "family": "classification",
            "split": "train",
            "instruction": FAMILIES[0][2],
            "input": "ACGT",
            "output": "promoter",
            "labels": ["Non-promoter", "promoter"],
            "sequences": ["ACGT"],
            "kinds": ["dna"],
            "group": "",
            "oracle": "promoter",
            "value": None,
            "answers": [],
            "strand": "sense",
            "subsets": [],
            "source": "",
        }
    ]


@pytest.mark.parametrize("tokenizer", [sentencepiece_like(), tiktoken_like()], ids=["sentencepiece", "tiktoken"])
@pytest.mark.parametrize(
    "labels", [["Conform", "Not Conform"], ["promoter", "Non-promoter"], ["high", "high expression"], ["A", "AB", "ABC"]]
)
def test_labels_survive_the_way_to_tokens_and_back_also_where_one_begins_another(tokenizer: Any, labels: list[str]) -> None:
    texts = [decode(tokenizer, encode_answer(tokenizer, label)) for label in labels]
    assert [labels.index(text) for text in texts] == list(range(len(labels)))
    ids = [tuple(encode_answer(tokenizer, label)) for label in labels]
    assert not any(one != other and one == other[: len(one)] for one in ids for other in ids)  # EOS tells a prefix from the longer label


# --- structure ---


def proteins(num: int, seed: int = 0) -> list[TaskRow]:
    rng = random.Random(seed)
    sequences = ["".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=80)) for _ in range(num)]
    return [row(sequence, label="".join(rng.choices("HEC", weights=[6, 2, 4], k=80))) for sequence in sequences]


def structure_task(**changes: Any) -> Task:
    return make(**{"family": "structure", "kinds": ["protein"], "title": "secondary structure prediction", "form": "token", **changes})


def structure_table(task: Task) -> TaskTable:
    return table(task, ["alpha helix", "beta sheet", "random coil"], train=proteins(40), test=proteins(40, seed=1))


def test_a_structure_task_needs_a_tokenizer() -> None:
    with pytest.raises(ConfigError, match="no tokenizer is given"):
        build_examples(structure_table(structure_task()))


def test_structure_questions_come_from_many_proteins_up_to_the_cap() -> None:
    examples = build_examples(structure_table(structure_task(max_train=60, per_protein=10)), tiktoken_like())
    assert len(examples["train"]) == 60
    assert max(Counter(example["group"] for example in examples["train"]).values()) == 2
    assert len(examples["test"]) == 400


def test_a_structure_answer_is_the_state_of_the_last_residues() -> None:
    source = structure_table(structure_task(max_test=30))
    known = {protein["sequences"][0]: protein["label"] for protein in source.splits["test"]}
    questions = [example for example in build_examples(source, tiktoken_like())["test"] if len(example["input"]) > 9]
    assert questions
    for example in questions:  # long enough to occur in one protein only
        sequence = next(sequence for sequence in known if example["input"] in sequence)
        end = sequence.index(example["input"]) + len(example["input"])
        assert example["output"] in {vote(known[sequence][end - length : end]) for length in range(1, 8)}


@pytest.mark.parametrize(("tie_order", "answer"), [([], "exon"), (["I", "E"], "intron")])
def test_ties_of_other_states_go_in_the_order_of_the_yaml(tie_order: list[str], answer: str) -> None:
    task = structure_task(labels={"E": "exon", "I": "intron"}, tie_order=tie_order)
    lengths = token_lengths(tiktoken_like(), "MKQDKGLFDLVT")
    states = "".join("IEIE"[:length] if length % 2 == 0 else "E" * length for length in lengths)
    built = build_examples(table(task, ["exon", "intron"], test=[row("MKQDKGLFDLVT", label=states)]), tiktoken_like())["test"]
    assert len(built) == len(lengths) > 1
    assert [example["output"] for example in built] == [answer if length % 2 == 0 else "exon" for length in lengths]
    assert any(length % 2 == 0 for length in lengths)


def test_balanced_structure_questions_have_equally_many_of_each() -> None:
    source = structure_table(structure_task(balance=True, balance_test=True, max_train=60))
    examples = build_examples(source, tiktoken_like())
    assert Counter(example["output"] for example in examples["train"]) == {"alpha helix": 20, "beta sheet": 20, "random coil": 20}
    assert len(set(Counter(example["output"] for example in examples["test"]).values())) == 1
    assert source.left_out["test balance"] == 400 - len(examples["test"])


def test_law_15_the_same_seed_asks_the_same_questions() -> None:
    built = [build_examples(structure_table(structure_task(max_train=60)), tiktoken_like(), seed) for seed in (1, 1, 2)]
    assert built[0] == built[1] != built[2]


# --- files ---


def test_examples_survive_writing_and_reading(tmp_path: Path) -> None:
    examples = build_examples(table(make(), ["no", "yes"], test=[row("ACGT", label="yes", group="g", value=0.5)]))["test"]
    assert write_examples(tmp_path / "test.jsonl", examples) == 1
    assert read_examples(tmp_path / "test.jsonl") == examples


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_plain_alpaca_rows_become_english_examples(tmp_path: Path, name: str) -> None:
    rows = [{"instruction": "Say hello.", "input": "", "output": "Hello."}]
    (tmp_path / name).write_text(json.dumps(rows) if name.endswith(".json") else json.dumps(rows[0]) + "\n")
    (example,) = read_examples(tmp_path / name)
    assert (example["family"], example["output"], example["labels"], example["sequences"]) == ("english", "Hello.", [], [])


def test_a_row_without_an_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Say.", "output": "a"}\n{"instruction": "Say.", "output": ""}\n')
    with pytest.raises(InputError, match=r"rows.jsonl, row 2 has no text in instruction or output"):
        read_examples(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Say.", "output": "a"}\n{"instr\n')
    with pytest.raises(InputError, match=r"rows.jsonl, line 2"):
        read_examples(tmp_path / "rows.jsonl")
