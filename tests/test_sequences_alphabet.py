"""Letters, complements and the genetic code."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import (
    LETTER_TOKEN,
    Alphabet,
    check_letters,
    get_alphabet,
    load_alphabets,
    register_alphabet,
    reverse_complement,
    tokens_of,
    translate,
    write_letters,
)


def test_reverse_complement_of_n_is_n() -> None:
    assert reverse_complement("N") == "N"


def test_reverse_complement_keeps_case_and_iupac_codes() -> None:
    assert reverse_complement("AAcRy") == "rYgTT"
    assert reverse_complement("ACGU", kind="rna") == "ACGU"


@given(st.text(alphabet="ACGTRYSWKMBDHVNacgtn", max_size=200))
def test_reverse_complement_twice_is_the_identity(sequence: str) -> None:
    assert reverse_complement(reverse_complement(sequence)) == sequence


def test_protein_has_no_reverse_complement() -> None:
    with pytest.raises(ConfigError, match="has no complement"):
        reverse_complement("MKV", kind="protein")


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"kind 'protien' is unknown.*Did you mean 'protein'"):
        get_alphabet("protien")


def test_a_registered_alphabet_is_found_and_cannot_change_its_letters() -> None:
    letters = Alphabet("turns", "TSB")
    register_alphabet(letters)
    register_alphabet(letters)
    assert get_alphabet("turns") is letters
    with pytest.raises(ConfigError, match="registered with other letters"):
        register_alphabet(Alphabet("turns", "TS"))


def test_structure_letters_are_tokens_of_their_own_and_plain_letters_stay() -> None:
    assert write_letters("DVVd", get_alphabet("3di")) == "<3di:d><3di:v><3di:v><3di:d>"
    assert write_letters("HEC", get_alphabet("ss3")) == "<ss3:h><ss3:e><ss3:c>"
    assert write_letters("MKtAyB*-", get_alphabet("protein")) == "MKtAyB*-"
    assert len(tokens_of(get_alphabet("3di"))) == 20 and tokens_of(get_alphabet("rna")) == []
    assert all(LETTER_TOKEN.fullmatch(token) for token in tokens_of(get_alphabet("3di")))
    with pytest.raises(InputError, match="'X' is not a 3di letter"):
        write_letters("DVX", get_alphabet("3di"))


def test_alphabets_of_a_file_are_registered_with_every_field(tmp_path: Path) -> None:
    path = tmp_path / "alphabets.yaml"
    path.write_text(
        "- {name: purine, letters: RY, ambiguous: N, complement: {R: Y, Y: R, N: N}, stop: '*', gap: '-', unknown: N}\n"
        "- {name: dssp8, letters: HBEGITSC, namespace: dssp8}\n"
    )
    assert load_alphabets(path) == load_alphabets(path) == ["purine", "dssp8"]
    assert get_alphabet("purine") == Alphabet("purine", "RY", "N", {"R": "Y", "Y": "R", "N": "N"}, "*", "-", "N")
    assert reverse_complement("RRYN", "purine") == "NRYY"
    assert tokens_of(get_alphabet("dssp8"))[:2] == ["<dssp8:h>", "<dssp8:b>"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no list"),
        ("name: a", "is no list"),
        ("- [", "is not YAML"),
        ("- word", "alphabet 1 is no mapping"),
        ("- {letters: AB}", "alphabet 1 has no name"),
        ("- {name: bad}", "alphabet 1 has no letters"),
        ("- {name: bad, letters: AB}\n- {name: worse, leters: AB}", "alphabet 2: key 'leters' is unknown.*Did you mean 'letters'"),
        ("- {name: bad, letters: NO}", "letters: False.*in quotes"),
        ("- {name: 3, letters: AB}", "name: 3"),
        ("- {name: bad, letters: ab}", "letters: 'ab'"),
        ("- {name: bad, letters: AA}", "letters: 'A' occurs twice"),
        ("- {name: bad, letters: AB, ambiguous: BN}", "letters: 'B' occurs twice"),
        ("- {name: bad, letters: AB, ambiguous: '?'}", "ambiguous: '\\?'"),
        ("- {name: bad, letters: AB, stop: Z}", "stop: 'Z'"),
        ("- {name: bad, letters: AB, gap: ' '}", "gap: ' '"),
        ("- {name: bad, letters: AB, unknown: X}", "unknown: 'X'"),
        ("- {name: bad, letters: AB, complement: AB}", "complement: 'AB'"),
        ("- {name: bad, letters: AB, complement: {A: B, B: B}}", "complement: A -> B"),
        ("- {name: bad, letters: ABC, complement: {A: B, B: A}}", "complement: none for C"),
        ("- {name: bad, letters: AB, namespace: B-D}", "namespace: 'B-D'"),
        ("- {name: bad, letters: AB, namespace: bad, stop: '*'}", "namespace: only letters"),
        ("- {name: dna, letters: AB}", "name: 'dna' means other letters"),
        ("- {name: bad, letters: AB}\n- {name: bad, letters: AB}", "alphabet 1, name: 'bad'"),
    ],
)
def test_a_wrong_field_is_one_line_with_file_and_key_and_registers_nothing(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "alphabets.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_alphabets(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="kind 'bad' is unknown"):
        get_alphabet("bad")


def test_a_protein_in_a_dna_file_is_told_to_set_kind_protein() -> None:
    with pytest.raises(InputError) as caught:
        check_letters("MKV*", get_alphabet("dna"), "genome.fa, line 812")
    assert str(caught.value) == (
        "genome.fa, line 812: '*' is not a DNA letter; expected ACGT and the ambiguity codes RYSWKMBDHVN. "
        "For a file of protein sequences set kind: protein."
    )  # M, K and V are IUPAC codes of DNA too


def test_letters_are_checked_in_either_case_and_beyond_ascii() -> None:
    check_letters("acgtnACGTN-", get_alphabet("dna"), "x")
    check_letters("MKVXU*", get_alphabet("protein"), "x")
    with pytest.raises(InputError, match="'é' is not a DNA letter"):
        check_letters("ACé", get_alphabet("dna"), "x")


def test_translate_knows_stops_ambiguity_and_incomplete_codons() -> None:
    assert translate("ATGGCCTAA") == "MA*"
    assert translate("auggcnta") == "MX"
    assert translate("TGA", table=1) == "*"
    assert translate("TGA", table=4) == "W"
    assert translate("") == ""


def test_translate_refuses_a_table_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="genetic code 7 does not exist"):
        translate("ATG", table=7)
