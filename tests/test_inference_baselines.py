"""Each baseline finds a signal that was planted for it, none finds one in shuffled labels, and each says why where it does not apply."""

from __future__ import annotations

import csv
import gzip
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.errors import ConfigError, InputError, MachineError
from llama_gene.inference import metrics
from llama_gene.inference.baselines.neighbour import find_hits
from llama_gene.inference.baselines.panel import NAMES, TITLES, run_baselines
from llama_gene.inference.baselines.rows import Baseline, majority_baseline, read_target, shuffle_labels
from llama_gene.inference.baselines.simple import count_mutations, threshold_scores, wild_type

Row = dict[str, Any]
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def text(rng: random.Random, letters: str, length: int, weights: list[int] | None = None) -> str:
    return "".join(rng.choices(letters, weights, k=length))


def many(make: Callable[[random.Random, int], Row], num: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    return [make(rng, i) for i in range(num)]


def gc_row(rng: random.Random, i: int) -> Row:
    return {"sequences": [text(rng, "ACGT", 60, [1, 2, 2, 1] if i % 2 else [2, 1, 1, 2])], "output": "yes" if i % 2 else "no"}


def place_row(rng: random.Random, i: int) -> Row:  # G at place 7 or at place 8: the same 1-mers, and 3-mers that say nothing
    body = text(rng, "ACT", 20)
    return {"sequences": [body[:7] + "G" + body[7:] if i % 2 else body[:8] + "G" + body[8:]], "output": "yes" if i % 2 else "no"}


def mutate(rng: random.Random, sequence: str, share: float, letters: str = "ACGT") -> str:
    return "".join(rng.choice(letters) if rng.random() < share else letter for letter in sequence)


def family_rows(letters: str, num: int, seed: int) -> list[Row]:
    """Rows of eight families with random letters; the class is the family's, so that only relatives tell it."""
    parents = [text(random.Random(n), letters, 90) for n in range(8)]
    rng = random.Random(seed)
    return [{"sequences": [mutate(rng, parents[i % 8], 0.2, letters)], "output": ["no", "yes"][i % 8 in (0, 3, 5, 6)]} for i in range(num)]


def accuracy(found: Baseline, rows: list[Row], labels: list[str]) -> float:
    assert found.scores is not None and found.scores.shape == (len(rows), len(labels)), found.reason
    return float(np.mean([labels[k] == row["output"] for k, row in zip(found.scores.argmax(1), rows, strict=True)]))


def test_every_name_has_a_title_and_an_unknown_one_is_refused_with_the_nearest() -> None:
    assert set(TITLES) == set(NAMES)
    with pytest.raises(ConfigError, match="Did you mean 'neighbour'"):
        run_baselines(["neighbor"], [{"sequences": ["A"], "output": "x"}], [{"sequences": ["A"]}], ["dna"], "classification", ["x"])
    with pytest.raises(InputError, match="no row to answer"):
        run_baselines(["gc"], [{"sequences": ["A"], "output": "x"}], [], ["dna"], "classification", ["x"])


def test_what_does_not_apply_says_why_and_nothing_is_left_out() -> None:
    rows = many(gc_row, 20, 0)
    found = run_baselines(NAMES, rows, rows[:3], ["dna"], "classification", ["no", "yes"])
    assert list(found) == list(NAMES)
    assert {name: one.reason for name, one in found.items() if not one.is_there} == {
        "identity": "rows are no pairs",
        "translation": "rows are no pairs of DNA and protein",
        "kmer_ridge": "the task is no regression",
        "positional_ridge": "the task is no regression",
        "mutations": "the task is no regression",
    }
    untrained = run_baselines(NAMES, [], rows, ["dna"], "classification", ["no", "yes"])
    assert {one.reason for one in untrained.values()} == {"no training row has an answer"}
    protein = [{"sequences": ["MKV"], "output": "a"}, {"sequences": ["MKL"], "output": "b"}]
    assert run_baselines(["gc"], protein, protein, ["protein"], "classification", ["a", "b"])["gc"].reason == "no sequence is DNA or RNA"


def test_the_majority_answers_the_commonest_label_and_ties_go_by_name() -> None:
    rows = [{"sequences": ["A"], "output": output} for output in ("b", "a", "c", "a", "b")]
    found = run_baselines(["majority"], rows, rows, ["dna"], "classification", ["c", "b", "a"])["majority"]
    assert found.scores is not None and set(found.scores.argmax(1).tolist()) == {2} and majority_baseline(rows) == "a"
    np.testing.assert_allclose(found.scores[0], [0.2, 0.4, 0.4], atol=1e-8)


def test_gc_finds_a_planted_composition_and_names_the_threshold() -> None:
    train, test = many(gc_row, 200, 0), many(gc_row, 100, 1)
    found = run_baselines(["gc"], train, test, ["dna"], "classification", ["no", "yes"])["gc"]
    assert accuracy(found, test, ["no", "yes"]) > 0.95 and found.note.startswith("'yes' from 0.")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=2, max_size=24))
