"""Tasks: one YAML, tables in, clean rows out, every lost row counted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from llama_gene.data.tasks import Task, load_task, read_task, row_key
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.sequences.alphabet import reverse_complement

RNG = random.Random(7)


def dna(length: int = 40) -> str:
    return "".join(RNG.choices("ACGT", k=length))


def write_table(path: Path, rows: list[tuple[Any, ...]], header: str = "sequence,label") -> str:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path.name


def write_splits(folder: Path, num: int = 40) -> dict[str, list[str]]:
    return {
        split: [write_table(folder / f"{split}.csv", [(dna(), number % 2) for number in range(num)])] for split in ("train", "dev", "test")
    }


def make(**changes: Any) -> Task:
    values: dict[str, Any] = {"name": "core", "title": "core promoter detection", "family": "classification", "test": ["test.csv"]}
    if set(changes.get("kinds", ["dna"])) == {"dna"}:
        values["strand"] = "sense"
    return Task(**{**values, **changes})


# --- YAML ---


def write_yaml(folder: Path, extra: str = "") -> Path:
    path = folder / "core.yaml"
    path.write_text(f"name: core\ntitle: core promoter detection\nfamily: classification\ntest: test.csv\nstrand: sense\n{extra}")
    return path


def test_a_yaml_becomes_a_task_and_labels_stay_text(tmp_path: Path) -> None:
    task = read_task(
        write_yaml(tmp_path, "labels: {0: No, 1: 1.10}\nmax_train: 4_000\nbalance: true\ndev_fraction: 0.2\ntrain: [a.csv, b.csv]\n")
    )
    assert task.labels == {"0": "No", "1": "1.10"}
    assert (task.max_train, task.balance, task.dev_fraction) == (4000, True, 0.2)
    assert (task.train, task.test) == (["a.csv", "b.csv"], ["test.csv"])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("lables: {0: no}\n", r"core.yaml, line 6: key 'lables' is not known.*Did you mean 'labels'"),
        ("family: classificaton\n", "family 'classificaton'"),
        ("kinds: [dnaa]\n", "kind 'dnaa'.*dna"),
        ("kinds: [dna, protein]\n", "2 kinds and 1 columns"),
        ("strand: both\n", "strand 'both'; expected either or sense"),
        ("max_train: many\n", "core.yaml.*many"),
        ("labels: [a, b]\n", "core.yaml.*mapping of raw label to name"),
        ("labels: {0: ''}\n", "label name ''"),
        ("files: all.csv\n", "both test and files"),
        ("bins: [\n", "core.yaml, line"),
    ],
)
def test_a_wrong_yaml_is_one_line_that_names_the_place(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_task(write_yaml(tmp_path, extra))
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("name: core\nfamily: classification\n")
    with pytest.raises(ConfigError, match="has no key 'title'"):
        read_task(path)
    with pytest.raises(MissingFileError, match=r"none.yaml does not exist"):
        read_task(tmp_path / "none.yaml")


# --- tables ---


def test_a_missing_table_column_or_label_names_file_and_line(tmp_path: Path) -> None:
    write_splits(tmp_path)
    with pytest.raises(MissingFileError, match=r"nowhere.csv"):
        load_task(make(train=["nowhere.csv"]), tmp_path)
    with pytest.raises(InputError, match=r"train.csv has no column 'lable'"):
        load_task(make(train=["train.csv"], label_column="lable"), tmp_path)
    with pytest.raises(InputError, match=r"train.csv, line 3: label '1'; expected one of 0"):
        load_task(make(train=["train.csv"], labels={"0": "no"}), tmp_path)


def test_a_label_that_train_has_not_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), label) for label in "ab" * 9])
    write_table(tmp_path / "test.csv", [(dna(), "c")])
    with pytest.raises(InputError, match="label 'c' is in test but not in train"):
        load_task(make(train=["train.csv"]), tmp_path)


def test_unusable_rows_are_counted_with_reasons(tmp_path: Path) -> None:
    good = [(dna(), number % 2) for number in range(20)]
    write_table(tmp_path / "train.csv", [*good, ("", 1), ("ACGJ", 1), ("ACGE", 0), (dna(), "")])
    write_table(tmp_path / "test.csv", [(dna(), 0), (dna(), 1)])
    table = load_task(make(train=["train.csv"]), tmp_path)
    assert table.rejected == {"empty sequence": 1, "letters outside the dna alphabet": 2, "no label": 1}
    assert len(table.splits["train"]) + len(table.splits["dev"]) == 20


def test_rows_with_several_different_labels_are_rejected(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), label) for label in ("1", "1;1", "1;2", "2") * 5])
    write_table(tmp_path / "test.csv", [(dna(), "1"), (dna(), "2;3")])
    task = make(train=["train.csv"], labels={"1": "one", "2": "two", "3": "three"}, label_separator=";")
    table = load_task(task, tmp_path)
    assert table.rejected == {"several different labels": 6}
    assert {row["label"] for row in table.splits["train"]} == {"one", "two"}


def test_repeats_of_test_rows_leave_train_and_dev(tmp_path: Path) -> None:
    held_out = [(dna(), number % 2) for number in range(4)]
    write_table(tmp_path / "test.csv", held_out)
    write_table(tmp_path / "dev.csv", [(dna(), 0), held_out[0], (dna(), 1)])
    train = [(dna(), number % 2) for number in range(20)]
    write_table(tmp_path / "train.csv", [*train, held_out[1], (reverse_complement(held_out[2][0]), 0), (held_out[3][0].lower(), 1)])
    table = load_task(make(train=["train.csv"], dev=["dev.csv"]), tmp_path)
    assert table.duplicates_removed == {"dev row repeats test": 1, "train row repeats test": 3}
    assert [len(table.splits[split]) for split in ("train", "dev", "test")] == [20, 2, 4]


def test_a_pair_repeats_its_swapped_pair_only_within_one_kind() -> None:
    assert row_key(["protein", "protein"], ["MK", "AV"]) == row_key(["protein", "protein"], ["AV", "MK"])
    assert row_key(["dna", "protein"], ["ACA", "TGT"]) != row_key(["dna", "protein"], ["TGT", "ACA"])


def test_groups_never_straddle_a_split(tmp_path: Path) -> None:
    rows = [(dna(), number % 2, f"gene{number // 4}") for number in range(80)]
    write_table(tmp_path / "train.csv", rows, "sequence,label,gene")
    write_table(tmp_path / "test.csv", [(dna(), 0, "gene3"), (dna(), 1, "other")], "sequence,label,gene")
    table = load_task(make(train=["train.csv"], group_column="gene"), tmp_path)
    groups = {split: {row["group"] for row in rows} for split, rows in table.splits.items()}
    assert table.duplicates_removed == {"train row shares a group with test": 4}
    assert groups["dev"] and not groups["train"] & groups["dev"] and not groups["test"] & (groups["train"] | groups["dev"])


def test_dev_is_cut_from_train_where_there_is_none(tmp_path: Path) -> None:
    write_splits(tmp_path, num=100)
    table = load_task(make(train=["train.csv"]), tmp_path)
    assert len(table.splits["train"]) == 90 and len(table.splits["dev"]) == 10
    assert {tuple(row["sequences"]) for row in table.splits["train"]}.isdisjoint(tuple(row["sequences"]) for row in table.splits["dev"])


def test_law_14_relatives_never_straddle_the_split_of_one_file(tmp_path: Path) -> None:
    rows: list[tuple[str, int]] = []
    family_of: dict[str, int] = {}
    for number in range(40):
        gene = dna(200)
        mutant = gene[:100] + ("A" if gene[100] != "A" else "C") + gene[101:]
        for relative in (gene, reverse_complement(gene), gene[20:180], mutant):
            rows.append((relative, number % 2))
            family_of[relative] = number
    write_table(tmp_path / "all.csv", rows)
    table = load_task(make(test=[], files=["all.csv"], dev_fraction=0.2, test_fraction=0.2), tmp_path)
    families = {split: {family_of[row["sequences"][0]] for row in members} for split, members in table.splits.items()}
    assert all(families.values())
    assert not families["train"] & families["test"] and not families["train"] & families["dev"] and not families["dev"] & families["test"]


def test_pairs_of_one_file_share_no_sequence_between_splits(tmp_path: Path) -> None:
    proteins = ["".join(RNG.choices("ACDEFGHIKLMNPQRSTVWY", k=60)) for _ in range(60)]
    rows = [(proteins[2 * number], proteins[2 * number + 1], kind) for number in range(30) for kind in (0, 1)]
    write_table(tmp_path / "all.csv", rows, "a,b,label")
    task = make(family="pair", kinds=["protein", "protein"], columns=["a", "b"], test=[], files=["all.csv"])
    splits = load_task(task, tmp_path).splits
    seen = {split: {sequence for row in rows for sequence in row["sequences"]} for split, rows in splits.items()}
    assert all(seen.values()) and not seen["train"] & seen["test"] and not seen["train"] & seen["dev"]


def test_a_table_of_one_family_cannot_be_split(tmp_path: Path) -> None:
    gene = dna(300)
    write_table(tmp_path / "all.csv", [(gene, 0), (gene, 1), (reverse_complement(gene), 0), (gene[10:], 1)])
    with pytest.raises(InputError, match="groups of relatives"):
        load_task(make(test=[], files=["all.csv"]), tmp_path)


def test_identifiers_are_looked_up_in_their_table(tmp_path: Path) -> None:
    (tmp_path / "proteins.tsv").write_text("protein\tsequence\n" + "".join(f"P{n}\tMK{'ACDE'[n % 4] * (n + 1)}\n" for n in range(20)))
    write_table(tmp_path / "train.csv", [(f"P{n}", f"P{n + 1}", n % 2) for n in range(12)] + [("P1", "Q9", 1)], "a,b,label")
    write_table(tmp_path / "test.csv", [("P14", "P15", 0), ("P16", "P17", 1)], "a,b,label")
    task = make(
        family="pair", kinds=["protein", "protein"], columns=["a", "b"], train=["train.csv"], sequences_table="proteins.tsv",
    )  # fmt: skip
    table = load_task(task, tmp_path)
    assert table.splits["test"][0]["sequences"] == ["MK" + "D" * 15, "MK" + "E" * 16]
    assert table.rejected == {"identifier without a sequence": 1}


# --- numbers ---


def test_regression_bins_come_from_train_alone(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), value) for value in range(1, 11)])
    write_table(tmp_path / "dev.csv", [(dna(), 100), (dna(), 5.4)])
    write_table(tmp_path / "test.csv", [(dna(), 5.5), (dna(), 5.49), (dna(), 1000), (dna(), "n/a")])
    table = load_task(make(family="regression", bins=2, train=["train.csv"], dev=["dev.csv"]), tmp_path)
    assert table.labels == ["low", "high"]
    assert {key: table.bins[key] for key in ("names", "edges", "medians")} == {"names": ["low", "high"], "edges": [5.5], "medians": [3, 8]}
    assert [(row["label"], row["value"]) for row in table.splits["test"]] == [("high", 5.5), ("low", 5.49), ("high", 1000.0)]
    assert table.rejected == {"value is not a number": 1}


@pytest.mark.parametrize(("bins", "names"), [(3, ["low", "medium", "high"]), (5, ["very low", "low", "medium", "high", "very high"]), (6, ["bin 1", "bin 2", "bin 3", "bin 4", "bin 5", "bin 6"])])  # fmt: skip # noqa: E501
def test_regression_with_more_bins(tmp_path: Path, bins: int, names: list[str]) -> None:
    write_table(tmp_path / "train.csv", [(dna(), value) for value in range(120)])
    write_table(tmp_path / "test.csv", [(dna(), -1), (dna(), 500)])
    table = load_task(make(family="regression", train=["train.csv"], bins=bins), tmp_path)
    assert table.labels == names
    assert [row["label"] for row in table.splits["test"]] == [names[0], names[-1]]


def test_values_that_make_no_bins_are_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), 1) for _ in range(20)])
    write_table(tmp_path / "test.csv", [(dna(), 1)])
    with pytest.raises(InputError, match="do not make 2 bins"):
        load_task(make(family="regression", bins=2, train=["train.csv"]), tmp_path)


def test_the_oracle_is_binned_like_the_value(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), value, value) for value in range(20)], "sequence,label,truth")
    write_table(tmp_path / "test.csv", [(dna(), 3, 15), (dna(), 15, 16)], "sequence,label,truth")
    table = load_task(make(family="regression", bins=2, train=["train.csv"], oracle_column="truth"), tmp_path)
    assert [(row["label"], row["oracle"]) for row in table.splits["test"]] == [("low", "high"), ("high", "high")]


# --- caps ---


def test_caps_keep_the_share_of_each_label(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), "rare" if number % 10 == 0 else "common") for number in range(200)])
    write_table(tmp_path / "test.csv", [(dna(), "common"), (dna(), "rare")])
    table = load_task(make(train=["train.csv"], max_train=50, max_dev=10), tmp_path)
    labels = [row["label"] for row in table.splits["train"]]
    assert len(labels) == 50 and labels.count("rare") in (4, 5, 6)
    assert table.left_out["train cap"] == 130


def test_law_15_the_same_seed_gives_the_same_rows_and_another_seed_others(tmp_path: Path) -> None:
    write_splits(tmp_path, num=100)
    task = make(train=["train.csv"], max_train=30, max_test=20)
    assert load_task(task, tmp_path, seed=1) == load_task(task, tmp_path, seed=1)
    assert load_task(task, tmp_path, seed=1).splits != load_task(task, tmp_path, seed=2).splits


def test_balance_keeps_equally_many_of_each_label_and_counts_the_rest(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), "a" if number < 30 else "b") for number in range(40)])
    write_table(tmp_path / "dev.csv", [(dna(), "a"), (dna(), "b")])
    write_table(tmp_path / "test.csv", [(dna(), label) for label in "aaaaabb"])
    table = load_task(make(train=["train.csv"], dev=["dev.csv"], balance=True), tmp_path)
    assert [row["label"] for row in table.splits["train"]].count("a") == 10
    assert table.left_out == {"train balance": 20}
    assert len(table.splits["test"]) == 7


# --- structure and function ---


def test_structure_rows_carry_three_states_and_masked_residues(tmp_path: Path) -> None:
    header = "sequence,states,mask"
    write_table(
        tmp_path / "train.csv", [("MKVLA" + "ACDEF"[n] * 3, "HGTEBSCC", "01111111") for n in range(5)] + [("MKV", "HH", "111")], header
    )
    write_table(tmp_path / "test.csv", [("MKVW", "HHHH", "1111"), ("MKVY", "HHHH", "0000")], header)
    task = make(family="structure", kinds=["protein"], label_column="states", mask_column="mask", train=["train.csv"])
    table = load_task(task, tmp_path)
    assert table.labels == ["alpha helix", "beta sheet", "random coil"]
    assert table.splits["train"][0]["label"] == "-HCEECCC"
    assert table.rejected == {"states, mask and sequence differ in length": 1, "no known state": 1}


def test_function_answers_are_a_closed_list_only_where_they_are_few(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), f"function {number}") for number in range(30)])
    write_table(tmp_path / "test.csv", [(dna(), "something else")])
    write_table(tmp_path / "known.csv", [(dna(), "function 1")])

    def labels(test: str, limit: int) -> list[str]:
        return load_task(make(family="function", train=["train.csv"], test=[test], max_closed_labels=limit), tmp_path).labels

    assert labels("known.csv", 20) == []
    assert len(labels("known.csv", 30)) == 30
    assert labels("test.csv", 30) == []  # an answer that the list lacks could never be right
