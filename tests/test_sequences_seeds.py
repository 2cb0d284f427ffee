"""Candidates: what seeds and extension hand to the alignment."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.sequences import seeds
from llama_gene.sequences.seeds import Search, candidates, encode

END = -1_000_000


def search(candidate: int) -> Search:
    matrix = np.full((7, 7), -8, np.int32)
    matrix[range(4), range(4)] = 7
    matrix[5, :] = matrix[:, 5] = 0
    matrix[6, :] = matrix[:, 6] = END
    return Search(matrix, first_gap=28, next_gap=10, drop=40, gapped_drop=64, trigger=60, candidate=candidate)


def found(texts: list[str], others: list[str] | None, candidate: int) -> set[tuple[int, int, int, int]]:
    ours, theirs = encode(texts, "ACGT"), None if others is None else encode(others, "ACGT")
    labels = np.arange(len(texts), dtype=np.int32)
    parts = candidates(ours, theirs, [0, 1, 2, 3], [3, 2, 1, 0], search(candidate), labels)
    return {row for part in parts for row in zip(*(column.tolist() for column in vars(part).values()), strict=True)}


def test_a_candidate_has_its_strand_and_diagonal() -> None:
    rng = random.Random(1)
    text = "".join(rng.choices("ACGT", k=100))
    turned = text.translate(str.maketrans("ACGT", "TGCA"))[::-1]
    assert found([text, text[30:]], None, 300) == {(0, 1, 0, -30)}
    assert found([text, turned[10:]], None, 300) == {(0, 1, 1, -10)}
    assert found([text], [text[30:], turned], 300) == {(0, 0, 0, -30), (0, 1, 1, 0)}


def test_an_extension_passes_gaps_on_both_sides() -> None:
    rng = random.Random(2)
    text = "".join(rng.choices("ACGT", k=120))
    gapped = text[:30] + text[33:80] + "GA" + text[80:]
    score = 7 * 117 - (28 + 2 * 10) - (28 + 10)  # exact: three letters lost, two gained
    assert found([text, gapped], None, score - 7 * 3)  # a gap may be placed a letter or two aside
    assert not found([text, gapped], None, score + 7 * 4)


def test_sequences_with_one_label_are_left_out() -> None:
    text = "ACGTTGCATGCCTAGGATCCAAGTCCGATTGC"
    ours = encode([text, text, text[2:]], "ACGT")
    parts = list(candidates(ours, None, [0, 1, 2, 3], [3, 2, 1, 0], search(80), np.array([0, 0, 1], np.int32)))
    assert {(int(a), int(b)) for part in parts for a, b in zip(part.first, part.second, strict=True)} == {(0, 2), (1, 2)}


@settings(max_examples=60, deadline=None)
@given(st.text("ACGT", min_size=64, max_size=200), st.integers(0, 31), st.integers(0, 1))
def test_words_of_classes_are_those_of_the_packed_text(text: str, place: int, wide: int) -> None:
    width = (2, 4)[wide]
    letters = encode([text], "ACGT").exact
    class_of = np.full(256, 255, np.uint8)
    class_of[:4] = range(4)
    words = np.zeros(len(letters) + 2, np.uint64)
    seeds._fill_words(letters, len(text), class_of, width, 3, words)
    packed = seeds._pack(letters, class_of, width, 3)
    hits = np.zeros((4, 1), np.int64)
    hits[2, 0] = hits[3, 0] = place + 1
    assert seeds._alike(hits, 1, words, packed, width, 64 // width) == 1
    assert int(words[place + 1]) & (2**width - 1) == ("ACGT".index(text[place - 3]) if place >= 3 else 0)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_popcount_counts_bits(word: int) -> None:
    assert seeds._popcount(np.uint64(word)) == word.bit_count()
