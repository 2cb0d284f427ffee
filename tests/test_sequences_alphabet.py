"""Letters, complements and the genetic code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import Alphabet, check_letters, get_alphabet, register_alphabet, reverse_complement, translate


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
    letters = Alphabet("3di", "ACDEFGHIKLMNPQRSTVWY")
    register_alphabet(letters)
    register_alphabet(letters)
    assert get_alphabet("3di") is not None
    with pytest.raises(ConfigError, match="registered with other letters"):
        register_alphabet(Alphabet("3di", "AC"))


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
