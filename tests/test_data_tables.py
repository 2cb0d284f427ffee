"""Tables of labelled rows: five formats give the same cells, and what is missing is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llama_gene.data.splits import evaluation_files, read_task_splits
from llama_gene.data.tables import place_of, read_rows, table_hash
from llama_gene.data.tasks import Task, load_task
from llama_gene.errors import InputError, MissingFileError

ROWS: list[dict[str, Any]] = [{"sequence": "ACGT", "label": 1}, {"sequence": "ACGA", "label": 0}]
CELLS = [{"sequence": "ACGT", "label": "1"}, {"sequence": "ACGA", "label": "0"}]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the name."""
    path = folder / name
    if name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif "." not in name:
        from datasets import Dataset

        Dataset.from_list(rows).save_to_disk(str(path))
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        sep = "\t" if name.endswith(".tsv") else ","
        path.write_text("\n".join(sep.join(map(str, line)) for line in [list(rows[0]), *(row.values() for row in rows)]) + "\n")
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "folder"])
def test_every_format_gives_the_same_cells(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, ROWS)
    assert read_rows(path, ["sequence", "label"]) == CELLS
    with pytest.raises(InputError, match=r"has no column 'lable'; expected one of sequence, label. Did you mean 'label'"):
        read_rows(path, ["sequence", "lable"])


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "folder"])
def test_a_task_reads_the_format_that_its_files_have(tmp_path: Path, name: str) -> None:
    rows = [{"sequence": "ACGT" * 3 + letters, "label": number % 2} for number, letters in enumerate(("AA", "AC", "CA", "CC", "GG", "GT"))]
    write(tmp_path, name, rows)
    write(tmp_path, "test.csv", [{"sequence": "TTTTT", "label": 1}, {"sequence": "", "label": 0}])
    task = Task("core", "core", "classification", strand="sense", train=[name], test=["test.csv"], dev_fraction=0.2)
    table = load_task(task, tmp_path)
    assert len(table.splits["train"]) + len(table.splits["dev"]) == 6 and table.labels == ["0", "1"]
    assert table.splits["test"][0]["source"] == "test.csv:1" and table.rejected == {"empty sequence": 1}
    assert {row["source"] for split in ("train", "dev") for row in table.splits[split]} == {f"{name}:{number}" for number in range(1, 7)}
    assert len(read_task_splits(task, tmp_path)[0].rows) == 6
    (tmp_path / "core.yaml").write_text(f"name: core\ntitle: core\nfamily: classification\nstrand: sense\ntrain: {name}\ntest: test.csv\n")
    assert all(path.is_file() for path in evaluation_files([tmp_path / "core.yaml"], with_train=True))


def test_missing_values_are_empty_and_lists_are_joined_where_a_separator_is_given(tmp_path: Path) -> None:
    path = write(
        tmp_path, "t.jsonl", [{"sequence": None, "label": ["a", "b"], "other": {"x": 1}}, {"label": True}, {"sequence": "A", "label": 0.5}]
    )
    assert [row.get("label") for row in read_rows(path, ["sequence", "label"], separator=";")] == ["a;b", "true", "0.5"]
    assert [row["sequence"] for row in read_rows(path, ["sequence"])] == ["", "", "A"]
    with pytest.raises(InputError, match=r"t.jsonl, row 1, column 'label' holds a list.*Set label_separator"):
        read_rows(path, ["label"])
    with pytest.raises(InputError, match="column 'other' holds a dict"):
        read_rows(path, ["other"])


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl").write_text('{"sequence": "A"}\n{"seq')
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "plain").mkdir()
    (tmp_path / "empty.jsonl").write_text("")
    for name, message in {
        "cut.jsonl": "cut.jsonl, line 2",
        "cut.parquet": "expected a Parquet file",
        "plain": "a folder without dataset_info.json",
        "empty.jsonl": "holds no row",
    }.items():
        with pytest.raises(InputError, match=message):
            read_rows(tmp_path / name, ["sequence"])
    with pytest.raises(MissingFileError, match="gone.csv"):
        read_rows(tmp_path / "gone.csv", ["sequence"])


def test_of_several_splits_one_must_be_named(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(InputError, match="holds several splits; expected the folder of one of them: test, train"):
        read_rows(tmp_path / "both", ["sequence"])
    assert read_rows(tmp_path / "both" / "train", ["sequence", "label"]) == CELLS


def test_a_hash_follows_the_bytes_and_a_message_names_the_row_as_an_editor_would(tmp_path: Path) -> None:
    folder = write(tmp_path, "folder", ROWS)
    before = table_hash(folder)
    assert before == table_hash(folder) and len(before) > 8
    (folder / "more.txt").write_text("x")
    assert table_hash(folder) != before
    assert place_of(tmp_path / "t.csv.gz", 1) == f"{tmp_path}/t.csv.gz, line 2" and place_of(tmp_path / "t.parquet", 1).endswith("row 1")