def test_no_threshold_is_better_on_train_than_the_one_that_is_fitted(points: list[tuple[int, int]]) -> None:
    values, classes = np.array([x for x, _ in points], float), np.array([c for _, c in points])
    scores, _, _ = threshold_scores(values, classes, values)
    best = max(np.mean((values > cut) == (classes == side)) for cut in np.arange(-0.5, 7) for side in (0, 1))
    assert np.mean(scores.argmax(1) == classes) == pytest.approx(best)


def test_three_classes_of_gc_are_told_apart_by_linear_discriminants() -> None:
    def make(rng: random.Random, i: int) -> Row:
        return {"sequences": [text(rng, "ACGT", 80, [[3, 1, 1, 3], [1, 1, 1, 1], [1, 3, 3, 1]][i % 3])], "output": "abc"[i % 3]}

    train, test = many(make, 150, 0), many(make, 90, 1)
    assert accuracy(run_baselines(["gc"], train, test, ["dna"], "classification", list("abc"))["gc"], test, list("abc")) > 0.9


def test_a_letter_by_its_place_is_seen_by_place_and_not_by_kmers() -> None:
    train, test = many(place_row, 300, 0), many(place_row, 200, 1)
    found = run_baselines(["kmer", "positional"], train, test, ["dna"], "classification", ["no", "yes"])
    assert accuracy(found["positional"], test, ["no", "yes"]) == 1.0 and found["positional"].note == "21 places"
    assert accuracy(found["kmer"], test, ["no", "yes"]) < 0.65


def test_rows_of_different_lengths_are_read_from_both_ends() -> None:
    def make(rng: random.Random, i: int) -> Row:  # the last letter but one tells
        return {"sequences": [text(rng, "ACDE", rng.randrange(60, 200)) + ("KW" if i % 2 else "WK")], "output": "yes" if i % 2 else "no"}

    train, test = many(make, 200, 0), many(make, 100, 1)
    found = run_baselines(["positional"], train, test, ["protein"], "classification", ["no", "yes"])["positional"]
    assert accuracy(found, test, ["no", "yes"]) > 0.97 and found.note == "the first and last 50 letters"


@pytest.mark.parametrize("kind", ["dna", "protein"])
def test_the_nearest_neighbour_finds_the_family_and_strangers_get_the_majority(kind: str) -> None:
    letters = "ACGT" if kind == "dna" else RESIDUES
    train, test = family_rows(letters, 80, 50), family_rows(letters, 40, 51)
    stranger = {"sequences": [text(random.Random(99), letters, 90)], "output": "no"}
    more = [{"sequences": [text(random.Random(1000 + i), letters, 90)], "output": "no"} for i in range(5)]
    found = run_baselines(["neighbour"], [*train, *more], [*test, stranger], [kind], "classification", ["yes", "no"], engine="package")[
        "neighbour"
    ]
    assert found.scores is not None and accuracy(found, [*test, stranger], ["yes", "no"]) == 1.0
    assert found.coverage == pytest.approx(40 / 41) and found.note == "by this package's search"
    np.testing.assert_allclose(found.scores[-1], [40 / 85, 45 / 85], atol=1e-6)


def test_a_row_that_train_holds_is_its_own_neighbour_and_equal_rows_share_their_answers() -> None:
    rows = [{"sequences": ["AAAAAAAAAA"], "output": output} for output in ("yes", "yes", "no")]
    found = run_baselines(["neighbour"], rows, rows[:1], ["dna"], "classification", ["no", "yes"], engine="package")["neighbour"]
    assert found.scores is not None and found.coverage == 1.0
    np.testing.assert_allclose(found.scores, [[1 / 3, 2 / 3]])


