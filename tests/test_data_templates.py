"""Words of the instructions: golden files of each family and template, the papers' rows to the letter, paraphrases."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llama_gene.data.instructions import build_examples
from llama_gene.data.tasks import SPLITS, Task, TaskRow, TaskTable, load_task, read_task
from llama_gene.data.templates import TEMPLATES, check_template, render_instruction, render_paraphrase
from llama_gene.errors import ConfigError
from llama_gene.inference.metrics import semantic_match
from llama_gene.sequences.alphabet import reverse_complement, translate
from llama_gene.tokenization.tokenizer import decode
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like

GOLDEN = Path(__file__).parent / "fixtures" / "golden"
YAMLS = sorted((Path(__file__).parents[1] / "launch" / "configs" / "tasks").glob("*.yaml"))
TASKS = {path.stem: read_task(path) for path in YAMLS}
PROTEIN = "MKQDKGLFDLVTACDEFGHIKLMNPQRSTVWYMKQDKG"


def row(*sequences: str, label: str, **changes: Any) -> TaskRow:
    values = {
        "sequences": list(sequences),
        "label": label,
        "group": "",
        "oracle": None,
        "value": None,
        "source": "made/test.csv:1",
        **changes,
    }
    return TaskRow(**values)  # type: ignore[typeddict-item]


def tables() -> dict[str, TaskTable]:
    """Return one small table for each family and form, written by hand."""

    def table(name: str, rows: list[TaskRow], labels: list[str], **values: Any) -> TaskTable:
        task = Task(**{"name": name, "test": ["made/test.csv"], "train": ["made/train.csv"], **values})
        return TaskTable(task, {"train": [], "dev": [], "test": rows}, labels, {}, {}, {}, {})

    pair = {"family": "pair", "kinds": ["dna", "protein"], "columns": ["dna", "protein"]}
    states = "--HHHHHHEEEEEECCCCCCHHHHHEEEEECCCCCCHH"
    enzymes = ["oxidoreductase", "transferase", "hydrolase"]
    common = {"title": "secondary structure prediction", "family": "structure", "kinds": ["protein"], "per_protein": 2}
    return {
        "classification": table(
            "core", [row("CATGCGGGTCG", label="Non-promoter")], ["Non-promoter", "promoter"],
            title="core promoter detection", family="classification", strand="sense",
            paper_instruction="Determine core promoter detection of following dna sequence, "
            "The result will be one of the following: Non-promoter, promoter.",
        ),
        "several labels": table(
            "enzyme", [row("MASGRL", label="oxidoreductase, hydrolase", answers=["oxidoreductase", "hydrolase"])], enzymes,
            title="enzyme class prediction", family="classification", kinds=["protein"], label_separator=";", multi_label=True,
        ),
        "structure by residue": table("fold", [row(PROTEIN, label=states)], ["alpha helix", "beta sheet", "random coil"], **common),
        "structure by token": table(
            "fold_token", [row(PROTEIN, label=states)], ["alpha helix", "beta sheet", "random coil"], form="token", **common,
        ),
        "pair": table(
            "dogma", [row("ACCAGTGCTCAG", "MASGRLQLLAFAL", label="Not Conform", subsets=["C3"])], ["Conform", "Not Conform"],
            title="Conform to the Central Dogma prediction", **pair,
        ),
        "function": table(
            "function", [row("GTTCTGCCATAACA", label="D-glucose transmembrane transport(GO:1904659)")], [],
            title="gene function prediction", family="function", strand="sense",
        ),
        "regression": table(
            "level", [row("GTTCTGCCCATACA", label="high", value=0.75)], ["low", "high"],
            title="gene expression level prediction", family="regression", strand="sense", bins=2,
        ),
    }  # fmt: skip


def examples_of(template: str) -> list[dict[str, Any]]:
    """Return the examples of every table that a template can ask."""
    found = []
    for name, table in tables().items():
        if template != "dnahlm" or name in ("classification", "regression"):
            found += [{"what": name, **example} for example in build_examples(table, tiktoken_like(), template=template)["test"]]
    return found


@pytest.mark.parametrize("template", TEMPLATES)
def test_each_family_and_template_gives_the_rows_of_its_golden_file(template: str) -> None:
    golden = [json.loads(line) for line in (GOLDEN / f"{template}.jsonl").read_text().splitlines()]
    assert examples_of(template) == golden


def test_the_choice_of_two_is_dnahlms_with_an_empty_input() -> None:
    (example, _) = examples_of("dnahlm")
    text = "Determine whether the core promoter detection of following DNA sequence CATGCGGGTCG answer with Non-promoter or promoter"
    assert (example["instruction"], example["input"], example["sequences"]) == (text, "", ["CATGCGGGTCG"])


@pytest.mark.parametrize("name", ["several labels", "structure by residue", "pair", "function"])
def test_the_choice_of_two_is_refused_where_there_is_none(name: str) -> None:
    with pytest.raises(ConfigError, match="template dnahlm; expected one sequence and two labels"):
        build_examples(tables()[name], tiktoken_like(), template="dnahlm")


def test_an_unknown_template_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="template 'papers'.*Did you mean 'paper'"):
        check_template("papers")


# --- paraphrases ---


def asked(held_out: bool = False, template: str = "default", seed: int = 0) -> dict[str, list[str]]:
    """Return the instructions of each split of a task with paraphrases."""
    texts = [f"Words {number}: {{title}} of {{kind}}? {{labels}}" for number in range(2)]
    task = Task(
        "core", "core", "classification", strand="sense", test=["t.csv"], paraphrases=texts, held_out_paraphrases=["New words: {labels}"]
    )  # fmt: skip
    rows = [row("ACGT", label="no") for _ in range(60)]
    table = TaskTable(task, {split: rows for split in SPLITS}, ["no", "yes"], {}, {}, {}, {})
    built = build_examples(table, seed=seed, template=template, held_out_paraphrases=held_out)
    return {split: [example["instruction"] for example in built[split]] for split in SPLITS}


def test_train_rows_draw_among_the_paraphrases_and_the_templates_own_words() -> None:
    own = "Determine the core of following dna sequence, The result will be one of the following: no, yes."
    found = asked()
    assert set(found["train"]) == {own, "Words 0: core of dna? no, yes", "Words 1: core of dna? no, yes"}
    assert min(Counter(found["train"]).values()) > 8
    assert set(found["dev"]) == set(found["test"]) == {own}
    assert asked(seed=0) == found != asked(seed=1)


def test_held_out_words_are_those_that_train_never_sees() -> None:
    found = asked(held_out=True)
    assert set(found["dev"]) == set(found["test"]) == {"New words: no, yes"}
    assert "New words: no, yes" not in found["train"]


def test_a_paraphrase_that_lists_labels_is_refused_where_there_are_none() -> None:
    task = Task("name", "name", "function", kinds=["protein"], test=["t.csv"], paraphrases=["Which of {labels}?"])
    with pytest.raises(ConfigError, match=r"paraphrase 'Which of \{labels\}\?' has \{labels\} and the answers are free text"):
        render_paraphrase(task, [], task.paraphrases[0])


def test_the_papers_words_have_no_paraphrases() -> None:
    assert {len(set(texts)) for texts in asked(template="paper").values()} == {1}


# --- the tasks of this repository ---


def labels_of(task: Task) -> list[str]:
    """Return the label names that a YAML fixes."""
    if task.family == "structure":
        return list(dict.fromkeys(task.state_names().values()))
    from llama_gene.data.tasks import bin_names

    return bin_names(task.bins) if task.family == "regression" else list(dict.fromkeys(task.labels.values()))


CLOSED = {name: labels for name, task in TASKS.items() if (labels := labels_of(task))}


def worded(name: str) -> tuple[str, list[str], list[str]]:
    """Return a task's question in the template's words, in those that train rows draw among, and in the held-out ones."""
    task, labels = TASKS[name], labels_of(TASKS[name])
    asked = [[render_paraphrase(task, labels, text) for text in texts] for texts in (task.paraphrases, task.held_out_paraphrases)]
    return render_instruction(task, labels), *asked


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_asked_in_three_other_ways_and_holds_one_out(name: str) -> None:
    own, trained, held_out = worded(name)
    assert len(trained) >= 3 if TASKS[name].train or TASKS[name].files else not trained  # what is only tested draws no words
    assert held_out
    texts = [" ".join(text.lower().split()) for text in (own, *trained, *held_out)]
    assert len(set(texts)) == len(texts)
    assert all(label in text for text in (*trained, *held_out) if TASKS[name].family != "function" for label in labels_of(TASKS[name]))


def test_two_tasks_are_asked_in_the_same_words_only_where_they_are_one_question() -> None:
    owners: dict[str, set[str]] = {}
    for name in TASKS:
        own, trained, held_out = worded(name)
        for text in (*trained, *held_out):
            owners.setdefault(text, set()).add(own)
    assert {text: names for text, names in owners.items() if len(names) > 1} == {}


def test_no_held_out_words_are_trained_on_by_any_task() -> None:
    trained = {text for name in TASKS for text in (worded(name)[0], *worded(name)[1])}
    assert not trained & {text for name in TASKS for text in worded(name)[2]}


@pytest.mark.parametrize("name", CLOSED)
def test_label_to_text_to_label_is_the_identity_for_every_task(name: str) -> None:
    labels = CLOSED[name]
    assert len(labels) == len(set(labels)) > 1
    for tokenizer in (sentencepiece_like(), tiktoken_like()):
        from llama_gene.data.prompts import encode_answer

        texts = [decode(tokenizer, encode_answer(tokenizer, label)) for label in labels]
        assert texts == labels
        assert [semantic_match(text, labels) for text in texts] == labels
        assert [semantic_match(f"{text}.", labels) for text in texts] == labels
        assert len({tuple(encode_answer(tokenizer, label)) for label in labels}) == len(labels)


def test_splice_names_follow_the_motifs_and_not_the_papers_rows() -> None:
    assert TASKS["gue_splice"].labels == {"0": "Acceptor Sites", "1": "Donor Sites", "2": "Non-Splice Sites"}
    assert TASKS["uci_splice"].labels == {"EI": "Donor Sites", "IE": "Acceptor Sites", "N": "Non-Splice Sites"}


def test_a_match_conforms_though_the_papers_table_gives_its_number_to_the_other() -> None:
    assert TASKS["dna_protein_pair"].labels == {"0": "Not Conform", "1": "Conform"}
    assert TASKS["dna_protein_pair"].positive == "Conform"


@pytest.mark.parametrize(
    ("names", "strand"),
    [
        (("gue_tf_0", "gue_tf_1", "gue_tf_2", "gue_tf_4", "gue_mouse_0", "gue_mouse_2", "gue_emp_H3", "gue_emp_H4", "gue_emp_H3K4me3",
          "human_enhancer_200bp", "drosophila_enhancer_developmental", "drosophila_enhancer_housekeeping"), "either"),
        (("gue_splice", "uci_splice", "gue_prom_core_all", "gue_prom_300_all", "ecoli_promoter_81bp", "uci_promoters",
          "ecoli_promoter_strength", "yeast_promoter_expression", "gene_family_chimp_dog", "dna_protein_pair",
          "ecoli_cds_product"), "sense"),
    ],
)  # fmt: skip
def test_peaks_marks_and_enhancers_have_no_strand_and_the_rest_has(names: tuple[str, ...], strand: str) -> None:
    assert {name: TASKS[name].strand for name in names} == dict.fromkeys(names, strand)


def test_every_published_number_from_memory_or_on_reduced_data_says_so() -> None:
    for name in ("gue_prom_300_all", "gue_emp_H3", "gue_emp_H4", "gue_emp_H3K4me3", "gue_splice", "protein_localization_deeploc"):
        assert "reduced" in TASKS[name].published and "from memory" in TASKS[name].published
    for name in ("gue_tf_1", "gue_tf_2", "gue_tf_4", "gue_mouse_2", "protein_gfp_fluorescence", "protein_gb1_fitness_low_vs_high"):
        assert "from memory" in TASKS[name].published


# --- against real rows ---

real_data = pytest.mark.real_data
needs_data = pytest.mark.skipif("LLAMA_GENE_DATA" not in os.environ, reason="LLAMA_GENE_DATA names no data folder")


def data() -> Path:
    return Path(os.environ["LLAMA_GENE_DATA"])


@real_data
@needs_data
def test_the_papers_own_rows_are_asked_in_the_words_of_the_template_paper() -> None:
    rows = json.loads((data() / "instructions/llama_gene_dna_test_1000_with_predictions.json").read_text())
    theirs = {(example["instruction"], len(example["input"])) for example in rows}
    lengths = {"gue_prom_core_all": 70, "gue_prom_300_all": 300, "gue_splice": 400, "gue_tf_0": 101}
    ours = {(render_instruction(TASKS[name], CLOSED[name], "paper"), length) for name, length in lengths.items()}
    assert ours == theirs


@real_data
@needs_data
def test_splice_sites_stand_in_the_middle_by_their_motifs() -> None:
    task = read_task(next(path for path in YAMLS if path.stem == "gue_splice"))
    task.max_train = task.max_dev = task.max_test = None
    rows = [row for rows in load_task(task, data()).splits.values() for row in rows]

    def share(label: str, place: int, motif: str) -> float:
        of_label = [row["sequences"][0] for row in rows if row["label"] == label]
        return sum(sequence[place : place + 2] == motif for sequence in of_label) / len(of_label)

    assert share("Acceptor Sites", 198, "AG") > 0.99 and share("Donor Sites", 200, "GT") > 0.98
    assert share("Non-Splice Sites", 198, "AG") < 0.45 and share("Non-Splice Sites", 200, "GT") < 0.35


@real_data
@needs_data
def test_where_a_dna_has_proteins_of_both_labels_those_that_conform_are_nearer_its_translation() -> None:
    task = read_task(next(path for path in YAMLS if path.stem == "dna_protein_pair"))
    task.max_train = None
    proteins: dict[str, dict[str, list[str]]] = {}
    for pair in load_task(task, data()).splits["train"]:
        proteins.setdefault(pair["sequences"][0], {}).setdefault(pair["label"], []).append(pair["sequences"][1])

    def shared(dna: str, protein: str) -> int:
        frames = [translate(strand[start:]) for strand in (dna, reverse_complement(dna)) for start in range(3)]
        known = {frame[place : place + 3] for frame in frames for place in range(len(frame) - 2)}
        return sum(protein[place : place + 3] in known for place in range(len(protein) - 2))

    def mean(dna: str, own: list[str]) -> float:
        return sum(shared(dna, protein) for protein in own) / len(own)

    both = [(mean(dna, own["Conform"]), mean(dna, own["Not Conform"])) for dna, own in proteins.items() if len(own) == 2]
    nearer, farther = sum(one > other for one, other in both), sum(one < other for one, other in both)
    assert len(both) > 1000 and nearer > 3 * farther


@real_data
@needs_data
@pytest.mark.parametrize(
    "name", ["gue_tf_0", "protein_ec_level1", "protein_ec_level2", "protein_localization_deeploc", "ppi_ecoli_dscript"]
)
def test_a_yaml_reads_its_real_table(name: str) -> None:
    table = load_task(TASKS[name], data())
    assert len(table.splits["test"]) >= 100 and len(table.labels) > 1
    assert all(answer in table.labels for row in table.splits["test"] for answer in row.get("answers") or [row["label"]])


@real_data
@needs_data
def test_every_label_list_that_is_taken_from_a_table_is_told_apart() -> None:
    labels = load_task(TASKS["protein_ec_level2"], data()).labels
    assert random.Random(0).sample(labels, 1) and [semantic_match(label, labels) for label in labels] == labels
