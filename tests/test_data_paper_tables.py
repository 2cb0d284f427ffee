"""The papers' tables: published beside ours, and what is not the same said in each row."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gene.data.paper_tables import OurValue, PaperRow, PaperTable, read_paper_table, render_table
from llama_gene.errors import ConfigError, InputError, MissingFileError

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "launch" / "configs" / "tables"
TABLE = PaperTable(
    "toy",
    "Toy, Table 1",
    "accuracy",
    ("model", "SOTA"),
    (
        PaperRow("one", {"model": 0.5}, {"alone": ("reduced",)}, ("our choice",)),
        PaperRow("two", {"model": 0.6, "SOTA": 0.7}, {"first": (), "second": ()}, note="A note."),
        PaperRow("none", {"SOTA": 0.8}, {}, not_run="no file"),
    ),
)
YAML = """\
name: toy
title: Toy, Table 1
metric: accuracy
columns: [model, SOTA]
rows:
  - {row: one, published: {model: 0.5}, marks: [our choice], tasks: {alone: [reduced]}}
  - {row: two, published: {model: 0.6, SOTA: 0.7}, note: A note., tasks: {first: [], second: []}}
  - {row: none, published: {SOTA: 0.8}, not_run: no file}
"""


def test_a_yaml_becomes_a_table(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(YAML)
    assert read_paper_table(tmp_path / "toy.yaml") == TABLE
    assert TABLE.tasks == ["alone", "first", "second"]


def test_published_and_both_of_our_scorers_stand_side_by_side() -> None:
    results = {
        "alone": {"strict": OurValue(0.25, (0.2, 0.3)), "paper scorer": OurValue(0.5)},
        "first": {"strict": OurValue(0.5), "paper scorer": OurValue(0.75)},
        "second": {"strict": OurValue(1.0), "paper scorer": OurValue(1.0)},
    }
    assert render_table(TABLE, results) == (
        "## Toy, Table 1: accuracy\n\n"
        "| task | model (published) | SOTA (published) | strict (ours) | paper scorer (ours) | data | remarks |\n"
        "| :-- | --: | --: | --: | --: | :-- | :-- |\n"
        "| one | 0.50 | - | 0.250 (0.200 to 0.300) | 0.500 | alone | our choice; reduced |\n"
        "| two | 0.60 | 0.70 | 0.750 | 0.875 | - | A note |\n"
        "|  |  |  | 0.500 | 0.750 | first |  |\n"
        "|  |  |  | 1.000 | 1.000 | second |  |\n"
        "| none | - | 0.80 | not run | not run | - | not run: no file |\n"
    )


def test_what_was_not_run_says_so_and_a_mean_says_of_how_many() -> None:
    lines = render_table(TABLE, {"second": {"strict": OurValue(0.5), "head": OurValue(None, note="one class below 20 %")}}).splitlines()
    assert lines[4] == "| one | 0.50 | - | not run | not run | alone | our choice; reduced |"
    assert lines[5] == "| two | 0.60 | 0.70 | 0.500 (mean of 1 of 2) | not run | - | A note |"
    assert lines[6] == "|  |  |  | not run | not run | first |  |"
    assert lines[7] == "|  |  |  | 0.500 | - | second | one class below 20 % |"
    assert "| one | 0.50 | - | not run | alone | our choice; reduced |" in render_table(TABLE, {})


def test_a_result_of_another_task_is_refused() -> None:
    with pytest.raises(InputError, match="table 'toy' has no task 'other'"):
        render_table(TABLE, {"other": {"strict": OurValue(1.0)}})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("marks: [our", "mark: [our", "toy.yaml, row 1: key 'mark' is not known.*Did you mean 'marks'"),
        ("[reduced]", "[smaller]", r"row 1 \(one\), task 'alone': mark 'smaller'"),
        ("{model: 0.5}", "{modell: 0.5}", r"row 1 \(one\): column 'modell'.*Did you mean 'model'"),
        ("{model: 0.5}", "{model: much}", r"row 1 \(one\), column 'model': 'much'"),
        (", not_run: no file", "", r"row 3 \(none\) has neither tasks nor not_run"),
        ("metric: accuracy\n", "", "toy.yaml has no 'metric'"),
        ("columns: [", "columns: {", "toy.yaml: .*YAML"),
    ],
)
def test_a_wrong_table_names_the_file_and_the_row(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "toy.yaml").write_text(YAML.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_paper_table(tmp_path / "toy.yaml")


def test_a_missing_file() -> None:
    with pytest.raises(MissingFileError, match="nowhere.yaml"):
        read_paper_table(Path("nowhere.yaml"))


def test_the_papers_tables_hold_the_published_values() -> None:
    first, second = (read_paper_table(TABLES / f"{name}.yaml") for name in ("llama_gene", "dnahlm"))
    assert [(row.published["llama-gene"], row.published["SOTA"]) for row in first.rows] == [
        (0.83, 0.84), (0.64, 0.72), (0.81, 0.85), (0.73, 0.85), (0.66, 0.78), (0.63, 0.87),
        (0.71, 0.91), (0.76, 0.81), (0.71, 0.81), (0.83, 0.87), (0.82, 0.86),
    ]  # fmt: skip
    assert all("our choice" in row.marks for row in first.rows)  # the paper names no data set
    assert [tuple(row.published.get(column) for column in second.columns) for row in second.rows] == [
        (0.83, 0.76, None, 0.74), (0.76, None, 0.74, None), (0.75, None, 0.87, None),
        (0.88, None, 0.94, None), (0.82, None, 0.86, None), (None, None, None, 0.83),
    ]  # fmt: skip


def test_what_is_reduced_is_marked_reduced_wherever_it_occurs() -> None:
    tables = [read_paper_table(path) for path in sorted(TABLES.glob("*.yaml"))]
    marks = {task: set(marks) for table in tables for row in table.rows for task, marks in row.tasks.items()}
    reduced = {task for task, own in marks.items() if "reduced" in own}
    assert reduced == {"gue_prom_300_all", "gue_splice", "protein_localization_deeploc", "protein_ec_class"}
    for table in tables:
        for row in table.rows:
            assert all(set(own) == marks[task] for task, own in row.tasks.items())