def test_a_sense_task_has_no_neighbour_on_the_other_strand() -> None:
    from llama_gene.sequences.alphabet import reverse_complement

    parents = [text(random.Random(n), "ACGT", 120) for n in range(6)]
    train = [{"sequences": [parent], "output": "yes" if n % 2 else "no"} for n, parent in enumerate(parents)]
    for strand, share in (("either", 1.0), ("sense", 0.0)):
        test = [{"sequences": [reverse_complement(parent, "dna")], "output": "yes", "strand": strand} for parent in parents]
        found = run_baselines(["neighbour"], train, test, ["dna"], "classification", ["no", "yes"], engine="package")["neighbour"]
        assert found.coverage == share


def test_free_text_gets_the_neighbours_text_or_the_commonest() -> None:
    rng = random.Random(0)
    parents = {"kinase": text(rng, RESIDUES, 90), "transporter": text(rng, RESIDUES, 90)}
    train = [{"sequences": [mutate(rng, parents[n], 0.2, RESIDUES)], "output": n} for n in ("kinase", "kinase", "transporter")]
    test = [{"sequences": [mutate(rng, parents["transporter"], 0.2, RESIDUES)]}, {"sequences": [text(rng, RESIDUES, 90)]}]
    found = run_baselines(["majority", "neighbour", "kmer"], train, test, ["protein"], "function", [], engine="package")
    assert found["neighbour"].answers == ["transporter", "kinase"] and found["neighbour"].coverage == 0.5
    assert found["majority"].answers == ["kinase", "kinase"] and found["kmer"].reason == "the answers are free text"


FAKE = """#!/bin/sh
# writes what a search would: query 0 hits target 1 (52.5 bits) and target 0 (31 bits)
echo "$@" >> {log}
case "$1 $2" in
  "easy-search "*) printf '0\\t1\\t52.5\\n0\\t0\\t31\\n' > "$4" ;;
  "blastp "*) while [ "$1" != --out ]; do shift; done; printf '0\\t1\\t52.5\\n0\\t0\\t31\\n' > "$2" ;;
  "makedb "*) ;;
  *) echo "unknown command" >&2; exit 3 ;;
esac
"""


