"""Which letters count as low complexity."""

from __future__ import annotations

import random

import numpy as np
import pytest

from llama_gene.sequences.complexity import low_complexity


def codes(text: str, letters: str) -> np.ndarray:
    return np.array([letters.find(letter) if letter in letters else 255 for letter in text], np.uint8)


@pytest.mark.parametrize("unit", ["A", "CA", "GAT", "GATC", "GATTA", "GATTAC"])
def test_a_repeat_of_36_bp_is_marked_and_little_beside_it(unit: str) -> None:
    rng = random.Random(1)
    flank = "".join(rng.choices("ACGT", k=60))
    marked = low_complexity(codes(flank + (unit * 36)[:36] + flank[::-1], "ACGT"), 4)
    assert marked[60:96].all()
    assert marked.sum() <= 36 + 8


@pytest.mark.parametrize("unit", ["A", "CA", "GAT", "GATA", "GATTA", "GATTAC"])
def test_a_repeat_of_18_bp_is_marked(unit: str) -> None:
    assert low_complexity(codes("CCGTCAGG" + (unit * 18)[:18] + "TGCCATCG", "ACGT"), 4)[8:26].all()


def test_random_dna_is_hardly_marked() -> None:
    rng = random.Random(2)
    assert low_complexity(codes("".join(rng.choices("ACGT", k=200_000)), "ACGT"), 4).mean() < 0.003


def test_a_run_of_one_residue_is_marked_and_random_protein_is_not() -> None:
    rng, letters = random.Random(3), "ACDEFGHIKLMNPQRSTVWY"
    text = "".join(rng.choices(letters, k=100))
    marked = low_complexity(codes(text + "Q" * 20 + text, letters), 20)
    assert marked[100:120].all() and marked.sum() < 40


def test_a_window_ends_where_a_letter_is_unknown() -> None:
    assert not low_complexity(codes("AAAAAA" + "N" + "AAAAAA", "ACGT"), 4).any()
    assert not low_complexity(codes("", "ACGT"), 4).any()
