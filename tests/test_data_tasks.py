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
        ("max_train: -3\n", "max_train -3; expected 0 or more rows"),
        ("max_test: 0\n", "max_test 0; expected 1 or more rows"),
        (
            "paraphrases: ['So?']\nheld_out_paraphrases: ['So?']\n",
            r"the paraphrase 'So\?' twice; expected each once, trained on or held out",
        ),
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
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"short.yaml is not UTF-8 text; expected a task's YAML file"):
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


def test_train_rows_that_all_repeat_test_rows_are_an_error_that_counts_them(tmp_path: Path) -> None:
    rows = [(dna(), number % 2) for number in range(4)]
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.csv", rows)
    with pytest.raises(InputError, match=r"task 'core' has no train row left; .*Dropped: \{'train row repeats test': 4\}"):
        load_task(make(train=["train.csv"]), tmp_path)


def test_labels_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.csv", [(dna(), number % 2) for number in range(8)])
    with pytest.raises(InputError, match="labels 'yes' and 'Yes' differ in case only; expected labels that an answer tells apart"):
        load_task(make(train=["train.csv"], labels={"0": "yes", "1": "Yes"}), tmp_path)


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


# --- strands ---


@pytest.mark.parametrize(
    ("values", "strand"),
    [
        ({"kinds": ["protein"]}, ""),
        ({"family": "structure", "strand": ""}, "sense"),
        ({"family": "pair", "kinds": ["dna", "protein"], "columns": ["a", "b"]}, "sense"),
        ({"family": "pair", "kinds": ["dna", "dna"], "columns": ["a", "b"], "strand": "either"}, "either"),
        ({"strand": "either"}, "either"),
    ],
)
def test_every_task_knows_its_strand(values: dict[str, Any], strand: str) -> None:
    assert make(**values).strand == strand


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strand": ""}, "does not say its strand; expected either .* or sense"),
        ({"family": "pair", "kinds": ["rna", "rna"], "columns": ["a", "b"]}, "does not say its strand"),
        ({"kinds": ["protein"], "strand": "sense"}, "proteins have no other strand. Remove strand"),
        ({"family": "pair", "kinds": ["dna", "protein"], "columns": ["a", "b"], "strand": "either"}, "read on the strand as given"),
        ({"family": "structure", "strand": "either"}, "read on the strand as given"),
        ({"strand": "sense", "augment_reverse_complement": True}, "augment_reverse_complement and strand 'sense'"),
        ({"kinds": ["protein"], "augment_reverse_complement": True}, "augment_reverse_complement and strand 'none'"),
    ],
)
def test_a_strand_that_a_task_has_not_or_does_not_say_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**values)


def test_the_other_strand_is_added_to_train_alone_and_a_palindrome_once(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [("AAAAC", 0), ("ACGT", 1), ("CCCCA", 1)])
    write_table(tmp_path / "dev.csv", [("AAGGA", 0)])
    write_table(tmp_path / "test.csv", [("TTTCA", 0)])
    table = load_task(make(train=["train.csv"], dev=["dev.csv"], strand="either", augment_reverse_complement=True), tmp_path)
    assert [(row["sequences"], row["label"]) for row in table.splits["train"]] == [
        (["AAAAC"], "0"), (["GTTTT"], "0"), (["ACGT"], "1"), (["CCCCA"], "1"), (["TGGGG"], "1"),
    ]  # fmt: skip
    assert table.num_augmented == 2 and len(table.splits["dev"]) == len(table.splits["test"]) == 1


# --- several labels ---


def test_rows_keep_all_their_labels_in_the_order_of_the_list(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), label) for label in ("3;1", "1;1", "2", "3") * 5])
    write_table(tmp_path / "test.csv", [(dna(), "2 ; 1"), (dna(), "3;2;1")])
    task = make(train=["train.csv"], labels={"1": "one", "2": "two", "3": "three"}, label_separator=";", multi_label=True)
    table = load_task(task, tmp_path)
    assert [(row["answers"], row["label"]) for row in table.splits["test"]] == [
        (["one", "two"], "one, two"),
        (["one", "two", "three"], "one, two, three"),
    ]
    assert table.rejected == {} and table.labels == ["one", "two", "three"]


def test_an_unknown_label_among_several_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "test.csv", [(dna(), "1"), (dna(), "1;9")])
    with pytest.raises(InputError, match=r"test.csv, line 3: label '9'"):
        load_task(make(labels={"1": "one", "2": "two"}, label_separator=";", multi_label=True), tmp_path)


def ec_task(level: int, **changes: Any) -> Task:
    values: dict[str, Any] = {"family": "function", "train": ["train.csv"], "label_separator": "|", "multi_label": True, "ec_level": level}
    return make(**{**values, **changes})