@pytest.mark.parametrize(("program", "kind"), [("mmseqs", "dna"), ("mmseqs", "protein"), ("diamond", "protein")])
def test_a_program_on_path_is_asked_and_its_bits_rank_the_hits(
    program: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / program
    fake.write_text(FAKE.format(log=tmp_path / "log"))
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    hits, name = find_hits(["ACGTACGTAA"], ["ACGTTTTTAA", "CCGTACGTAC", "GGGGCCCCGG"], kind)
    assert name == {"mmseqs": "MMseqs2", "diamond": "DIAMOND"}[program]
    assert hits["ACGTACGTAA"] == {"CCGTACGTAC": 52.5, "ACGTTTTTAA": 31.0}
    words = (tmp_path / "log").read_text()
    assert ("--search-type 3 --strand 2" in words) is (kind == "dna")


def test_a_program_that_is_missing_or_fails_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ConfigError, match="there is no 'mmseqs' on PATH"):
        find_hits(["ACGT"], ["ACGA"], "dna", "mmseqs")
    with pytest.raises(ConfigError, match="DIAMOND is asked to align dna"):
        find_hits(["ACGT"], ["ACGA"], "dna", "diamond")
    fake = tmp_path / "mmseqs"
    fake.write_text("#!/bin/sh\necho 'no memory' >&2\nexit 1\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(MachineError, match="mmseqs easy-search failed: no memory"):
        find_hits(["ACGT"], ["ACGA"], "dna", "mmseqs")


# --- pairs -----------------------------------------------------------------------------------------------------------------------


def pair_rows(num: int, seed: int) -> list[Row]:
    """Pairs of ten proteins; those with an odd number interact with all."""
    members = [text(random.Random(n), RESIDUES, 70) for n in range(10)]
    rng = random.Random(seed)
    rows = []
    for _ in range(num):
        one, two = rng.sample(range(10), 2)
        rows.append({"sequences": [members[one], members[two]], "output": "yes" if one % 2 or two % 2 else "no"})
    return rows


def test_identity_alone_tells_which_proteins_are_promiscuous_and_nothing_of_unseen_ones() -> None:
    train, test = pair_rows(300, 0), pair_rows(60, 1)
    stranger = {"sequences": ["MKVLA", "GGGGG"], "output": "no"}
    found = run_baselines(["identity"], train, [*test, stranger], ["protein", "protein"], "pair", ["no", "yes"])["identity"]
    assert accuracy(found, [*test, stranger], ["no", "yes"]) > 0.9
    assert found.scores is not None and found.coverage == pytest.approx(60 / 61) and found.note == "10 members in train"
    turned = [{**row, "sequences": row["sequences"][::-1]} for row in test]
    again = run_baselines(["identity"], train, turned, ["protein", "protein"], "pair", ["no", "yes"])["identity"]
    assert again.scores is not None
    np.testing.assert_allclose(again.scores, found.scores[:-1], atol=1e-12)  # of one kind, the order does not count


def test_a_pairs_neighbour_needs_a_hit_of_both_members_either_way_round() -> None:
    one, two, three = (text(random.Random(n), RESIDUES, 80) for n in range(3))
    train = [
        {"sequences": [one, two], "output": "yes"},
        {"sequences": [two, three], "output": "no"},
        {"sequences": [one, "MKV"], "output": "no"},
    ]
    rng = random.Random(9)
    near = [mutate(rng, member, 0.15, RESIDUES) for member in (one, two, three)]
    test = [{"sequences": pair} for pair in ([near[0], near[1]], [near[1], near[0]], [near[2], near[1]], [near[0], near[2]])]
    found = run_baselines(["neighbour"], train, test, ["protein", "protein"], "pair", ["no", "yes"], engine="package")["neighbour"]
    assert found.scores is not None and found.coverage == 0.75
    np.testing.assert_allclose(found.scores, [[0, 1], [0, 1], [1, 0], [2 / 3, 1 / 3]], atol=1e-6)


def test_translation_is_a_threshold_on_the_given_match() -> None:
    def make(rng: random.Random, i: int) -> Row:
        return {"sequences": ["ACG" * 5, text(rng, "MK", 30, [3, 1] if i % 2 else [1, 3])], "output": "Conform" if i % 2 else "Not Conform"}

    train, test = many(make, 100, 0), many(make, 60, 1)
    labels = ["Not Conform", "Conform"]
    kinds = ["dna", "protein"]
    found = run_baselines(
        ["translation"], train, test, kinds, "pair", labels, translation=lambda dna, protein: protein.count("M") / len(dna)
    )
    assert accuracy(found["translation"], test, labels) > 0.95
    turned = [{**row, "sequences": row["sequences"][::-1]} for row in test]
    backwards = run_baselines(
        ["translation"], [{**row, "sequences": row["sequences"][::-1]} for row in train], turned, kinds[::-1], "pair", labels,
        translation=lambda dna, protein: protein.count("M") / len(dna),
    )  # fmt: skip
    assert accuracy(backwards["translation"], turned, labels) > 0.95
    missing = run_baselines(["translation"], train, test, kinds, "pair", labels)["translation"]
    assert missing.reason == "no function that matches DNA and protein was given"


# --- regression ------------------------------------------------------------------------------------------------------------------


def mutants(num: int, seed: int, most: int) -> list[Row]:
    """Mutants of one protein; each mutation costs one, and W at place 3 gives three."""
    wild = text(random.Random(5), RESIDUES, 60)
    rng = random.Random(seed)
    rows = []
    for _ in range(num):
        letters, places = list(wild), rng.sample(range(60), rng.randrange(1, most + 1))
        for place in places:
            letters[place] = rng.choice([letter for letter in RESIDUES if letter != wild[place]])
        value = 10.0 - len(places) + rng.gauss(0, 0.1)
        rows.append({"sequences": ["".join(letters)], "value": value, "output": "high" if value >= 8.5 else "low"})
    return rows


def test_the_mutation_count_ranks_mutants_beyond_the_counts_of_train() -> None:
    train, test = mutants(200, 0, most=3), mutants(100, 1, most=8)
    found = run_baselines(["mutations"], train, test, ["protein"], "regression", ["low", "high"])["mutations"]
    assert found.numbers is not None and found.scores is not None
    assert metrics.spearman([row["value"] for row in test], found.numbers) > 0.95
    assert found.numbers.min() < 4.0  # a line: eight mutations cost more than three
    assert found.note == "letters other than the commonest of train: 1 to 3 there, 1 to 8 here, a straight line"[: len(found.note)]
    assert accuracy(found, test, ["low", "high"]) > 0.9


def test_what_is_no_library_has_no_wild_type() -> None:
    rng = random.Random(0)
    assert wild_type([text(rng, "ACGT", 50) for _ in range(30)]) is None
    assert wild_type(["ACGT", "ACG", "ACGA"]) is None
    rows = [{"sequences": [text(rng, "ACGT", 50)], "value": rng.random(), "output": "low"} for _ in range(20)]
    found = run_baselines(["mutations"], rows, rows, ["dna"], "regression", ["low", "high"])["mutations"]
    assert found.reason == "the rows are no library of mutants of one sequence"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text("ACX", min_size=6, max_size=6), min_size=3, max_size=12),
    st.lists(st.text("ACGX", min_size=6, max_size=6), min_size=1, max_size=6),
)
def test_the_nearest_mutants_are_those_of_the_least_hamming_distance(targets: list[str], queries: list[str]) -> None:
    from llama_gene.inference.baselines import neighbour

    there, asked = list(dict.fromkeys(targets)), list(dict.fromkeys(queries))
    for query, hits in neighbour._mutant_hits(asked, there).items():
        distances = {target: int(count_mutations([target], query)[0]) for target in there}
        nearest = min(distances.values())
        assert hits == {target: -float(nearest) for target, distance in distances.items() if distance == nearest}


