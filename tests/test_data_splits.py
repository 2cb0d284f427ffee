"""Rows of existing splits, from every kind of file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from llama_gene.data.splits import evaluation_files, evaluation_sequences, read_split, read_task_splits
from llama_gene.data.tasks import Task, read_task
from llama_gene.errors import InputError, MissingFileError

TASK = """
name: core
title: core promoter detection
family: classification
strand: sense
train: train.csv
test: test.csv
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_table_gives_upper_case_rows_with_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "sequence,label\nacgt,0\nGGCC,1\n")
    (rows,) = read_split([path], "train", ["dna"], ["sequence"])
    assert rows.rows == [("ACGT",), ("GGCC",)]
    assert rows.places == [("train.csv", 1), ("train.csv", 2)]


def test_fasta_json_lines_and_compressed_tables_are_one_split(tmp_path: Path) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"sequence\tlabel\nACGT\t0\n"))
    write(tmp_path / "b.fa", ">one\nGG\nCC\n")
    write(tmp_path / "c.jsonl", '{"sequence": "TTTT"}\n\n{"sequence": "CCCC"}\n')
    (rows,) = read_split([tmp_path / "a.tsv.gz", tmp_path / "b.fa", tmp_path / "c.jsonl"], "test", ["dna"], ["sequence"])
    assert [row[0] for row in rows.rows] == ["ACGT", "GGCC", "TTTT", "CCCC"]
    assert rows.places == [("a.tsv.gz", 1), ("b.fa", 1), ("c.jsonl", 1), ("c.jsonl", 3)]


def test_rows_that_cannot_be_compared_are_counted_with_reasons(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "sequence,label\nACGT,0\n ,1\nMKLV,1\n")
    (rows,) = read_split([path], "train", ["dna"], ["sequence"])
    assert rows.rows == [("ACGT",)] and rows.places == [("train.csv", 1)]
    assert rows.rejected == {"empty sequence": 1, "letters outside the alphabet": 1}


def test_instructions_give_one_item_a_task_and_english_none(tmp_path: Path) -> None:
    lines = [
        {"task": "core", "sequences": ["ACGT"], "kinds": ["dna"]},
        {"task": "english", "sequences": [], "kinds": []},
        {"task": "pair", "sequences": ["ACGT", "MK"], "kinds": ["dna", "protein"]},
    ]
    write(tmp_path / "test.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    found = read_split([tmp_path], "test", ["dna"], ["sequence"])
    assert [(rows.name, rows.kinds, rows.rows) for rows in found] == [
        ("core test", ("dna",), [("ACGT",)]),
        ("pair test", ("dna", "protein"), [("ACGT", "MK")]),
    ]


def test_a_pair_has_two_members_and_each_is_found_by_its_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "test.csv", "a,b,label\nMK,LV,1\n")
    (rows,) = read_split([path], "test", ["protein", "protein"], ["a", "b"])
    assert list(rows.members("protein")) == [(0, "MK"), (0, "LV")]
    assert list(rows.members("dna")) == []


def test_a_protein_file_given_as_dna_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "test.csv", "sequence,label\nMKLV,1\n")
    with pytest.raises(InputError, match="no row is left .*Check kinds and columns"):
        read_split([path], "test", ["dna"], ["sequence"])


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "test.csv", "sequense,label\nACGT,1\n")
    with pytest.raises(InputError, match="no column 'sequence'.*Did you mean 'sequense'"):
        read_split([path], "test", ["dna"], ["sequence"])


@pytest.mark.parametrize("line", ["[1]", "{", '{"other": "ACGT"}', '{"sequence": 3}'])
def test_a_line_without_a_sequence_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "test.jsonl", f'{{"sequence": "ACGT"}}\n{line}\n')
    with pytest.raises(InputError, match="line 2"):
        read_split([path], "test", ["dna"], ["sequence"])


def test_a_file_of_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a table nor FASTA"):
        read_split([write(tmp_path / "rows.parquet", "x")], "test", ["dna"], ["sequence"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nothing.csv"):
        read_split([tmp_path / "nothing.csv"], "test", ["dna"], ["sequence"])


def test_a_tasks_rows_are_those_of_its_files_repeats_and_all(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "sequence,label\nACGT,0\nACGT,0\n")
    write(tmp_path / "test.csv", "sequence,label\nACGT,0\n")
    task = Task("core", "core promoter detection", "classification", strand="sense", train=["train.csv"], test=["test.csv"])
    assert [(rows.name, len(rows.rows)) for rows in read_task_splits(task, tmp_path)] == [("core train", 2), ("core test", 1)]


def test_a_task_of_identifiers_takes_the_sequences_of_its_table(tmp_path: Path) -> None:
    write(tmp_path / "test.csv", "a,b,label\np1,p2,1\np1,p3,0\n")
    write(tmp_path / "proteins.tsv", "protein\tsequence\np1\tMK\np2\tLV\n")
    kinds = ["protein", "protein"]
    task = Task("ppi", "interaction", "pair", kinds=kinds, columns=["a", "b"], test=["test.csv"], sequences_table="proteins.tsv")
    (rows,) = read_task_splits(task, tmp_path)
    assert rows.rows == [("MK", "LV")] and rows.rejected == {"identifier without a sequence": 1}


def test_evaluation_sequences_of_a_task_are_those_of_its_test_once_each(tmp_path: Path) -> None:
    write(tmp_path / "core.yaml", TASK)
    write(tmp_path / "train.csv", "sequence,label\nAAAA,0\n")
    write(tmp_path / "test.csv", "sequence,label\nCCCC,0\nCCCC,1\nGGGG,1\n")
    assert evaluation_sequences([tmp_path / "core.yaml"], "dna") == {"core test": ["CCCC", "GGGG"]}
    assert evaluation_sequences([tmp_path / "core.yaml"], "protein") == {}
    assert read_task(tmp_path / "core.yaml").name == "core"


def test_evaluation_files_hold_all_that_decides_but_train(tmp_path: Path) -> None:
    yaml = write(tmp_path / "core.yaml", TASK)
    write(tmp_path / "train.csv", "sequence,label\nAAAA,0\n")
    table = write(tmp_path / "test.csv", "sequence,label\nCCCC,0\n")
    assert evaluation_files([yaml]) == [yaml, table]


def test_evaluation_files_of_one_list_serve_several_kinds(tmp_path: Path) -> None:
    dna = write(tmp_path / "dna.csv", "sequence,label\nCCCC,0\n")
    protein = write(tmp_path / "protein.fa", ">one\nMKLV\n")
    assert evaluation_sequences([dna, protein], "dna") == {"dna.csv": ["CCCC"]}
    assert evaluation_sequences([protein], "protein") == {"protein.fa": ["MKLV"]}
