"""Exact runs that texts share with evaluation rows."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.complexity import low_complexity
from llama_gene.sequences.shared_runs import Hit, RunIndex, Screen, default_length

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def random_text(length: int, seed: float, letters: str = "ACGT") -> str:
    return "".join(random.Random(seed).choices(letters, k=length))


def even_text(length: int, seed: float, letters: str) -> str:
    """Return a text of shuffled blocks of 20 letters of even composition: no stretch of low complexity."""
    rng = random.Random(seed)
    while True:
        text = "".join("".join(rng.sample(letters * (20 // len(letters)), 20)) for _ in range(length // 20 + 1))[:length]
        codes = np.array([letters.index(letter) for letter in text], dtype=np.uint8)
        if not low_complexity(codes, len(letters)).any():  # chance writes TGCCTGCCTGCC too, of which a run says nothing
            return text


def plain_runs(text: str, rows: list[str], length: int, stranded: bool) -> set[Hit]:
    """Return every maximal exact run, found letter by letter on every diagonal."""
    found = set()
    for row, letters in enumerate(rows):
        for strand in (1, -1) if stranded else (1,):
            other = letters if strand == 1 else reverse_complement(letters)
            for diagonal in range(-len(other), len(text)):
                start = None
                for place in range(max(diagonal, 0), min(len(text), diagonal + len(other)) + 1):
                    inside = place < len(text) and place - diagonal < len(other)
                    equal = inside and text[place] == other[place - diagonal] and text[place] in RESIDUES
                    if equal and start is None:
                        start = place
                    if not equal and start is not None:
                        if place - start >= length:
                            at = start - diagonal if strand == 1 else len(other) - (place - diagonal)
                            found.add(Hit(row, start, place - start, strand, at))
                        start = None
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([18, 20, 24, 31, 40, 50]))
def test_dna_hits_are_the_maximal_runs_of_a_plain_search(seed: int, length: int) -> None:
    rng = random.Random(seed)
    rows = [even_text(rng.randrange(0, 120), rng.random(), "ACGT") for _ in range(4)]
    pieces = []
    for _ in range(5):
        row = rng.choice(rows)
        start = rng.randrange(len(row) + 1)
        piece = row[start : start + rng.randrange(80)]
        pieces += [rng.choice([piece, reverse_complement(piece)]), random_text(rng.randrange(9), rng.random(), "ACGTN")]
    text = "".join(pieces)
    assert set(RunIndex(rows, "dna", length).hits(text)) == plain_runs(text, rows, length, stranded=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([9, 12, 20, 30]))
def test_protein_hits_are_the_maximal_runs_of_a_plain_search(seed: int, length: int) -> None:
    rng = random.Random(seed)
    rows = [even_text(rng.randrange(0, 90), rng.random(), RESIDUES) for _ in range(4)]
    pieces = []
    for _ in range(5):
        row = rng.choice(rows)
        start = rng.randrange(len(row) + 1)
        pieces += [row[start : start + rng.randrange(60)], random_text(rng.randrange(9), rng.random(), RESIDUES + "X")]
    text = "".join(pieces)
    assert set(RunIndex(rows, "protein", length).hits(text)) == plain_runs(text, rows, length, stranded=False)


def test_law_14_a_planted_run_of_50_bases_is_found_at_every_place_on_both_strands() -> None:
    row = random_text(70, 1)
    index = RunIndex([row], "dna")
    for start in range(21):
        run = row[start : start + 50]
        for number in range(45):
            before, behind = random_text(number, number), random_text(60, number + 100)
            expected = plain_runs(before + run + behind, [row], 50, stranded=True)
            assert expected and set(index.hits(before + run + behind)) == expected
            assert index.first_row(before + reverse_complement(run) + behind) == 0


def test_49_shared_bases_are_no_hit() -> None:
    row = random_text(300, 2)
    cut = row[100:149]
    wrong = {"A": "C", "C": "G", "G": "T", "T": "A"}
    assert RunIndex([row], "dna").hits(wrong[row[99]] + cut + wrong[row[149]]) == []


def test_an_ambiguity_code_ends_a_run() -> None:
    row = random_text(120, 3)
    text = row[:55] + "N" + row[56:]
    assert RunIndex([row], "dna").hits(text) == [Hit(0, 0, 55, 1, 0), Hit(0, 56, 64, 1, 56)]
    assert RunIndex([text], "dna").hits(text) == [Hit(0, 0, 55, 1, 0), Hit(0, 56, 64, 1, 56)]


def test_case_does_not_count() -> None:
    row = random_text(60, 4)
    assert RunIndex([row.lower()], "dna").hits(row) == RunIndex([row], "dna").hits(row.lower()) == [Hit(0, 0, 60, 1, 0)]


def test_a_palindrome_is_found_on_both_strands() -> None:
    half = random_text(30, 5)
    row = half + reverse_complement(half)
    assert RunIndex([row], "dna").hits(row) == [Hit(0, 0, 60, -1, 0), Hit(0, 0, 60, 1, 0)]


@pytest.mark.parametrize("unit", ["A", "CA", "CAG", "GATA", "TTAGGG"])
def test_a_shared_short_repeat_is_no_hit(unit: str) -> None:
    repeat = (unit * 80)[:80]
    row = random_text(60, 6) + repeat + random_text(60, 7)
    assert RunIndex([row], "dna").hits(random_text(100, 8) + repeat + random_text(100, 9)) == []


def test_a_shared_stretch_of_a_and_t_alone_is_no_hit() -> None:
    stretch = random_text(52, 11, "AT")
    row = random_text(60, 11) + "C" + stretch + "G" + random_text(60, 12)
    assert RunIndex([row], "dna").hits("G" + stretch + "C") == []


def test_twenty_bases_beside_poly_a_are_too_little() -> None:
    shared = random_text(20, 13) + "A" * 40
    assert RunIndex([shared + random_text(100, 14)], "dna").hits(random_text(100, 15) + shared + "C") == []


def test_a_whole_row_counts_whatever_its_letters() -> None:
    row = random_text(20, 16) + "A" * 40
    assert [hit.length for hit in RunIndex([row], "dna").hits("C" + row + "C")] == [60]


@pytest.mark.parametrize("stretch", ["Q" * 40, "SR" * 20, "GPP" * 14, "EEDEEEEDDEEEEEDEEEDEDEEEE"])
def test_a_shared_stretch_of_few_residues_is_no_hit(stretch: str) -> None:
    row = random_text(50, 17, RESIDUES) + stretch + random_text(50, 18, RESIDUES)
    assert RunIndex([row], "protein").hits("W" + stretch + "M") == []


def test_random_documents_share_nothing() -> None:
    dna = RunIndex([random_text(300, seed) for seed in range(500)], "dna")
    protein = RunIndex([random_text(300, seed, RESIDUES) for seed in range(500)], "protein")
    assert all(dna.first_row(random_text(600, 10_000 + seed)) is None for seed in range(500))
    assert all(protein.first_row(random_text(400, 10_000 + seed, RESIDUES)) is None for seed in range(500))


def test_rows_shorter_than_a_run_are_counted() -> None:
    assert RunIndex([random_text(49, 19), random_text(50, 20), ""], "dna").num_short == 2


def test_a_family_of_hundreds_of_rows_is_found_by_some_and_the_rest_is_counted() -> None:
    row = random_text(70, 21)
    index = RunIndex([row] * 200, "dna")
    assert index.num_unlisted == 40 * (200 - 64)
    assert [hit.row for hit in index.hits(row)] == list(range(64))


def test_rna_and_user_alphabets_are_read_like_dna_and_protein() -> None:
    rna = random_text(60, 22, "ACGU")
    assert RunIndex([rna], "rna").hits(reverse_complement(rna, "rna")) == [Hit(0, 0, 60, -1, 0)]
    states = random_text(40, 23, RESIDUES)
    assert RunIndex([states], "3di").hits(states) == [Hit(0, 0, 40, 1, 0)]


@pytest.mark.parametrize("text", ["", "ACGT", "é" * 60, "-" * 60])
def test_texts_without_letters_share_nothing(text: str) -> None:
    assert RunIndex([random_text(60, 24)], "dna").hits(text) == []
    assert RunIndex([], "dna").hits(random_text(60, 24)) == []


def test_runs_that_chance_makes_are_refused() -> None:
    with pytest.raises(ConfigError, match="runs of 10 letters of dna; expected 18 or more"):
        RunIndex(["ACGT"], "dna", 10)
    assert (default_length("dna"), default_length("protein")) == (50, 20)


def test_a_run_must_cover_the_asked_share_of_the_row_or_of_a_shorter_text() -> None:
    row = random_text(300, 29)
    text = random_text(400, 30) + row[100:190]
    assert [len(RunIndex([row], "dna", share=share).hits(text)) for share in (0.0, 0.25, 0.3, 0.31, 1.0)] == [1, 1, 1, 0, 0]
    assert [len(RunIndex([row], "dna", share=share).hits(text[-180:])) for share in (0.5, 0.51)] == [1, 0]
    with pytest.raises(ConfigError, match="share 1.5"):
        RunIndex([row], "dna", share=1.5)


def test_a_screen_lets_a_shared_piece_of_a_repeat_be_and_finds_a_row_that_two_documents_share() -> None:
    row = random_text(300, 31)
    screen = Screen({"test": [row]}, "dna")
    assert screen.source_of(random_text(300, 32) + row[:60] + random_text(300, 33)) is None
    for cut in range(0, 301, 10):
        halves = (random_text(400, 34) + row[:cut], row[cut:] + random_text(400, 35))
        assert any([screen.source_of(half) for half in halves])


def test_a_screen_names_the_evaluation_file() -> None:
    first, second = random_text(80, 25), random_text(80, 26)
    screen = Screen({"a test": [first], "b test": [second, second]}, "dna")
    clean, one, two = random_text(200, 27), random_text(50, 28) + first[:60], reverse_complement(second)
    assert [screen.source_of(text) for text in (clean, one, two)] == [None, "a test", "b test"]
