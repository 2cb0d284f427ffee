"""Secondary structure: votes, windows, three states out of eight."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gene.data.structure import (
    StructureExample,
    read_states,
    reduce_states,
    residue_examples,
    show_middle,
    structure_examples,
    token_lengths,
    vote,
    vote_ceiling,
)
from llama_gene.data.tasks import load_task, read_task
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


# --- by residue ---


@given(st.text("ACDEFGHIKLMNPQRSTVWY", min_size=1, max_size=60), st.integers(1, 20), st.randoms())
def test_the_residue_that_is_asked_about_always_stands_in_the_middle_with_its_own_state(
    sequence: str, window: int, rng: random.Random
) -> None:
    states = "".join(rng.choice("HEC-") for _ in sequence)
    names = {"H": "helix", "E": "sheet", "C": "coil"}
    examples = residue_examples(sequence, states, window, 99, random.Random(0), names=names)
    assert [example.start for example in examples] == [place for place, state in enumerate(states) if state != "-"]
    for example in examples:
        assert len(example.window) == 2 * window + 1 and example.window[window] == sequence[example.start]
        assert example.label == names[states[example.start]] and example.end == example.start + 1
        before, asked, after = show_middle(example.window).split(" ")
        assert (len(before), asked, len(after)) == (window, sequence[example.start], window)
        assert example.window.strip("X") in sequence


def test_windows_of_dna_are_filled_up_with_n() -> None:
    names = {"E": "exon", "I": "intron"}
    (first, *_) = residue_examples("ACGT", "EEII", 3, 4, random.Random(0), names=names, kind="dna")
    assert first == StructureExample("NNNACGT", "exon", 0, 1)


def test_only_known_and_wanted_residues_are_drawn() -> None:
    examples = residue_examples("MKVLAA", "--HHEE", 2, 9, random.Random(0), wanted={"beta sheet"})
    assert [example.window for example in examples] == ["VLAAX", "LAAXX"]


# --- states of one's own, votes ---


def test_other_states_are_voted_on_in_their_own_order() -> None:
    names = {"O": "other", "E": "exon", "I": "intron"}
    assert vote("EEI", names, "OEI") == "exon"
    assert vote("EI", names, "OEI") == "exon" and vote("EI", names, "IEO") == "intron"
    assert read_states("OEI-", names) == "OEI-"
    with pytest.raises(InputError, match="'H' is not a state; expected O E I"):
        read_states("H", names)


@given(st.lists(st.lists(st.sampled_from("HEC-"), min_size=1, max_size=6), min_size=1, max_size=8))
def test_the_ceiling_of_a_vote_is_what_the_best_answer_by_token_reaches(tokens: list[list[str]]) -> None:
    states = "".join("".join(token) for token in tokens)
    known = len(states) - states.count("-")
    best = sum(max(token.count(state) for state in "HEC") for token in tokens)
    ceiling = vote_ceiling([(states, [len(token) for token in tokens])])
    assert ceiling == (best / known if known else None)


@pytest.mark.real_data
@pytest.mark.skipif("LLAMA_GENE_DATA" not in os.environ, reason="LLAMA_GENE_DATA names no data folder")
def test_votes_over_two_three_and_four_residues_of_cb513_reach_what_was_measured() -> None:
    path = Path(__file__).parents[1] / "launch/configs/tasks/protein_secondary_structure.yaml"
    proteins = [row["label"] for row in load_task(read_task(path), Path(os.environ["LLAMA_GENE_DATA"])).splits["test"]]

    def ceiling(size: int) -> float:
        lengths = [[size] * (len(states) // size) + ([len(states) % size] if len(states) % size else []) for states in proteins]
        return round(vote_ceiling(zip(proteins, lengths, strict=True)) or 0.0, 3)

    assert [ceiling(size) for size in (1, 2, 3, 4)] == [1.0, 0.913, 0.888, 0.844]