def test_ridge_predicts_a_value_in_its_own_unit_and_its_bin() -> None:
    def make(rng: random.Random, i: int) -> Row:
        sequence = text(rng, "ACGT", 30)
        value = 100.0 + 10 * sequence[4:20].count("G")
        return {"sequences": [sequence], "value": value, "output": "high" if value >= 140 else "low"}

    train, test = many(make, 300, 0), many(make, 100, 1)
    names = ["kmer_ridge", "positional_ridge", "neighbour", "majority", "gc", "kmer"]
    found = run_baselines(names, train, test, ["dna"], "regression", ["low", "high"], engine="package")
    truth = np.array([row["value"] for row in test])
    ridge = found["positional_ridge"]
    assert ridge.numbers is not None and metrics.spearman(truth, ridge.numbers) > 0.97 and np.abs(ridge.numbers - truth).mean() < 5
    assert accuracy(ridge, test, ["low", "high"]) > 0.9
    for one in found.values():
        assert one.numbers is not None and one.scores is not None and 100 <= one.numbers.mean() <= 180


# --- several labels a row --------------------------------------------------------------------------------------------------------


def label_set_row(rng: random.Random, i: int) -> Row:
    marks = {"W": rng.random() < 0.5, "F": rng.random() < 0.3}
    body = text(rng, "ACDEGHIK", 40) + "".join(letter * 4 for letter, is_there in marks.items() if is_there)
    answers = [name for name, letter in (("zinc", "W"), ("iron", "F")) if marks[letter]]
    return {"sequences": [body], "answers": answers, "output": ", ".join(answers)}


def test_a_label_of_several_is_found_by_itself() -> None:
    train, test = many(label_set_row, 200, 0), many(label_set_row, 100, 1)
    labels = ["zinc", "iron"]
    found = run_baselines(
        ["majority", "kmer", "positional", "neighbour", "gc"], train, test, ["protein"], "function", labels, engine="package"
    )
    truth = np.array([[label in row["answers"] for label in labels] for row in test])
    kmer = found["kmer"].scores
    assert kmer is not None and ((kmer > 0.5) == truth).mean() > 0.95 and kmer.sum(1).max() > 1.5  # two labels may both be certain
    shares = np.array([[label in row["answers"] for label in labels] for row in train]).mean(0)
    assert found["majority"].scores is not None
    np.testing.assert_allclose(found["majority"].scores, np.tile(shares, (100, 1)))


def test_rows_with_an_unknown_answer_are_not_trained_on_and_an_empty_set_of_labels_is_an_answer() -> None:
    target = read_target([{"output": "a"}, {"output": "z"}, {"output": "b"}], ["a", "b"], "classification")
    assert target.rows == [0, 2] and target.classes.tolist() == [0, 1] and not target.is_multi
    several = read_target([{"output": "a, b", "answers": ["a", "b"]}, {"output": "", "answers": []}], ["a", "b"], "function")
    assert several.is_multi and several.marks.tolist() == [[1.0, 1.0], [0.0, 0.0]]


# --- the control -----------------------------------------------------------------------------------------------------------------


def test_shuffled_labels_keep_their_counts_and_move_with_their_values() -> None:
    rows = [{"sequences": [str(i)], "output": "yes" if i % 3 else "no", "value": float(i % 3)} for i in range(30)]
    shuffled = shuffle_labels(rows, 1)
    assert [row["sequences"] for row in shuffled] == [row["sequences"] for row in rows]
    assert sorted(row["output"] for row in shuffled) == sorted(row["output"] for row in rows)
    assert all((row["output"] == "yes") is (row["value"] > 0) for row in shuffled)
    assert shuffled != rows and shuffle_labels(rows, 1) == shuffled and shuffle_labels(rows, 2) != shuffled


