"""The six-frame rule: which share of a protein does a stretch of DNA code for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import reverse_complement, translate
from llama_gene.sequences.six_frames import six_frame_match


def slow_match(dna: str, protein: str) -> float:
    """The rule written out letter by letter."""
    best = 0
    for strand in (dna, reverse_complement(dna)):
        for shift in range(3):
            frame = translate(strand[shift:], 11)
            for offset in range(-len(protein), len(frame) + 1):
                equal = sum(
                    0 <= offset + place < len(frame) and frame[offset + place] == residue != "X" for place, residue in enumerate(protein)
                )
                best = max(best, equal)
    return best / len(protein)


@pytest.mark.parametrize(
    ("dna", "protein", "share"),
    [
        ("ATGGCTAAATGG", "MAKW", 1.0),
        ("CATGGCTAAATGGC", "MAKW", 1.0),  # second frame
        ("CCATTTAGCCAT", "MAKW", 1.0),  # the other strand
        ("ATGGCTAAATGG", "AK", 1.0),  # inside
        ("ATGGCTAAATGG", "KWMA", 0.5),  # hangs over the end
        ("ATGGCTTAAATGG", "MAKW", 0.5),  # one base inserted in the middle
        ("ATGGCTAAATGG", "makw", 1.0),
        ("AC", "MAKW", 0.0),
        ("ATGNNNAAATGG", "MXKW", 0.75),  # an unknown residue is equal to nothing
    ],
)
def test_the_share_of_residues_that_the_best_frame_matches(dna: str, protein: str, share: float) -> None:
    assert six_frame_match(dna, protein) == share


def test_one_strand_alone_does_not_see_the_other() -> None:
    assert six_frame_match("CCATTTAGCCAT", "MAKW", both_strands=False) <= 0.25


@given(st.text("ACGTN", max_size=40), st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=12))
def test_it_equals_the_rule_written_out(dna: str, protein: str) -> None:
    assert six_frame_match(dna, protein) == slow_match(dna, protein)


def test_the_strands_are_alike_and_the_answer_does_not_depend_on_which_is_given() -> None:
    dna = "".join(random.Random(1).choices("ACGT", k=90))
    assert six_frame_match(dna, "MKLVAD") == six_frame_match(reverse_complement(dna), "MKLVAD")


def test_the_genetic_code_counts() -> None:
    assert six_frame_match("ATGTGAAAA", "MWK", genetic_code=4) == 1.0
    assert six_frame_match("ATGTGAAAA", "MWK", genetic_code=11) < 1.0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="empty protein"):
        six_frame_match("ACGT", "")
    with pytest.raises(ConfigError, match="99"):
        six_frame_match("ACGT", "M", genetic_code=99)
