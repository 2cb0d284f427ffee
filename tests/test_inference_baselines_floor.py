"""Baselines on rows with a planted signal."""

from __future__ import annotations

import random

import numpy as np

from llama_gene.data.structure import show_middle
from llama_gene.inference.baselines.simple import _middle_residues, asks_middle, kmer_floor, majority_baseline


def row(output: str, *sequences: str) -> dict[str, object]:
    return {"output": output, "sequences": list(sequences)}


def random_text(rng: random.Random, letters: str, length: int) -> str:
    return "".join(rng.choice(letters) for _ in range(length))


def planted(num: int, seed: int) -> list[dict[str, object]]:
    """DNA rows of 60 bp; the positive ones hold TATAAA."""
    rng = random.Random(seed)
    rows = []
    for i in range(num):
        text = random_text(rng, "ACGT", 60)
        rows.append(row("yes", text[:20] + "TATAAA" + text[26:]) if i % 2 else row("no", text))
    return rows


def test_the_majority_is_the_commonest_training_answer_and_ties_are_decided_by_name() -> None:
    assert majority_baseline([row("b"), row("a"), row("b")]) == "b"
    assert majority_baseline([row("b"), row("a")]) == "a"
    assert majority_baseline([]) is None


def test_the_floor_finds_a_planted_kmer_and_gives_probabilities_in_label_order() -> None:
    train, test = planted(400, seed=0), planted(100, seed=1)
    chances = kmer_floor(train, test, ["dna"], "classification", ["yes", "no"])
    assert chances is not None
    truth = np.array([0 if r["output"] == "yes" else 1 for r in test])
    assert (chances.argmax(1) == truth).mean() > 0.8
    np.testing.assert_allclose(chances.sum(1), 1.0)
    again = kmer_floor(train, test, ["dna"], "classification", ["yes", "no"])
    np.testing.assert_array_equal(chances, again)


def test_the_floor_is_trained_on_training_rows_only() -> None:
    train, test = planted(100, seed=0), planted(40, seed=1)
    flipped = [{**r, "output": "no" if r["output"] == "yes" else "yes"} for r in test]
    np.testing.assert_array_equal(
        kmer_floor(train, test, ["dna"], "classification", ["yes", "no"]),
        kmer_floor(train, flipped, ["dna"], "classification", ["yes", "no"]),
    )


def test_a_pair_has_a_block_for_each_sequence() -> None:
    rng = random.Random(0)
    rows = [row("yes" if i % 2 else "no", "ACGT" * 5, random_text(rng, "KR" if i % 2 else "DE", 20)) for i in range(60)]
    chances = kmer_floor(rows[:40], rows[40:], ["dna", "protein"], "pair", ["no", "yes"])
    assert chances is not None
    assert (chances.argmax(1) == [i % 2 for i in range(40, 60)]).all()


def test_a_structure_floor_sees_where_the_last_residues_are() -> None:
    rng = random.Random(0)

    def window(i: int) -> str:  # the same letters in each window; only the place of W tells the classes apart
        body = random_text(rng, "AG", 28)
        return body + ("WAG" if i % 2 else "AGW")

    rows = [row("helix" if i % 2 else "coil", window(i)) for i in range(200)]
    chances = kmer_floor(rows[:150], rows[150:], ["protein"], "structure", ["coil", "helix"])
    assert chances is not None
    assert (chances.argmax(1) == [i % 2 for i in range(150, 200)]).mean() > 0.95


def test_a_structure_floor_sees_where_the_residue_in_the_middle_is() -> None:
    rng = random.Random(0)

    def window(i: int) -> dict[str, object]:  # each window holds a W and a Y; the one in the middle decides
        one, other = "WY" if i % 2 else "YW"
        text = random_text(rng, "AG", 14) + other + one + random_text(rng, "AG", 15)
        return {**row("helix" if i % 2 else "coil", text), "input": show_middle(text)}

    rows = [window(i) for i in range(160)]
    assert asks_middle("structure", rows) and rows[1]["sequences"][0][15] == "W"  # type: ignore[index]
    chances = kmer_floor(rows[:120], rows[120:], ["protein"], "structure", ["coil", "helix"])
    assert chances is not None
    assert (chances.argmax(1) == [i % 2 for i in range(120, 160)]).all()


def test_residues_are_counted_from_the_middle() -> None:
    assert _middle_residues("AMKQA") == ["-2A", "-1M", "0K", "1Q", "2A"]
    assert _middle_residues("C" * 15 + "K" + "D" * 15)[6:9] == ["-1C", "0K", "1D"] and len(_middle_residues("C" * 31)) == 15


def test_labels_that_training_does_not_hold_get_no_probability() -> None:
    chances = kmer_floor(planted(40, 0), planted(4, 1), ["dna"], "classification", ["maybe", "yes", "no"])
    assert chances is not None and chances.shape == (4, 3) and (chances[:, 0] == 0).all()
    only = kmer_floor([row("no", "ACGT")], planted(3, 1), ["dna"], "classification", ["yes", "no"])
    assert only is not None and only.tolist() == [[0.0, 1.0]] * 3


def test_there_is_no_floor_without_training_rows_or_for_many_free_texts() -> None:
    assert kmer_floor([], planted(4, 1), ["dna"], "classification", ["yes", "no"]) is None
    assert kmer_floor(planted(4, 1), planted(4, 1), ["dna"], "function", [str(i) for i in range(51)]) is None
