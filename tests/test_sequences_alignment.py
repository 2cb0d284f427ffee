"""Scores of alignments: parity with Biopython's aligner and with what is known of the statistics."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from Bio.Align import PairwiseAligner, substitution_matrices

from llama_gene.sequences.alignment import Aligner, exact_bits, make_scoring, solve_scale
from llama_gene.sequences.alphabet import get_alphabet
from llama_gene.sequences.seeds import encode

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def changed(rng: random.Random, text: str, letters: str) -> str:
    return "".join(rng.choice(letters) if rng.random() < 0.4 else "" if rng.random() < 0.03 else letter for letter in text)


@pytest.mark.parametrize("kind", ["dna", "protein"])
def test_an_alignment_is_that_of_biopython(kind: str) -> None:
    rng = random.Random(1)
    letters = {"dna": "ACGT", "protein": RESIDUES}[kind]
    texts = ["".join(rng.choices(letters, k=150)) for _ in range(20)]
    others = [changed(rng, text, letters) for text in texts]
    alphabet = get_alphabet(kind)
    ours, theirs = encode(texts, letters), encode(others, letters)
    scoring = make_scoring(alphabet, ours, theirs)
    assert scoring is not None
    reference = PairwiseAligner(mode="local")
    if kind == "protein":
        reference.substitution_matrix = substitution_matrices.load("BLOSUM62")
    else:
        scores = substitution_matrices.Array("ACGT", dims=2)
        for row, one in enumerate("ACGT"):
            for column, two in enumerate("ACGT"):
                scores[one, two] = scoring.matrix[row, column]
        reference.substitution_matrix = scores
    reference.open_gap_score, reference.extend_gap_score = -scoring.first_gap, -scoring.next_gap
    aligner = Aligner(scoring, alphabet, ours, theirs)
    for number, (text, other) in enumerate(zip(texts, others, strict=True)):
        found = aligner.align(number, number, 0, 0)
        expected = reference.align(text, other)[0]
        bits = expected.score * scoring.unit + scoring.constant
        assert found.bits <= bits + 1e-6 and found.bits > 0.75 * bits  # the pair's own composition lowers it
        assert found.first == (expected.coordinates[0][0], expected.coordinates[0][-1])
        assert found.second == (expected.coordinates[1][0], expected.coordinates[1][-1])
        counts = expected.counts()
        assert (found.matches, found.length) == (counts.identities, counts.identities + counts.mismatches + counts.gaps)


def test_the_scale_of_plus_and_minus_one_in_even_dna_is_the_logarithm_of_three() -> None:
    even = np.full(4, 0.25)
    number = np.where(np.eye(4, dtype=bool), 1, 0).reshape(-1)
    assert solve_scale(np.array([-1, 1]), number, even, even) == pytest.approx(math.log(3))


def test_a_score_that_is_not_negative_on_average_has_no_scale() -> None:
    one_letter = np.array([1.0, 0.0, 0.0, 0.0])
    assert solve_scale(np.array([-1, 1]), np.where(np.eye(4, dtype=bool), 1, 0).reshape(-1), one_letter, one_letter) == 0


def test_the_scale_of_blosum62_is_the_published_one() -> None:
    robinson = [
        78,
        19,
        54,
        63,
        39,
        74,
        22,
        52,
        57,
        90,
        22,
        45,
        52,
        43,
        51,
        71,
        58,
        64,
        13,
        32,
    ]  # residues in 1,000, Robinson and Robinson 1991
    scores = substitution_matrices.load("BLOSUM62")
    matrix = np.array([[int(scores[one, two]) for two in RESIDUES] for one in RESIDUES])
    values, number = np.unique(matrix, return_inverse=True)
    shares = np.array(robinson) / sum(robinson)
    assert solve_scale(values, number.reshape(-1), shares, shares) == pytest.approx(0.3176, abs=0.003)


def test_an_exact_stretch_counts_masked_letters_little() -> None:
    information = np.array([2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0])
    codes = np.array([0, 1, 2, 3, 0, 1, 2, 3, 4, 0], np.uint8)
    nothing = np.zeros(10, bool)
    assert exact_bits(codes, codes, nothing, 0, information) == 16.0  # eight letters; the unknown one ends the stretch
    assert exact_bits(codes, codes, nothing, 4, information) == 8.0
    some = np.array([True] * 4 + [False] * 6)
    assert exact_bits(codes, codes, some, 0, information) == pytest.approx(8 + 2)


def test_a_set_of_one_letter_has_no_scores() -> None:
    assert make_scoring(get_alphabet("dna"), encode(["AAAAAAA"], "ACGT"), None) is None
    assert make_scoring(get_alphabet("dna"), encode(["", "NNNN"], "ACGT"), None) is None
