"""Secondary structure: votes, windows, three states out of eight."""

from __future__ import annotations

import random

import pytest

from llama_gene.data.structure import StructureExample, reduce_states, structure_examples, token_lengths, vote
from llama_gene.errors import InputError
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like


@pytest.mark.parametrize(
    ("states", "label"),
    [
        ("HE", "alpha helix"),
        ("EH", "alpha helix"),
        ("CH", "alpha helix"),
        ("CE", "beta sheet"),
        ("CEH", "alpha helix"),
        ("CCEE", "beta sheet"),
        ("CCEEH", "beta sheet"),
        ("CCE", "random coil"),
        ("HCC", "random coil"),
        ("C", "random coil"),
    ],
)
def test_law_12_ties_go_helix_sheet_coil(states: str, label: str) -> None:
    assert vote(states) == label


def test_a_residue_without_a_known_state_does_not_vote() -> None:
    assert vote("---C") == "random coil"
    assert vote("--") is None


def test_eight_states_become_three_by_the_rule_of_dssp() -> None:
    assert reduce_states("HGIEBTSC-") == "HHHEECCC-"


def test_an_unknown_state_is_an_error() -> None:
    with pytest.raises(InputError, match="'X' is not a secondary-structure state"):
        reduce_states("HHX")


def test_a_window_is_the_token_and_the_thirty_residues_before_it() -> None:
    sequence = "".join("ACDEFGHIKLMNPQRSTVWY"[number % 20] for number in range(50))
    examples = structure_examples(sequence, "C" * 47 + "HHE", [1, 40, 6, 3], 4, random.Random(0))
    assert examples == [
        StructureExample(sequence[0:1], "random coil", 0, 1),
        StructureExample(sequence[0:41], "random coil", 1, 41),
        StructureExample(sequence[11:47], "random coil", 41, 47),
        StructureExample(sequence[17:50], "alpha helix", 47, 50),
    ]


def test_a_token_of_unknown_states_is_never_asked_about() -> None:
    examples = structure_examples("MKVLAA", "--HHEE", [2, 2, 2], 9, random.Random(0))
    assert [example.label for example in examples] == ["alpha helix", "beta sheet"]


def test_only_wanted_labels_are_drawn() -> None:
    examples = structure_examples("MKVLAA", "CCHHEE", [2, 2, 2], 9, random.Random(0), wanted={"beta sheet"})
    assert [example.window for example in examples] == ["MKVLAA"]


def test_the_same_seed_draws_the_same_tokens() -> None:
    draw = [structure_examples("MKVLAA" * 9, "CCHHEE" * 9, [2] * 27, 5, random.Random(3)) for _ in range(2)]
    assert draw[0] == draw[1] and len(draw[0]) == 5


def test_states_of_another_length_are_an_error() -> None:
    with pytest.raises(InputError, match="6 residues, 5 states"):
        structure_examples("MKVLAA", "CCHHE", [6], 1, random.Random(0))


@pytest.mark.parametrize("tokenizer", [sentencepiece_like(), tiktoken_like()], ids=["sentencepiece", "tiktoken"])
def test_token_lengths_add_up_to_the_sequence(tokenizer) -> None:  # type: ignore[no-untyped-def]
    lengths = token_lengths(tokenizer, "MKQDKGLFDLVTACDEFGHIKLMNPQRSTVWYX")
    assert sum(lengths) == 33 and min(lengths) >= 1