def test_ec_numbers_are_cut_to_a_level_and_those_not_known_so_far_are_counted(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), ec) for ec in ("1.1.1.1|1.1.2.-", "2.7.1.17|1.1.3.4", "3.4.-.-") * 4])
    write_table(tmp_path / "test.csv", [(dna(), "2.7.4.1|1.1.-.-|2.7.1.1"), (dna(), "3.4.-.-")])

    def answers(level: int) -> list[list[str]]:
        return [row["answers"] for row in load_task(ec_task(level), tmp_path).splits["test"]]

    assert answers(1) == [["1", "2"], ["3"]]
    assert answers(2) == [["1.1", "2.7"], ["3.4"]]
    assert answers(3) == [["2.7.1", "2.7.4"]]
    table = load_task(ec_task(3), tmp_path)
    assert table.rejected == {"no EC number that is known at level 3": 5}
    assert table.dropped_labels == {"EC number not known at level 3": 1}


def test_ec_numbers_of_a_single_label_task_are_cut_before_they_are_compared(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), ec) for ec in ("1.1.1.1|1.2.2.2", "2.7.1.17|1.1.3.4", "3.4.1.1") * 4])
    write_table(tmp_path / "test.csv", [(dna(), "1.1.1.1")])
    table = load_task(ec_task(1, multi_label=False), tmp_path)
    assert table.labels == ["1", "3"] and table.rejected == {"several different labels": 4}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"multi_label": True}, "multi_label without label_separator"),
        ({"multi_label": True, "label_separator": ";", "labels": {"0": "a, b", "1": "c"}}, "no ', ', which separates"),
        ({"ec_level": 5}, "ec_level 5; expected 1 to 4"),
        ({"family": "pair", "kinds": ["dna", "protein"], "columns": ["a", "b"], "multi_label": True}, "a pair task with multi_label"),
        ({"bins": 3}, "a classification task with bins"),
        ({"form": "token"}, "a classification task with form"),
        ({"family": "structure", "strand": "", "form": "tokens"}, "form 'tokens'.*Did you mean 'token'"),
        ({"family": "structure", "strand": "", "tie_order": ["H", "E"]}, "tie_order H, E; expected each state of H, E, C once"),
        ({"family": "structure", "strand": "", "labels": {"EX": "exon", "I": "intron"}}, "state 'EX'; expected one letter"),
        ({"family": "regression", "train": ["a"], "threshold": 0.5, "bins": 4}, "a threshold and 4 bins"),
        ({"positive": "yes", "labels": {"0": "no", "1": "maybe"}}, "positive 'yes'; expected one of no, maybe"),
        ({"prior": 1.0}, "prior 1.0; expected a share"),
        ({"paraphrases": ["Is it {labls}?"]}, r"paraphrase .* has \{labls\}; expected \{kind\}, \{labels\}, \{title\}"),
    ],
)
def test_values_that_contradict_each_other_or_would_do_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**values)


# --- one class, labels that begin one another ---


@pytest.mark.parametrize("labels", [{}, {"0": "no", "1": "yes"}])
def test_a_task_with_one_class_is_refused(tmp_path: Path, labels: dict[str, str]) -> None:
    write_table(tmp_path / "train.csv", [(dna(), 1) for _ in range(20)])
    write_table(tmp_path / "test.csv", [(dna(), 1)])
    with pytest.raises(InputError, match="task 'core': every row has the label '(1|yes)'; expected two labels or more"):
        load_task(make(train=["train.csv"], labels=labels), tmp_path)
    with pytest.raises(InputError, match="every row has the label"):
        load_task(make(test=["test.csv"], labels={"1": "yes"}), tmp_path)


def test_a_label_that_begins_another_is_allowed(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), "ab"[number % 2]) for number in range(20)])
    write_table(tmp_path / "test.csv", [(dna(), "a"), (dna(), "b")])
    table = load_task(make(train=["train.csv"], labels={"a": "high", "b": "high expression"}), tmp_path)
    assert table.labels == ["high", "high expression"] and [row["label"] for row in table.splits["test"]] == table.labels


# --- pairs ---