CONTROLS: dict[str, tuple[list[Row], list[Row], list[str], str, list[str]]] = {
    "gc": (many(gc_row, 300, 0), many(gc_row, 400, 1), ["dna"], "classification", ["no", "yes"]),
    "kmer": (many(gc_row, 300, 0), many(gc_row, 400, 1), ["dna"], "classification", ["no", "yes"]),
    "positional": (many(place_row, 300, 0), many(place_row, 400, 1), ["dna"], "classification", ["no", "yes"]),
    "neighbour": (family_rows("ACGT", 80, 50), family_rows("ACGT", 120, 51), ["dna"], "classification", ["no", "yes"]),
    "identity": (pair_rows(300, 0), pair_rows(300, 1), ["protein", "protein"], "pair", ["no", "yes"]),
    "mutations": (mutants(300, 0, 3), mutants(300, 1, 8), ["protein"], "regression", ["low", "high"]),
    "positional_ridge": (mutants(300, 0, 3), mutants(300, 1, 8), ["protein"], "regression", ["low", "high"]),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_with_shuffled_labels_a_baseline_sits_at_the_majority(name: str) -> None:
    train, test, kinds, family, labels = CONTROLS[name]
    found = [
        run_baselines([name, "majority"], shuffle_labels(train, seed), test, kinds, family, labels, engine="package") for seed in range(6)
    ]
    if family == "regression":
        truth = [row["value"] for row in test]
        assert abs(np.mean([metrics.spearman(truth, one[name].numbers) for one in found])) < 0.6  # one line: +1 or -1 by chance
        spread = np.mean([np.std(one[name].numbers) for one in found])
        assert spread < 0.5 * np.std(truth)
        return
    mean = np.mean([accuracy(one[name], test, labels) for one in found])
    majority = max(np.mean([row["output"] == label for row in test]) for label in labels)
    assert mean < majority + 0.06


def test_every_baseline_gives_the_same_twice() -> None:
    train, test = many(gc_row, 60, 0), many(gc_row, 20, 1)
    names = ["majority", "gc", "kmer", "positional", "neighbour"]
    once, again = (run_baselines(names, train, test, ["dna"], "classification", ["no", "yes"], engine="package") for _ in range(2))
    for name in names:
        np.testing.assert_array_equal(once[name].scores, again[name].scores)


# --- the same on real rows, beside what others measured ----------------------------------------------------------------------------


def real_rows(folder: str, split: str, columns: list[str], label: str, num: int = 0) -> list[Row]:
    """Rows of a shared task; `num` of them, drawn with a seed."""
    data = os.environ.get("LLAMA_GENE_DATA")
    if data is None:
        pytest.skip("LLAMA_GENE_DATA is not set")
    path = next((Path(data) / "tasks" / folder).glob(f"{split}.csv*"))
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as handle:
        rows = [{"sequences": [line[column] for column in columns], "output": line[label]} for line in csv.DictReader(handle)]
    return random.Random(0).sample(rows, num) if num else rows


@pytest.mark.real_data
def test_a_gc_threshold_tells_promoters_as_often_as_others_measured() -> None:
    train, test = (real_rows("gue_prom_core_all", split, ["sequence"], "label") for split in ("train", "test"))
    found = run_baselines(["gc"], train, test, ["dna"], "classification", ["0", "1"])["gc"]
    assert accuracy(found, test, ["0", "1"]) == pytest.approx(0.684, abs=0.01)


@pytest.mark.real_data
def test_the_members_alone_tell_four_of_five_yeast_pairs() -> None:
    train, test = (real_rows("ppi_yeast", split, ["protein_a", "protein_b"], "label") for split in ("train", "test"))
    found = run_baselines(["identity"], train, test, ["protein", "protein"], "pair", ["0", "1"])["identity"]
    assert accuracy(found, test, ["0", "1"]) > 0.80  # others measured 0.813


@pytest.mark.real_data
def test_the_mutation_count_ranks_gfp_mutants() -> None:
    train, test = (
        [
            {**row, "value": float(row["output"]), "output": "low"}
            for row in real_rows("protein_gfp_fluorescence", split, ["sequence"], "log_fluorescence", 3000)
        ]
        for split in ("train", "test")
    )
    found = run_baselines(["mutations"], train, test, ["protein"], "regression", ["low", "high"])["mutations"]
    assert found.numbers is not None
    assert metrics.spearman([row["value"] for row in test], found.numbers) == pytest.approx(0.340, abs=0.04)
