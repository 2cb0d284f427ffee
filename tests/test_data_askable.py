"""Tasks as a user asks them: which can be asked, and what sequences they take."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from llama_gene import runtime
from llama_gene.data.askable import AskableTask, askable_task, check_row, read_askable_tasks, read_pasted, read_rows_of
from llama_gene.data.instructions import Example, render_input, render_instruction
from llama_gene.data.prompts import render_user
from llama_gene.data.tasks import Task, read_task
from llama_gene.errors import ConfigError, InputError, MissingFileError

ROOT = Path(__file__).resolve().parents[1]
DNA = AskableTask("core", "core promoter", "classification", ("dna",), ("no", "yes"), "Is it?", "{0}")
PROTEIN = AskableTask("ec", "enzyme", "classification", ("protein",), ("no", "yes"), "Is it?", "{0}")
PAIR = AskableTask("pair", "pair", "pair", ("dna", "protein"), ("no", "yes"), "Match?", "DNA sequence: {0}\n####\nprotein sequence: {1}")


def test_every_shipped_task_can_be_asked_or_says_why_not() -> None:
    tasks = read_askable_tasks([ROOT / "launch/configs/tasks"])
    assert {"gue_prom_core_all", "gue_splice", "ppi_yeast", "yeast_promoter_expression"} <= set(tasks.by_name)
    assert tasks.refused["protein_secondary_structure"] == "it is asked of single residues"
    assert tasks.refused["protein_ec_level1"] == "a row has several labels"
    assert tasks.refused["uniprot_function"] == "its answers are free text"
    assert not set(tasks.by_name) & set(tasks.refused)


@pytest.mark.parametrize("name", ["gue_prom_core_all", "ppi_yeast", "dna_protein_pair"])
@pytest.mark.parametrize("words", ["default", "paper"])
def test_a_question_is_worded_as_an_example_of_instruct(name: str, words: str) -> None:
    task = read_task(ROOT / f"launch/configs/tasks/{name}.yaml")
    row = ["ACGTACGT", "MKVLA"][: len(task.kinds)] if task.kinds[0] == "dna" else ["MKVLA", "MSTN"]
    labels = list(dict.fromkeys(task.labels.values()))
    wanted = render_user(render_instruction(task, labels, words), render_input(task, row, words))
    assert askable_task(task, words=words).user_message(row) == wanted


def test_with_dnahlm_words_the_sequence_stands_in_the_instruction() -> None:
    task = read_task(ROOT / "launch/configs/tasks/gue_prom_core_all.yaml")
    message = askable_task(task, words="dnahlm").user_message(["ACGT"])
    assert message == "Determine whether the core promoter detection of following DNA sequence ACGT answer with Non-promoter or promoter"


def test_a_folder_of_instruct_knows_labels_that_only_the_tables_name(instructions: Path, tmp_path: Path) -> None:
    [task] = read_askable_tasks([instructions]).by_name.values()
    assert (task.name, task.labels, task.kinds) == ("tata", ("Non-promoter", "promoter"), ("dna",))
    example: Example = next(iter(runtime.json.loads(line) for line in (instructions / "test.jsonl").open()))
    assert task.user_message(example["sequences"]) == render_user(example["instruction"], example["input"])


def test_labels_that_nobody_names_refuse_the_task(tmp_path: Path) -> None:
    task = Task(name="own", title="t", family="classification", strand="sense", files=["labels.csv"])
    with pytest.raises(InputError, match="its YAML names no labels"):
        askable_task(task)
    assert askable_task(task, ["a", "b"]).labels == ("a", "b")
    with pytest.raises(MissingFileError):
        read_askable_tasks([tmp_path / "nowhere.yaml"])
    with pytest.raises(MissingFileError, match="hold tasks"):
        read_askable_tasks([tmp_path])
    with pytest.raises(ConfigError, match="single residues"):
        read_askable_tasks([ROOT / "launch/configs/tasks/protein_secondary_structure.yaml"])
    with pytest.raises(ConfigError, match="two tasks are called 'ppi_yeast'"):
        read_askable_tasks([ROOT / "launch/configs/tasks/ppi_yeast.yaml"] * 2)


def test_a_name_that_is_not_known_names_the_nearest() -> None:
    tasks = read_askable_tasks([ROOT / "launch/configs/tasks"])
    with pytest.raises(InputError, match="Did you mean 'gue_splice'"):
        tasks.get("gue_splic")
    with pytest.raises(InputError, match="single residues"):
        tasks.get("protein_secondary_structure")


def test_letters_outside_the_alphabet_are_refused_with_their_place() -> None:
    with pytest.raises(InputError, match=r"row 3: 'L' \(letter 4\) is not a DNA letter.*It could be protein"):
        check_row(DNA, ["MKVLAAGIV"], "row 3")
    with pytest.raises(InputError, match=r"'U' \(letter 2\).*It could be RNA"):
        check_row(DNA, ["AUG"])
    with pytest.raises(InputError, match=r"'1' \(letter 3\) is not a DNA letter.*Remove or replace"):
        check_row(DNA, ["AC1"])
    with pytest.raises(InputError, match="'-'"):
        check_row(DNA, ["AC-GT"])
    with pytest.raises(InputError, match="is not a protein letter"):
        check_row(PROTEIN, ["MK*VL"])
    for empty in ("", " \n", "*"):
        with pytest.raises(InputError, match="is empty"):
            check_row(PROTEIN, [empty])
    with pytest.raises(InputError, match=r"1,000,001 letters; expected at most 1,000,000"):
        check_row(DNA, ["A" * 1_000_001])
    with pytest.raises(InputError, match="has 1 sequences; expected 2 "):
        check_row(PAIR, ["ACGT"])
    with pytest.raises(InputError, match="x, sequence 2: 'É'"):
        check_row(PAIR, ["ACGT", "MKÉ"], "x")


def test_case_and_line_breaks_are_no_letters_and_what_is_left_out_is_said() -> None:
    assert check_row(DNA, ["acgt\r\nNN ry"]).sequences == ("ACGTNNRY",)
    row = check_row(PROTEIN, ["mkvl*"])
    assert row.sequences == ("MKVL",) and "stop sign" in row.doubts[0]
    assert "DNA alone" in check_row(PROTEIN, ["ACGT" * 10]).doubts[0]
    assert not check_row(PROTEIN, ["GAGAGA"]).doubts


def test_records_of_a_file_are_questions_and_pairs_take_two(tmp_path: Path) -> None:
    (tmp_path / "a.fa.gz").write_bytes(gzip.compress(b">one x\nACGT\nac\n>two\nGG\n"))
    assert [(row.name, row.sequences) for row in read_rows_of(tmp_path / "a.fa.gz", DNA)] == [("one", ("ACGTAC",)), ("two", ("GG",))]
    (tmp_path / "pair.fa").write_text(">g\nACGT\n>p\nMKV*\n")
    [row] = read_rows_of(tmp_path / "pair.fa", PAIR)
    assert (row.name, row.sequences) == ("g + p", ("ACGT", "MKV"))
    with pytest.raises(InputError, match="more than 1 questions"):
        read_rows_of(tmp_path / "a.fa.gz", DNA, max_rows=1)
    with pytest.raises(InputError, match="'one'? ?.*letters|more than 3"):
        read_rows_of(tmp_path / "a.fa.gz", DNA, max_letters=3)
    (tmp_path / "odd.fa").write_text(">g\nACGT\n>p\nMKV\n>h\nAC\n")
    with pytest.raises(InputError, match="'h' has no partner"):
        read_rows_of(tmp_path / "odd.fa", PAIR)
    (tmp_path / "empty.fa").write_text("")
    with pytest.raises(InputError, match="no record"):
        read_rows_of(tmp_path / "empty.fa", DNA)


def test_pasted_text_is_records_or_one_bare_sequence() -> None:
    assert [row.sequences for row in read_pasted("acgt\nGG", DNA)] == [("ACGTGG",)]
    assert read_pasted("ACGT\n####\nMKV", PAIR)[0].sequences == ("ACGT", "MKV")
    assert [row.name for row in read_pasted("\n>a b\nAC\n>\nGT\n", DNA)] == ["a", "record"]
    with pytest.raises(InputError, match="'What' stands before"):
        read_pasted("What is this?\n>a\nACGT", DNA)