def test_test_pairs_are_told_apart_by_how_many_members_were_trained_on(tmp_path: Path) -> None:
    seen, new = [dna(30) for _ in range(4)], [dna(30) for _ in range(4)]
    write_table(tmp_path / "train.csv", [(seen[0], seen[1], 1), (seen[2], seen[3], 0)], "a,b,label")
    write_table(tmp_path / "dev.csv", [(new[0], new[3], 1)], "a,b,label")
    pairs = [(reverse_complement(seen[1]), seen[3], 1), (seen[0], new[0], 0), (new[1], seen[2], 1), (new[1], new[2], 0)]
    write_table(tmp_path / "test.csv", pairs, "a,b,label")
    task = make(family="pair", kinds=["dna", "dna"], columns=["a", "b"], train=["train.csv"], dev=["dev.csv"])
    table = load_task(task, tmp_path)
    assert [row["subsets"] for row in table.splits["test"]] == [["C1"], ["C2"], ["C2"], ["C3"]]
    assert table.splits["dev"][0]["subsets"] == ["C3"] and "subsets" not in table.splits["train"][0]


def test_seen_members_are_those_of_the_rows_that_are_trained_on_after_the_cap(tmp_path: Path) -> None:
    rows = [(dna(30), dna(30), number % 2) for number in range(40)]
    write_table(tmp_path / "train.csv", rows, "a,b,label")
    write_table(tmp_path / "test.csv", [(a, rows[number - 1][1], kind) for number, (a, _, kind) in enumerate(rows)], "a,b,label")
    task = make(family="pair", kinds=["dna", "dna"], columns=["a", "b"], train=["train.csv"], max_train=10)
    names = [row["subsets"][0] for row in load_task(task, tmp_path).splits["test"]]
    assert names.count("C1") < 20 and "C3" in names


def test_subsets_and_sources_of_a_table_are_kept(tmp_path: Path) -> None:
    header = "sequence,label,kind,place"
    write_table(tmp_path / "test.csv", [(dna(), 0, "negative: frameshift", "genome:7"), (dna(), 1, "", "genome:8")], header)
    table = load_task(make(subset_column="kind", source_column="place"), tmp_path)
    assert [(row["subsets"], row["source"]) for row in table.splits["test"]] == [
        (["negative: frameshift"], "genome:7"),
        ([], "genome:8"),
    ]


# --- more numbers ---


def test_ten_bins_are_the_default_and_a_test_far_from_train_is_seen_by_its_shares(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), value) for value in range(100)])
    write_table(tmp_path / "dev.csv", [(dna(), 10), (dna(), 90)])
    write_table(tmp_path / "test.csv", [(dna(), value) for value in (49.4, 50, 60, 1000)])
    table = load_task(make(family="regression", train=["train.csv"], dev=["dev.csv"]), tmp_path)
    assert len(table.labels) == 10 and table.labels[-1] == "bin 10" and len(table.bins["edges"]) == 9
    assert table.bins["edges"][4] == table.bins["low_high"]["edge"] == 49.5
    assert table.bins["low_high"]["shares"]["test"] == {"low": 0.25, "high": 0.75}
    assert [row["label"] for row in table.splits["test"]] == ["bin 5", "bin 6", "bin 7", "bin 10"]


def test_a_threshold_makes_two_classes_whatever_train_holds(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [(dna(), value / 10) for value in range(10)])
    write_table(tmp_path / "dev.csv", [(dna(), 0.1)])
    write_table(tmp_path / "test.csv", [(dna(), 0.5), (dna(), 0.499)])
    table = load_task(make(family="regression", train=["train.csv"], dev=["dev.csv"], threshold=0.5), tmp_path)
    assert [row["label"] for row in table.splits["test"]] == ["high", "low"]  # the paper: greater than or equal to 0.5 is high
    assert (table.bins["edges"], table.bins["low_high"]["edge"]) == ([0.5], 0.5)
    assert table.bins["low_high"]["shares"]["test"] == {"low": 0.5, "high": 0.5}
    with pytest.raises(InputError, match="do not make 2 bins.*Set another threshold"):
        load_task(make(family="regression", train=["train.csv"], dev=["dev.csv"], threshold=9.0), tmp_path)


# --- states of one's own ---


def test_states_and_their_names_are_data(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.csv", [(dna(6), "OEEIx-"[:5] + "-")] if split == "train" else [(dna(4), "OEI-")], "sequence,label")
    labels = {"E": "exon", "I": "intron", "O": "other", "x": "exon"}
    task = make(family="structure", strand="", labels=labels, train=["train.csv"], tie_order=["I", "E", "O"])
    table = load_task(task, tmp_path)
    assert table.labels == ["exon", "intron", "other"]
    assert [row["label"] for row in table.splits["test"]] == ["OEI-"]
    with pytest.raises(InputError, match=r"train.csv, line 2: 'x' is not a state; expected E I O, or '-' for unknown"):
        load_task(make(family="structure", strand="", labels={k: v for k, v in labels.items() if k != "x"}, train=["train.csv"]), tmp_path)
